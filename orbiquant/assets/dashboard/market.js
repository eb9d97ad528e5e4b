// A market: which one, its candles with phases, signals and levels, what is read in them, and the same as a table.
import { CandleChart } from "./candles.js";
import { element, pushButton } from "./dom.js";
import {
  LANGUAGE, ZONE, badge, capital, empty, facts, keyed, profitOf, renew, tableOf, timeOf, trouble, writeCount, writeMoment, writePrice,
  writeShare, writeSpan,
} from "./format.js";

const BARS = 300;
const TOLD = 24; // bars in the table
const LEVELS = 3; // on each side
const STEP_S = { "1m": 60, "5m": 300, "15m": 900, "30m": 1800, "1h": 3600, "4h": 14_400, "1d": 86_400, "1w": 604_800 };
const CHOSEN = "orbiquant-market";
const PHASES = ["accumulation", "manipulation", "distribution", "invalidated"];
const SIDES = { buy: "LONG", sell: "SHORT", hold: "HOLD" };
const ACTED = ["taken", "resized"];

const at = (id) => document.getElementById(id);
const actionOf = (signal) => signal.direction ?? SIDES[signal.action] ?? signal.action;

export class Market {
  // changed: another market was chosen. told: something that whoever does not see should hear.
  constructor(service, { changed, told, ahead }) {
    Object.assign(this, { service, changed, told, ahead, lines: [], line: null, bars: [], said: [], decisions: [] });
    this.choice = 0; // an answer to a market that is no longer shown is dropped
    this.chart = null;
    const moves = [
      ["◀", "Earlier", (chart) => chart.move(-0.5)],
      ["▶", "Later", (chart) => chart.move(0.5)],
      ["−", "More bars", (chart) => chart.zoom(1.5)],
      ["+", "Fewer bars", (chart) => chart.zoom(1 / 1.5)],
      ["Newest", "Newest bars", (chart) => chart.newest()],
    ];
    at("moves").append(
      ...moves.map(([sign, label, act]) => {
        const made = pushButton("", sign, () => this.chart && act(this.chart));
        made.setAttribute("aria-label", label);
        return made;
      }),
    );
    at("symbol").addEventListener("change", (event) => this.choose(event.target.value, this.line?.timeframe));
  }

  get step_s() {
    return STEP_S[this.line?.timeframe] ?? 3600;
  }

  decimalsOf(symbol) {
    return this.lines.find((each) => each.symbol === symbol)?.decimals;
  }

  path(route, more = "", { symbol, timeframe } = this.line) {
    return `${route}?symbol=${encodeURIComponent(symbol)}&timeframe=${timeframe}${more}`;
  }

  async list() {
    let told;
    try {
      told = await this.service.ask("/api/series");
    } catch (refusal) {
      if (!this.lines.length) for (const each of ["price", "signal-card"]) renew(at(each), trouble(refusal));
      return;
    }
    const before = JSON.stringify(this.lines.map(({ symbol, timeframe }) => [symbol, timeframe]));
    this.lines = told.series;
    if (this.line) this.line = this.lines.find((each) => this.isShown(each)) ?? this.line;
    if (before === JSON.stringify(this.lines.map(({ symbol, timeframe }) => [symbol, timeframe]))) {
      if (!this.lines.length) this.none();
      return;
    }
    this.offer();
    if (!this.lines.length) return this.none();
    if (!this.line) {
      const [symbol, timeframe] = (sessionStorage.getItem(CHOSEN) ?? "").split(" ");
      const first = this.lines.find((each) => each.has_model && each.timeframe === "1h") ?? this.lines.find((each) => each.has_model) ?? this.lines[0];
      const kept = this.lines.find((each) => each.symbol === symbol && each.timeframe === timeframe);
      this.choose((kept ?? first).symbol, (kept ?? first).timeframe);
    }
  }

  isShown({ symbol, timeframe }) {
    return symbol === this.line?.symbol && timeframe === this.line?.timeframe;
  }

  none() {
    renew(at("price"), empty("The store holds no bars yet. `orbiquant data pull` or `orbiquant data import` brings some."));
    at("market").classList.add("bare");
    renew(at("signal-card"), empty("Without bars there is no signal."));
  }

  offer() {
    const symbols = [...new Set(this.lines.map((each) => each.symbol))];
    at("symbol").hidden = !symbols.length;
    at("symbol").replaceChildren(
      ...symbols.map((each) => {
        const name = this.lines.find((line) => line.symbol === each).name;
        const option = element("option", "", name && name !== each ? `${each} · ${name}` : each);
        option.value = each;
        return option;
      }),
    );
    at("symbol").value = this.line?.symbol ?? symbols[0] ?? "";
    this.offerTimes();
  }

  offerTimes() {
    const frames = this.lines.filter((each) => each.symbol === this.line?.symbol).map((each) => each.timeframe);
    const made = frames.map((each) => {
      const input = keyed(`frame-${each}`, element("input", "unseen"));
      Object.assign(input, { type: "radio", name: "timeframe", value: each, id: `frame-${each}`, checked: each === this.line?.timeframe });
      input.addEventListener("change", () => this.choose(this.line.symbol, each));
      const label = element("label", "", each);
      label.htmlFor = input.id;
      return element("span", "", input, label);
    });
    renew(at("timeframes"), ...made);
  }

  choose(symbol, timeframe) {
    const there = this.lines.filter((each) => each.symbol === symbol);
    const line = there.find((each) => each.timeframe === timeframe) ?? there.find((each) => each.has_model) ?? there[0];
    if (!line || this.isShown(line)) return;
    Object.assign(this, { line, bars: [], said: [], signal: null, analysis: null, stretches: [] });
    this.choice += 1;
    sessionStorage.setItem(CHOSEN, `${line.symbol} ${line.timeframe}`);
    at("symbol").value = line.symbol;
    this.offerTimes();
    this.changed();
  }

  // Everything about the market that is shown.
  async load() {
    if (!this.line) return;
    const { choice, line } = this;
    const get = async (route, put, more = "") => {
      if (choice !== this.choice) return;
      try {
        const told = await this.service.ask(this.path(route, more, line));
        if (choice === this.choice) put(told, null);
      } catch (refusal) {
        if (choice === this.choice && ![0, 429].includes(refusal.status)) put(null, refusal); // those are told above all
      }
    };
    await get("/api/market_data", (told, refusal) => this.showBars(told?.data ?? [], refusal), `&bars=${BARS}`);
    await get("/api/phases", (told) => this.showPhases(told?.stretches ?? []), `&bars=${BARS}`);
    await get("/api/analysis", (told, refusal) => this.showReading(told, refusal));
    if (line.has_model) await get("/api/signal", (told, refusal) => this.showSignal(told, refusal));
    else if (choice === this.choice) this.showSignal(null, null);
  }

  // The newest bars alone, while no stream tells them; true where another bar began.
  async look() {
    if (!this.line || !this.bars.length) return false;
    const choice = this.choice;
    try {
      const { data } = await this.service.ask(this.path("/api/market_data", "&bars=2"));
      if (choice !== this.choice || !data.length) return false;
      const last = Date.parse(this.bars.at(-1).time);
      const missed = Date.parse(data[0].time) > last && data.length > 1;
      const another = Date.parse(data.at(-1).time) > last;
      if (!missed) data.forEach((bar) => this.hearBar(bar, true));
      return another;
    } catch {
      return false; // the connection's own line says so
    }
  }

  showBars(bars, refusal) {
    const fresh = !this.bars.length;
    this.bars = bars;
    if (refusal || !bars.length) {
      at("market").classList.add("bare");
      renew(at("price"), refusal ? trouble(refusal) : empty("There are no bars of it."));
      return;
    }
    at("market").classList.remove("bare");
    this.chart ??= new CandleChart(at("chart"), { language: LANGUAGE, zone: ZONE, pointed: (bar) => this.point(bar) });
    this.paint();
    this.chart.show(bars, { decimals: this.line.decimals, step_s: this.step_s, keep: !fresh });
    this.chart.phases(this.stretches ?? []);
    this.mark();
    this.showPrice();
  }

  showPhases(stretches) {
    this.stretches = stretches;
    if (!this.bars.length) return;
    this.chart.phases(stretches);
    const seen = PHASES.filter((each) => stretches.some(({ phase }) => phase === each));
    renew(at("legend"), element("span", "", seen.length ? "Phases:" : "No phase but neutral in these bars."), ...seen.map((each) => {
      const swatch = element("span", "swatch");
      swatch.dataset.phase = each;
      return element("span", "phase", swatch, capital(each));
    }));
  }

  // The bar under the pointer, in a line; without one the last.
  point(bar = null) {
    const shown = bar ?? this.bars.at(-1);
    const time = Date.parse(shown.time);
    const phase = this.stretches?.find(({ first, last }) => Date.parse(first) <= time && time <= Date.parse(last))?.phase;
    const prices = ["open", "high", "low", "close"].map((name) => `${name[0].toUpperCase()} ${writePrice(shown[name], this.line.decimals)}`);
    at("pointed").textContent = [writeMoment(shown.time), ...prices, `V ${writeCount(shown.volume, 2)}`, phase && capital(phase)].filter(Boolean).join("   ");
  }

  showPrice() {
    this.point();
    const last = this.bars.at(-1);
    const [end, day] = [Date.parse(last.time), 86_400_000];
    const before = this.bars.findLast((each) => Date.parse(each.time) <= end - day) ?? this.bars[0];
    const change = before === last ? null : last.close / before.close - 1;
    const stale = this.analysis ? this.analysis.stale : this.line.stale;
    const age_s = this.analysis ? this.analysis.age_s : this.line.age_s;
    const price = element("strong", "last", writePrice(last.close, this.line.decimals));
    const since = Date.parse(before.time) <= end - day && end - Date.parse(before.time) < 4 * day ? " in 24 hours" : " since ";
    const moved = change === null ? null : element("span", "moved", profitOf(change, (value) => writeShare(value, 2)), since, since === " since " ? timeOf(before.time) : "");
    renew(
      at("price"),
      price,
      element("span", "quote", this.line.quote),
      moved,
      stale ? badge(`Stale: the last bar closed ${writeSpan(age_s)} ago`, "warn") : element("span", "note", "bar of ", timeOf(last.time)),
    );
    document.title = `${writePrice(last.close, this.line.decimals)} ${this.line.symbol} · OrbiQuant`;
    this.describe();
  }

  showReading(told, refusal) {
    this.analysis = told;
    if (!told) return renew(at("reading"), refusal ? trouble(refusal) : null);
    const ict = told.ict_context;
    const way = { bullish: "↑ Bullish", bearish: "↓ Bearish", neutral: "→ Neutral" };
    renew(
      at("reading"),
      facts([
        ["AMD phase", capital(told.amd_phase)],
        ["Trend", way[told.trend] ?? told.trend],
        ["Volatility", capital(told.volatility)],
        ["ATR", told.atr === null ? "–" : writePrice(told.atr, this.line.decimals)],
        ["Killzone", capital(ict.killzone.replaceAll("_", " "))],
        ["Zone", capital(ict.ote_zone)],
        ["Context score", writeShare(ict.score, 0)],
      ]),
      element("p", "note", "As of the bar of ", timeOf(told.time), ", the last that has closed."),
    );
    this.mark();
    if (this.bars.length) this.showPrice();
  }

  showSignal(signal, refusal) {
    const before = this.signal;
    this.signal = signal;
    if (!signal) {
      const none = this.line.has_model ? "There is no signal." : `No model of ${this.line.symbol} ${this.line.timeframe} is trained yet, so it has no signals.`;
      renew(at("signal-told"));
      renew(at("signal-card"), refusal ? trouble(refusal) : empty(none));
      return this.mark();
    }
    const action = actionOf(signal);
    if (before && (before.time !== signal.time || actionOf(before) !== action) && action !== "HOLD")
      this.told(`New signal: ${action} ${signal.symbol}`);
    const price = (value) => (typeof value === "number" ? writePrice(value, this.line.decimals) : "–");
    const arrow = { LONG: "▲ Long", SHORT: "▼ Short", HOLD: "Hold" }[action] ?? action;
    renew(at("signal-told"), element("span", "", `${signal.symbol} ${signal.timeframe}, bar of `), timeOf(signal.time));
    renew(
      at("signal-card"),
      element(
        "p",
        "action",
        element("strong", { LONG: "good", SHORT: "bad" }[action] ?? "", arrow),
        element("span", "", ` with ${writeShare(signal.confidence)} confidence`),
        signal.stale ? badge(`Stale, ${writeSpan(signal.age_s)} old`, "warn") : null,
      ),
      facts([
        ["Entry", price(signal.entry_price)],
        ["Stop", action === "HOLD" ? null : price(signal.stop_loss)],
        ["Target", action === "HOLD" ? null : price(signal.take_profit)],
        ["R:R", signal.risk_reward ? writeCount(signal.risk_reward, 2) : null],
        ["Phase", capital(signal.amd_phase)],
        ["Killzone", signal.killzone && capital(signal.killzone.replaceAll("_", " "))],
        ["Won before", signal.historical_accuracy === null ? null : writeShare(signal.historical_accuracy)],
      ]),
      element("ul", "reasons", ...(signal.reasoning ?? []).map((each) => element("li", "", each))),
    );
    this.mark();
  }

  // What a stream told; quiet: what was asked for.
  hearBar(bar, quiet = false) {
    const last = this.bars.at(-1);
    if (!last || Date.parse(bar.time) < Date.parse(last.time)) return;
    const another = Date.parse(bar.time) > Date.parse(last.time);
    if (another) this.bars.push(bar);
    else this.bars[this.bars.length - 1] = bar;
    this.chart.tell(bar);
    this.showPrice();
    if (another && !quiet) this.ahead();
  }

  hearSignal(signal) {
    this.said = [...this.said, signal].slice(-BARS);
    this.showSignal({ ...signal, stale: false, age_s: 0 }, null);
  }

  hearDecisions(decisions) {
    this.decisions = decisions;
    this.mark();
  }

  // Arrows and levels.
  mark() {
    if (!this.chart || !this.bars.length) return;
    const { symbol, timeframe } = this.line;
    const acted = this.decisions
      .filter((each) => each.symbol === symbol && each.timeframe === timeframe && ACTED.includes(each.outcome))
      .map(({ time, action, agent }) => ({ time, action, text: capital(agent) }));
    const signals = [...this.said, this.signal].filter(Boolean);
    const own = new Map(signals.map((each) => [each.time, { time: each.time, action: actionOf(each), text: `Signal ${writeShare(each.confidence, 0)}` }]));
    this.chart.say([...acted, ...own.values()]);
    const levels = this.levels().map(({ price, title }) => ({ price, title }));
    const action = this.signal && actionOf(this.signal);
    if (action && action !== "HOLD")
      levels.push(
        ...[["Entry", "entry_price", "ink"], ["Stop", "stop_loss", "down"], ["Target", "take_profit", "up"]]
          .filter(([, name]) => typeof this.signal[name] === "number")
          .map(([title, name, tone]) => ({ price: this.signal[name], title, tone, solid: true })),
      );
    this.chart.draw(levels);
    this.describe();
  }

  levels() {
    const { resistance = [], support = [] } = this.analysis?.key_levels ?? {};
    const named = (prices, letter) => prices.slice(0, LEVELS).map((price, place) => ({ price, title: `${letter}${place + 1}` }));
    return [...named(resistance, "R"), ...named(support, "S")];
  }

  paint() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const colours = Object.fromEntries(["ink", "soft", "line", "up", "down", ...PHASES].map((each) => [each, colour(each)]));
    this.chart?.paint({ ...colours, font: getComputedStyle(document.body).fontFamily });
  }

  // The chart in words, and as a table.
  describe() {
    const { symbol, timeframe, decimals } = this.line;
    const last = this.bars.at(-1);
    const [high, low] = [Math.max(...this.bars.map((each) => each.high)), Math.min(...this.bars.map((each) => each.low))];
    const price = (value) => writePrice(value, decimals);
    const phase = this.analysis ? ` Phase: ${this.analysis.amd_phase}.` : "";
    at("chart").setAttribute(
      "aria-label",
      `Candles of ${symbol} ${timeframe}, ${this.bars.length} bars. Last close ${price(last.close)}, highest ${price(high)}, lowest ${price(low)}.${phase} The same stands in a table below.`,
    );
    const rows = this.bars.slice(-TOLD).reverse().map((bar) => ({ cells: [timeOf(bar.time), ...["open", "high", "low", "close"].map((name) => price(bar[name])), writeCount(bar.volume, 2)] }));
    const numbers = ["Open", "High", "Low", "Close", "Volume"].map((name) => ({ name, number: true }));
    const levels = this.levels();
    const stretches = (this.stretches ?? []).slice(-8).reverse();
    renew(
      at("chart-table"),
      tableOf(`The last ${rows.length} bars of ${symbol} ${timeframe}`, [{ name: "Bar of" }, ...numbers], rows),
      levels.length ? tableOf("Key levels", [{ name: "Level" }, { name: "Price", number: true }], levels.map((each) => ({ cells: [each.title.replace("R", "Resistance ").replace("S", "Support "), price(each.price)] }))) : null,
      stretches.length ? tableOf("The last phases", [{ name: "Phase" }, { name: "From" }, { name: "Bars", number: true }], stretches.map((each) => ({ cells: [capital(each.phase), timeOf(each.first), writeCount(each.bars)] }))) : null,
    );
  }
}
