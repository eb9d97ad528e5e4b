// Candles in a cell of a notebook: a model of anywidget is drawn, followed while it grows, and dressed as the page around it.
import { CandleChart } from "./candles.js";
import { element, pushButton } from "./dom.js";

const FIELDS = 6; // time, open, high, low, close, volume: columns of float64, one after the other
const LISTED = 200; // decisions in the list
const PHASES = { accumulation: "#56b4e9", manipulation: "#cc79a7", distribution: "#009e73", invalidated: "#7f7f7f" };
const LIGHT = { up: "#0f8a63", down: "#c8453d", warn: "#a87000", ...PHASES };
const DARK = { up: "#3fb68b", down: "#e0736b", warn: "#e0b252", ...PHASES };
const ACTED = { LONG: "▲ long", SHORT: "▼ short", EXIT: "■ exit", DENIED: "● denied" };

// What any colour of a style sheet is as #rrggbb, on white where it lets something through.
function hexOf(colour) {
  const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
  const context = canvas.getContext("2d");
  context.fillStyle = colour;
  context.fillRect(0, 0, 1, 1);
  return `#${[...context.getImageData(0, 0, 1, 1).data.slice(0, 3)].map((each) => each.toString(16).padStart(2, "0")).join("")}`;
}

function isDark(host) {
  for (let at = host; at; at = at.parentElement) {
    const [red, green, blue, opaque = 1] = (getComputedStyle(at).backgroundColor.match(/[\d.]+/g) ?? []).map(Number);
    if (red !== undefined && opaque > 0.5) return 0.299 * red + 0.587 * green + 0.114 * blue < 128;
  }
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

export function readBars(view) {
  if (!view?.byteLength) return [];
  const bytes = view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
  const numbers = new Float64Array(bytes);
  const count = numbers.length / FIELDS;
  const bars = new Array(count);
  for (let i = 0; i < count; i += 1) {
    bars[i] = {
      time: numbers[i], open: numbers[count + i], high: numbers[2 * count + i], low: numbers[3 * count + i],
      close: numbers[4 * count + i], volume: numbers[5 * count + i],
    };
  }
  return bars;
}

class CandleView {
  constructor(model, host) {
    this.model = model;
    this.language = navigator.language || "en";
    this.root = element("div", "oq-candles");
    this.status = element("span", "oq-candles-status");
    this.status.setAttribute("role", "status");
    this.readout = element("div", "oq-candles-readout");
    this.place = element("div", "oq-candles-chart");
    this.place.setAttribute("role", "img");
    this.list = element("details", "oq-candles-list");
    const moves = [
      ["◀", "Earlier", () => this.chart.move(-0.5)], ["▶", "Later", () => this.chart.move(0.5)],
      ["−", "More bars", () => this.chart.zoom(1.5)], ["+", "Fewer bars", () => this.chart.zoom(1 / 1.5)],
      ["Newest", "Newest bars", () => this.chart.newest()],
    ].map(([sign, label, act]) => {
      const made = pushButton("", sign, act);
      made.setAttribute("aria-label", label);
      return made;
    });
    const title = element("strong", "", this.about.title);
    this.root.append(
      element("div", "oq-candles-head", title, this.status, element("span", "oq-candles-moves", ...moves)),
      this.readout, this.place, this.list,
    );
    host.append(this.root);
    const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
    this.chart = new CandleChart(this.place, { language: this.language, zone, pointed: (bar) => this.point(bar) });
    this.paint();
    this.followModel();
    this.followTheme();
    this.begin();
  }

  // As soon as it has a width: how many bars fit is not known before.
  begin() {
    if (this.place.clientWidth) return this.whole();
    const seen = new ResizeObserver(() => {
      if (!this.place.clientWidth) return;
      seen.disconnect();
      requestAnimationFrame(() => this.root.isConnected && this.whole());
    });
    seen.observe(this.place);
  }

  get about() {
    return this.model.get("about");
  }

  get marks() {
    return this.model.get("decisions");
  }

  // All that there is, as when the page was opened.
  whole(keep = false) {
    const bars = readBars(this.model.get("history"));
    const last = bars.at(-1)?.time ?? -Infinity;
    for (const bar of readBars(this.model.get("fresh"))) {
      if (bar.time > last) bars.push(bar);
      else bars[bars.length - 1] = bar.time === last ? bar : bars[bars.length - 1];
    }
    this.chart.show(bars, { decimals: this.about.decimals, step_s: this.about.step_s, keep });
    this.chart.phases(this.model.get("bands"));
    this.decide();
    this.tell();
    this.describe();
    requestAnimationFrame(() => requestAnimationFrame(() => (this.root.dataset.bars = String(bars.length))));
  }

  // Bars that came since: those that are known already change nothing.
  grow() {
    if (!this.chart.bars) return; // it has not begun: all will be read then
    for (const bar of readBars(this.model.get("fresh"))) this.chart.tell(bar);
    this.root.dataset.bars = String(this.chart.bars.length);
    this.decide();
    this.describe();
  }

  decide() {
    if (!this.chart.bars) return;
    this.chart.say(this.marks);
    const newest = this.marks.slice(-LISTED).reverse();
    const rows = newest.map((each) => {
      const go = pushButton("", this.moment(each.time), () => this.chart.goTo(each.time));
      return element("li", "", go, ` ${[each.who, ACTED[each.action], each.why].filter(Boolean).join(" · ")}`);
    });
    const count = this.marks.length;
    const shown = count > LISTED ? `, the newest ${LISTED} of them` : "";
    this.list.hidden = !count;
    this.list.replaceChildren(element("summary", "", `Decisions: ${count}${shown}`), element("ul", "", ...rows));
    this.point();
  }

  tell() {
    const { state, text } = this.model.get("status");
    this.root.dataset.state = state;
    this.status.textContent = text;
  }

  moment(time) {
    const zone = this.about.step_s >= 86_400 ? { timeZone: "UTC" } : {};
    const clock = this.about.step_s >= 86_400 ? {} : { timeStyle: "short" };
    return new Intl.DateTimeFormat(this.language, { dateStyle: "medium", ...clock, ...zone }).format(time * 1000);
  }

  price(value) {
    return value.toLocaleString(this.language, { minimumFractionDigits: this.about.decimals, maximumFractionDigits: this.about.decimals });
  }

  // The bar under the pointer with what was decided at it; without one the last.
  point(bar = null) {
    const shown = bar ?? this.chart.bars?.at(-1);
    if (!shown) {
      this.readout.textContent = "No bars yet";
      return;
    }
    const prices = ["open", "high", "low", "close"].map((name) => `${name[0].toUpperCase()} ${this.price(shown[name])}`);
    const phase = this.model.get("bands").find(({ first, last }) => first <= shown.time && shown.time <= last)?.phase;
    const volume = `V ${shown.volume.toLocaleString(this.language, { maximumFractionDigits: 2 })}`;
    const said = this.marks.filter(({ time }) => time === shown.time).map(({ who, action, why }) => [who, ACTED[action], why].filter(Boolean).join(" "));
    this.readout.textContent = [this.moment(shown.time), ...prices, volume, phase, ...said].filter(Boolean).join("   ");
  }

  describe() {
    const last = this.chart.bars.at(-1);
    const told = last ? `Last close ${this.price(last.close)}, at ${this.moment(last.time)}.` : "No bars yet.";
    const count = this.chart.bars.length.toLocaleString(this.language);
    this.place.setAttribute("aria-label", `Candles of ${this.about.title}, ${count} bars. ${told}`);
  }

  paint() {
    const dark = isDark(this.root.parentElement);
    this.root.dataset.theme = dark ? "dark" : "light";
    const style = getComputedStyle(this.root);
    const own = Object.fromEntries(["ink", "soft", "line"].map((name) => [name, hexOf(style.getPropertyValue(`--oq-${name}`).trim())]));
    const colours = { ...(dark ? DARK : LIGHT), ...own, font: style.fontFamily };
    const look = JSON.stringify(colours);
    if (look === this.look) return; // a long history is not drawn anew for nothing
    this.look = look;
    this.chart.paint(colours);
  }

  followModel() {
    const heard = {
      "change:history": () => this.chart.bars && this.whole(true), "change:fresh": () => this.grow(), "change:status": () => this.tell(),
      "change:decisions": () => this.decide(), "change:bands": () => this.chart.bars && this.chart.phases(this.model.get("bands")),
    };
    for (const [name, act] of Object.entries(heard)) this.model.on(name, act);
    this.leave = () => Object.entries(heard).forEach(([name, act]) => this.model.off(name, act));
  }

  followTheme() {
    const again = () => [0, 300].forEach((wait_ms) => setTimeout(() => this.root.isConnected && this.paint(), wait_ms));
    const seen = new MutationObserver(again);
    seen.observe(document.body, { attributes: true });
    const system = matchMedia("(prefers-color-scheme: dark)");
    system.addEventListener("change", again);
    const leave = this.leave;
    this.leave = () => {
      leave();
      seen.disconnect();
      system.removeEventListener("change", again);
      this.chart.leave();
    };
    requestAnimationFrame(again); // whoever draws a cell puts it into the page afterwards
  }
}

function render({ model, el }) {
  const view = new CandleView(model, el);
  return () => view.leave();
}

export default { render };
