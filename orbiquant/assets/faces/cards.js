// What a tool was asked and what it said: one quiet line that opens, and a face for the results that people look at most.
import {
  copyButton,
  decimalsOf,
  element,
  factList,
  textTable,
  writeAge,
  writeNumber,
  writePrice,
  writeSize,
  writeTime,
} from "./dom.js";

const MOST_SHOWN = 6_000; // characters of JSON
const MOST_ROWS = 12;
const CURRENCIES = /^(EUR|USD|GBP|JPY|CHF|AUD|CAD|NZD|SEK|NOK|DKK|MXN|ZAR|SGD|HKD|TRY|PLN|CZK|HUF|CNH){2}$/;

function asJson(value) {
  try {
    return typeof value === "string" ? value : (JSON.stringify(value, null, 2) ?? "");
  } catch {
    return String(value);
  }
}

function jsonBlock(label, value, say) {
  const text = asJson(value);
  const rest = text.length - MOST_SHOWN;
  const held = element(
    "pre",
    "oq-json",
    text.slice(0, MOST_SHOWN),
    rest > 0 ? `\n${say("cut", { count: writeNumber(rest, say.language) })}` : "",
  );
  held.tabIndex = 0;
  return element(
    "div",
    "oq-code",
    element(
      "div",
      "oq-code-head",
      element("span", "", label),
      copyButton(say, `${say("copy")}: ${label}`, () => text),
    ),
    held,
  );
}

function distance(symbol, entry, level, say) {
  if (typeof entry !== "number" || typeof level !== "number" || !entry) return "";
  const away = Math.abs(level - entry);
  const percent = `${writeNumber((100 * away) / entry, say.language, 2, 2)} %`;
  if (!CURRENCIES.test(symbol)) return percent;
  return `${writeNumber(away / (symbol.endsWith("JPY") ? 0.01 : 0.0001), say.language, 1, 1)} ${say("pips")} · ${percent}`;
}

function level(symbol, entry, value, decimals, say) {
  if (typeof value !== "number") return null;
  return element(
    "span",
    "",
    writePrice(value, say.language, decimals),
    element("small", "", distance(symbol, entry, value, say)),
  );
}

const SIDES = { LONG: "oq-good", BUY: "oq-good", SHORT: "oq-bad", SELL: "oq-bad", HOLD: "oq-calm" };

// What an action is called, and its tone; one that is none of ours stands as it was written.
export function sideMark(action, say) {
  const known = Object.hasOwn(SIDES, action);
  return element(
    "strong",
    `oq-side ${known ? SIDES[action] : "oq-calm"}`,
    known ? say(action) : String(action ?? "").slice(0, 60),
  );
}

function signalFace(said, say) {
  const symbol = String(said.symbol ?? "");
  const decimals = decimalsOf(said.entry_price, said.stop_loss, said.take_profit);
  const percent = (share) => (typeof share === "number" ? `${writeNumber(100 * share, say.language, 0, 0)} %` : null);
  const action = String(said.action ?? "");
  const head = element(
    "div",
    "oq-card-head",
    sideMark(action, say),
    element("span", "oq-symbol", symbol),
    element("span", "oq-muted", String(said.timeframe ?? "")),
  );
  if (said.stale) head.append(element("span", "oq-badge oq-warn", say("stale")));
  const share = typeof said.confidence === "number" ? Math.max(0, Math.min(1, said.confidence)) : 0;
  const bar = element("span", "oq-bar", element("span", ""));
  bar.firstChild.style.inlineSize = `${100 * share}%`;
  const facts = factList([
    [say("confidence"), element("span", "", percent(said.confidence) ?? "–", bar)],
    [say("phase"), said.amd_phase],
    [say("killzone"), said.killzone ?? say("none")],
    [say("horizon"), said.horizon],
    [say("hits"), percent(said.historicalAccuracy ?? said.historical_accuracy)],
    [say("age"), typeof said.age_s === "number" ? writeAge(said.age_s, say) : null],
  ]);
  const levels = factList(
    [
      [say("entry"), writePrice(said.entry_price, say.language, decimals)],
      [say("stopLoss"), level(symbol, said.entry_price, said.stop_loss, decimals, say)],
      [say("target"), level(symbol, said.entry_price, said.take_profit, decimals, say)],
      [say("rr"), typeof said.risk_reward === "number" ? writeNumber(said.risk_reward, say.language, 2, 2) : null],
    ],
    "oq-facts oq-levels",
  );
  const card = element("section", "oq-card oq-signal", head, levels, facts);
  const why = Array.isArray(said.reasoning) ? said.reasoning.slice(0, 8) : [];
  if (why.length)
    card.append(
      element(
        "div",
        "oq-why",
        element("h4", "", say("reasons")),
        element("ul", "", ...why.map((each) => element("li", "", String(each)))),
      ),
    );
  card.setAttribute("aria-label", `${say("signal")} ${symbol}: ${head.firstChild.textContent}`);
  return card;
}

function noticeLine(said) {
  const told = Array.isArray(said.notices) ? said.notices.map(String) : [];
  return told.length ? element("p", "oq-note", told.slice(0, 4).join(" · ").slice(0, 600)) : null;
}

function priceFace(said, say) {
  const decimals = decimalsOf(said.price, said.high24h, said.low24h);
  const written = (value) => (typeof value === "number" ? writePrice(value, say.language, decimals) : null);
  const moved =
    typeof said.changePercent === "number"
      ? `${said.changePercent > 0 ? "+" : ""}${writeNumber(said.changePercent, say.language, 2, 2)} %`
      : null;
  const head = element(
    "div",
    "oq-card-head",
    element("span", "oq-symbol", String(said.symbol)),
    element("strong", "oq-price", written(said.price)),
  );
  if (moved)
    head.append(
      element("span", said.changePercent > 0 ? "oq-good" : said.changePercent < 0 ? "oq-bad" : "oq-muted", moved),
    );
  if (said.stale) head.append(element("span", "oq-badge oq-warn", say("stale")));
  const facts = factList([
    [say("high"), written(said.high24h)],
    [say("low"), written(said.low24h)],
    [say("time"), writeTime(said.timestamp)],
  ]);
  return element("section", "oq-card", head, facts, noticeLine(said));
}

function indicatorFace(said, say) {
  const rows = Object.entries(said).filter(([, each]) => each && typeof each === "object" && !Array.isArray(each));
  if (!rows.length) return null;
  const written = (value) =>
    typeof value === "number" ? writeNumber(value, say.language, 0, 5) : value === null ? "–" : String(value);
  const told = rows.slice(0, 20).map(([name, each]) => {
    const { interpretation, value, ...more } = each;
    const others = Object.entries(more)
      .filter(([, held]) => typeof held !== "object")
      .map(([key, held]) => `${key} ${written(held)}`);
    return [
      name,
      value === undefined ? "–" : written(value),
      [interpretation, ...others].filter(Boolean).join(" · ") || "–",
    ];
  });
  const head = element(
    "div",
    "oq-card-head",
    element("span", "oq-symbol", String(said.symbol ?? "")),
    element("span", "oq-muted", `${said.timeframe ?? ""} · ${writeTime(said.time)}`),
  );
  return element(
    "section",
    "oq-card",
    head,
    textTable([say("indicator"), say("value"), say("reading")], told, say("table")),
    noticeLine(said),
  );
}

function barsFace(said, say) {
  const bars = said.data.filter((each) => each && typeof each === "object").slice(-MOST_ROWS);
  const decimals = decimalsOf(...bars.flatMap((each) => [each.open, each.high, each.low, each.close]));
  const rows = bars.map((each) => [
    writeTime(each.time).replace(" UTC", ""),
    ...["open", "high", "low", "close"].map((name) => writePrice(each[name], say.language, decimals)),
  ]);
  const head = element(
    "div",
    "oq-card-head",
    element("span", "oq-symbol", String(said.symbol)),
    element(
      "span",
      "oq-muted",
      `${said.timeframe} · ${say("lastRows", { count: bars.length, all: said.data.length })}`,
    ),
  );
  return element(
    "section",
    "oq-card",
    head,
    textTable([`${say("when")} (UTC)`, say("open"), say("highBar"), say("lowBar"), say("close")], rows, say("table")),
    noticeLine(said),
  );
}

function positionsFace(said, say) {
  if (!said.positions.length) return element("p", "oq-note", say("nothing"));
  const rows = said.positions
    .slice(0, 30)
    .map((each) => [
      String(each.symbol),
      String(each.type ?? ""),
      writeSize(each.size, say.language),
      writePrice(each.open_price, say.language),
      writePrice(each.current_price, say.language),
      writeNumber(each.profit, say.language, 2, 2),
    ]);
  return element(
    "section",
    "oq-card",
    textTable(
      [say("symbol"), say("side"), `${say("size")} (${say("units")})`, say("entry"), say("price"), say("profit")],
      rows,
      say("table"),
    ),
  );
}

function errorFace(said, say) {
  const code = String(said.error).slice(0, 60);
  const line = element(
    "p",
    "oq-error-line",
    element("span", "oq-badge oq-bad", code === "PLAN_REQUIRED" ? say("needsPlan") : code),
    " ",
    String(said.message ?? "").slice(0, 1_000),
  );
  return line;
}

// What a result looks like without opening it, null where it has no face of its own.
export function resultFace(tool, said, say) {
  if (!said || typeof said !== "object") return null;
  if (typeof said.error === "string") return errorFace(said, say);
  if (typeof said.action === "string" && typeof said.confidence === "number" && "entry_price" in said)
    return signalFace(said, say);
  if (tool === "get_price" && typeof said.price === "number") return priceFace(said, say);
  if (tool === "get_indicators") return indicatorFace(said, say);
  if (tool === "get_ohlcv" && Array.isArray(said.data)) return barsFace(said, say);
  if (tool === "get_positions" && Array.isArray(said.positions)) return positionsFace(said, say);
  return null;
}

const REFUSED = ["PLAN_REQUIRED", "FORBIDDEN", "NOT_ASKED", "ONE_AT_A_TIME"];

// A call of a tool: told of its arguments and result as they come.
export class ToolCard {
  constructor(name, say) {
    this.say = say;
    this.name = String(name ?? say("unknownTool")).slice(0, 100);
    this.written = "";
    this.state = element("span", "oq-state");
    this.about = element("span", "oq-muted oq-about");
    this.inside = element("div", "oq-inside");
    this.details = element(
      "details",
      "oq-tool",
      element("summary", "", element("span", "oq-tool-name", this.name), this.about, this.state),
      this.inside,
    );
    this.details.addEventListener("toggle", () => this.draw());
    this.card = element("div", "oq-call", this.details);
    this.mark("running");
  }

  mark(state, text = this.say(state)) {
    this.card.dataset.state = state;
    this.state.textContent = text;
  }

  // Nobody may ever look: what is inside is made when it is opened.
  draw() {
    if (!this.details.open) return;
    const parts = [];
    if (this.input !== undefined) parts.push(jsonBlock(this.say("arguments"), this.input, this.say));
    if (this.output !== undefined) parts.push(jsonBlock(this.say("result"), this.output, this.say));
    this.inside.replaceChildren(...parts);
  }

  asked(input) {
    this.input = input;
    const told =
      input && typeof input === "object"
        ? Object.values(input).filter((each) => ["string", "number"].includes(typeof each))
        : [];
    this.about.textContent = told.join(" · ").slice(0, 80);
    this.draw();
  }

  said(output) {
    this.output = output;
    const error = output && typeof output === "object" && typeof output.error === "string" ? output.error : "";
    const refused = REFUSED.includes(error) || output?.success === false;
    this.mark(refused ? "refused" : error ? "toolFailed" : "done");
    this.draw();
    this.show(resultFace(this.name, output, this.say));
  }

  failed(text) {
    this.mark("toolFailed");
    this.show(element("p", "oq-error-line", String(text ?? "").slice(0, 1_000)));
  }

  show(face) {
    this.face?.remove();
    this.face = face;
    if (face) this.card.append(face);
  }
}
