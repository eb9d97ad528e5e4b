// Candles with what is said of them: phases behind, signals at, levels across. For any page: it takes an element and
// colours, asks for nothing, and is told bars as they come.
import {
  CandlestickSeries,
  CrosshairMode,
  HistogramSeries,
  LineStyle,
  createChart,
  createSeriesMarkers,
} from "./lightweight-charts.js";

const FAINT = 0.13;
const NAMED_PX = 78; // a band that is as wide carries the whole name of its phase
const LETTER_PX = 16;
const DAY_S = 86_400;
const DRAWN = 5_000; // bars of a long history that are drawn at first; earlier ones as somebody comes near them
const NEAR = 300; // bars from the first drawn one
const MORE = 4; // times as many, then

// A moment is a text, or seconds since 1970 already: a long history comes as numbers.
const seconds = (moment) => (typeof moment === "number" ? moment : Math.floor(new Date(moment).getTime() / 1000));
const pointOf = (bar) =>
  typeof bar.time === "number" ? bar : { time: seconds(bar.time), open: bar.open, high: bar.high, low: bar.low, close: bar.close };

function faded(colour, share) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return `rgba(${red}, ${green}, ${blue}, ${share})`;
}

// Phases as bands behind the candles. What a colour means is written on each band that has room for it.
class PhaseBands {
  constructor() {
    this.bands = [];
    this.colours = {};
    const draw = (target) => target.useMediaCoordinateSpace((scope) => this.draw(scope));
    this.views = [{ zOrder: () => "bottom", renderer: () => ({ draw }) }];
  }

  attached({ chart, requestUpdate }) {
    this.scale = chart.timeScale();
    this.renew = requestUpdate;
  }

  paneViews() {
    return this.views;
  }

  show(bands, colours) {
    this.bands = bands;
    this.colours = colours;
    this.renew?.();
  }

  draw({ context, mediaSize }) {
    const half = this.scale.options().barSpacing / 2;
    context.save();
    context.font = `600 10px ${this.colours.font ?? "sans-serif"}`;
    context.textBaseline = "top";
    for (const { phase, first, last } of this.bands) {
      const colour = this.colours[phase];
      const [from, to] = [first, last].map((at) => this.scale.timeToCoordinate(at));
      if (!colour || from === null || to === null) continue;
      const [left, right] = [Math.max(0, from - half), Math.min(mediaSize.width, to + half)];
      if (right <= left) continue;
      context.fillStyle = faded(colour, FAINT);
      context.fillRect(left, 0, right - left, mediaSize.height);
      context.fillStyle = colour;
      context.fillRect(left, 0, right - left, 3);
      const name = phase[0].toUpperCase() + phase.slice(1);
      const said = right - left > NAMED_PX ? name : right - left > LETTER_PX ? name[0] : "";
      context.fillStyle = this.colours.ink;
      if (said) context.fillText(said, left + 4, 7);
    }
    context.restore();
  }
}

// Where a moment lies among bars in time order, -1 for none: a history may be of 200,000.
function placeOf(bars, moment) {
  let [low, high] = [0, (bars?.length ?? 0) - 1];
  while (low <= high) {
    const middle = (low + high) >> 1;
    const at = seconds(bars[middle].time);
    if (at === moment) return middle;
    if (at < moment) low = middle + 1;
    else high = middle - 1;
  }
  return -1;
}

// What stands under a chart and at its cross: in the zone of whoever looks, but for days, which are days in UTC.
function clockOf(language, zone, daily) {
  const timeZone = daily ? "UTC" : zone;
  const form = (options) => new Intl.DateTimeFormat(language, { timeZone, hourCycle: "h23", ...options });
  const [year, month, day, hour] = [
    { year: "numeric" },
    { month: "short", year: "numeric" },
    { day: "numeric", month: "short" },
    { hour: "2-digit", minute: "2-digit" },
  ].map(form);
  const whole = form({ dateStyle: "medium", ...(daily ? {} : { timeStyle: "short" }) });
  const tick = (at, kind) => {
    const moment = at * 1000;
    const told = hour.format(moment);
    if (kind >= 3) return told;
    const named = [year, month, day][kind].format(moment);
    // A day that begins at midnight UTC does not at yours: it is told with its hour.
    return daily || told === "00:00" ? named : `${day.format(moment)} ${told}`;
  };
  return { tick, whole: (at) => whole.format(at * 1000) };
}

export class CandleChart {
  // host: an element with a height. language, zone: of whoever looks. pointed: told the bar that somebody points at.
  constructor(host, { language = "en", zone, pointed = () => {} } = {}) {
    this.language = language;
    this.zone = zone;
    this.lines = [];
    this.chart = createChart(host, {
      autoSize: true,
      layout: { attributionLogo: false, background: { color: "transparent" }, fontSize: 11 }, // its logo brings a style of its own, which a strict policy refuses: the page links instead
      crosshair: { mode: CrosshairMode.Normal },
      rightPriceScale: { borderVisible: false, entireTextOnly: true, scaleMargins: { top: 0.1, bottom: 0.22 } },
      timeScale: { borderVisible: false, timeVisible: true, secondsVisible: false, rightOffset: 8, minBarSpacing: 1 },
      handleScroll: { vertTouchDrag: false },
    });
    this.candles = this.chart.addSeries(CandlestickSeries, {
      borderVisible: false,
      autoscaleInfoProvider: (original) => this.widen(original()),
    });
    this.volumes = this.chart.addSeries(HistogramSeries, {
      priceScaleId: "volume",
      priceFormat: { type: "volume" },
      lastValueVisible: false,
      priceLineVisible: false,
    });
    this.chart.priceScale("volume").applyOptions({ scaleMargins: { top: 0.86, bottom: 0 } });
    this.bands = new PhaseBands();
    this.candles.attachPrimitive(this.bands);
    this.marks = createSeriesMarkers(this.candles, []);
    this.first = 0; // of the bars that are drawn
    this.chart.timeScale().subscribeVisibleLogicalRangeChange((range) => this.reach(range));
    this.chart.subscribeCrosshairMove(({ time }) => pointed(this.bars?.[placeOf(this.bars, time)] ?? null));
  }

  // colours: ink, soft, line, paper, up, down, and one a phase; font: a family.
  paint(colours) {
    this.colours = colours;
    const { soft, line, up, down, font } = colours;
    [this.risen, this.fallen] = [faded(up, 0.35), faded(down, 0.35)];
    this.chart.applyOptions({
      layout: { textColor: soft, fontFamily: font },
      grid: { vertLines: { color: faded(line, 0.5) }, horzLines: { color: faded(line, 0.5) } },
    });
    this.candles.applyOptions({ upColor: up, downColor: down, wickUpColor: up, wickDownColor: down });
    if (this.bars) this.volumes.setData(this.bars.slice(this.first).map((bar) => this.volumeOf(bar)));
    this.bands.show(this.bands.bands, colours);
    if (this.said) this.say(this.said);
    if (this.levels) this.draw(this.levels);
  }

  // What is drawn solid is seen: the scale makes room for it, up to as much again as the candles take.
  widen(info) {
    if (!info?.priceRange) return info;
    const { minValue, maxValue } = info.priceRange;
    const room = maxValue - minValue;
    const seen = (this.levels ?? [])
      .filter(({ price, solid }) => solid && price > minValue - room && price < maxValue + room)
      .map(({ price }) => price);
    return { ...info, priceRange: { minValue: Math.min(minValue, ...seen), maxValue: Math.max(maxValue, ...seen) } };
  }

  volumeOf(bar) {
    return { time: seconds(bar.time), value: bar.volume, color: bar.close >= bar.open ? this.risen : this.fallen };
  }

  // All bars of a series, oldest first; decimals of its prices; step_s: length of a bar.
  show(bars, { decimals = 5, step_s = 3600, keep = false } = {}) {
    const clock = clockOf(this.language, this.zone, step_s >= DAY_S);
    const drawn = this.bars?.length ? this.bars.length - this.first : DRAWN;
    this.bars = [...bars];
    this.first = Math.max(0, this.bars.length - (keep ? Math.max(drawn, DRAWN) : DRAWN));
    this.chart.applyOptions({
      localization: { locale: this.language, timeFormatter: clock.whole },
      timeScale: {
        tickMarkFormatter: clock.tick,
        timeVisible: step_s < DAY_S,
        minBarSpacing: Math.min(1, 300 / Math.max(1, this.bars.length)), // all of them fit
      },
    });
    this.candles.applyOptions({ priceFormat: { type: "price", precision: decimals, minMove: 10 ** -decimals } });
    this.fill();
    if (keep) return;
    const count = this.bars.length - this.first;
    const shown = Math.min(count, Math.max(40, Math.floor(this.chart.timeScale().width() / 7)));
    this.chart.timeScale().setVisibleLogicalRange({ from: count - shown, to: count + 7 });
  }

  fill() {
    const drawn = this.bars.slice(this.first);
    this.candles.setData(drawn.map(pointOf));
    this.volumes.setData(drawn.map((bar) => this.volumeOf(bar)));
  }

  // Draw earlier bars, too, without moving what is seen.
  drawFrom(first) {
    const { from, to } = this.chart.timeScale().getVisibleLogicalRange();
    const more = this.first - first;
    this.first = first;
    this.fill();
    this.chart.timeScale().setVisibleLogicalRange({ from: from + more, to: to + more });
    if (this.told) this.phases(this.told);
    if (this.said) this.say(this.said);
  }

  reach(range) {
    if (!range || !this.first || this.reaching || range.from > NEAR) return;
    this.reaching = true;
    requestAnimationFrame(() => {
      const { from, to } = this.chart.timeScale().getVisibleLogicalRange() ?? { from: Infinity, to: 0 };
      const wanted = Math.max(MORE * (this.bars.length - this.first), to - from + DRAWN);
      if (from <= NEAR && !this.gone) this.drawFrom(Math.max(0, this.bars.length - wanted));
      this.reaching = false; // what was said while it was filled told of the range before
    });
  }

  // What a wheel and a finger do, for whoever has neither: shares of what is seen.
  move(share) {
    const { from, to } = this.chart.timeScale().getVisibleLogicalRange();
    const step = share * (to - from);
    this.chart.timeScale().setVisibleLogicalRange({ from: from + step, to: to + step });
  }

  zoom(factor) {
    const { from, to } = this.chart.timeScale().getVisibleLogicalRange();
    this.chart.timeScale().setVisibleLogicalRange({ from: to - factor * (to - from), to });
  }

  newest() {
    this.chart.timeScale().scrollToRealTime();
  }

  // A bar in the middle of what is seen.
  goTo(moment) {
    const { from, to } = this.chart.timeScale().getVisibleLogicalRange();
    const [place, half] = [placeOf(this.bars, seconds(moment)), (to - from) / 2];
    if (place < 0) return;
    if (place - half < this.first + NEAR) this.drawFrom(Math.max(0, place - DRAWN));
    const at = place - this.first;
    this.chart.timeScale().setVisibleLogicalRange({ from: at - half, to: at + half });
  }

  // A bar that is new, or forms.
  tell(bar) {
    const last = this.bars?.at(-1);
    if (!last || seconds(bar.time) < seconds(last.time)) return;
    if (seconds(bar.time) === seconds(last.time)) this.bars[this.bars.length - 1] = bar;
    else this.bars.push(bar);
    this.candles.update(pointOf(bar));
    this.volumes.update(this.volumeOf(bar));
  }

  // Stretches: { phase, first, last }, by the opens of bars that are shown.
  phases(stretches) {
    this.told = stretches;
    const bands = stretches.map(({ phase, first, last }) => ({ phase, first: seconds(first), last: seconds(last) }));
    const begin = seconds(this.bars?.[this.first]?.time ?? 0);
    const seen = bands.filter(({ last }) => last >= begin).map((band) => ({ ...band, first: Math.max(band.first, begin) }));
    const kept = seen.filter(({ first, last }) => this.has(first) && this.has(last));
    this.bands.show(kept, this.colours);
  }

  has(moment) {
    const place = placeOf(this.bars, seconds(moment));
    return place >= 0 && place >= this.first;
  }

  // Marks: { time, action, text }: an arrow at a bar, a square where a trade ended, a dot where one was denied.
  say(marks) {
    this.said = marks;
    const { up, down, ink, warn } = this.colours;
    const looks = {
      LONG: { position: "belowBar", shape: "arrowUp", color: up },
      SHORT: { position: "aboveBar", shape: "arrowDown", color: down },
      EXIT: { position: "aboveBar", shape: "square", color: ink, size: 0.7 },
      DENIED: { position: "aboveBar", shape: "circle", color: warn ?? ink, size: 0.7 },
    };
    const drawn = marks
      .filter(({ time, action }) => looks[action] && this.has(time))
      .map(({ time, action, text }) => ({ time: seconds(time), text, ...looks[action] }));
    this.marks.setMarkers(drawn.sort((one, other) => one.time - other.time));
  }

  // Levels: { price, title, tone }, tone one of the colours.
  draw(levels) {
    this.levels = levels;
    this.lines.forEach((each) => this.candles.removePriceLine(each));
    this.lines = levels.map(({ price, title, tone = "soft", solid = false }) =>
      this.candles.createPriceLine({
        price,
        title,
        color: this.colours[tone],
        lineWidth: 1,
        lineStyle: solid ? LineStyle.Solid : LineStyle.Dashed,
        axisLabelVisible: true,
      }),
    );
  }

  leave() {
    this.gone = true;
    this.chart.remove();
  }
}
