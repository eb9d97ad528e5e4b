// Charts: what a figure says, drawn with uPlot in the page's colours, and told in words to whoever does not see it.
import { element, writeNumber } from "./dom.js";
import { readFigure } from "./figures.js";

const HEIGHT = 260;

function significant(value, language) {
  return typeof value === "number" ? value.toLocaleString(language, { maximumSignificantDigits: 7 }) : "–";
}

function writePlace(read, place, language) {
  if (place === null || place === undefined) return "–";
  if (read.names) return read.names[place] ?? "–";
  if (!read.dated) return significant(place, language);
  const text = new Date(place * 1000).toISOString();
  return text.endsWith("T00:00:00.000Z") ? text.slice(0, 10) : text.slice(0, 16).replace("T", " ");
}

function tellTrace(read, trace, place, say) {
  const known = trace.y.filter((each) => each !== null);
  let [least, most] = [Infinity, -Infinity];
  for (const each of known) [least, most] = [Math.min(least, each), Math.max(most, each)];
  const written = (value) => significant(value, say.language);
  const name = trace.name || (read.traces.length > 1 ? `${say("chart")} ${place + 1}` : read.yTitle || trace.kind);
  return say("summary", {
    name,
    count: known.length.toLocaleString(say.language),
    first: written(known[0]),
    last: written(known.at(-1)),
    least: written(least),
    most: written(most),
  });
}

function colourOf(host, name) {
  return getComputedStyle(host).getPropertyValue(name).trim() || "#777";
}

const colourless = "#7F7F7F"; // what a candle means is told by its own two colours
const faint = (colour, share) => (/^#[0-9a-f]{6}$/i.test(colour) ? colour + share : colour);

// Candles are painted over the empty line of their closes.
function paintCandles(trace, series, up, down) {
  return (plot) => {
    const { ctx } = plot;
    const places = plot.data[0];
    const scale = plot.series[series].scale;
    const step =
      places.length > 1 ? Math.abs(plot.valToPos(places[1], "x", true) - plot.valToPos(places[0], "x", true)) : 12;
    const width = Math.max(1, Math.min(14 * devicePixelRatio, step * 0.7));
    const found = new Map(trace.x.map((each, place) => [each, place]));
    ctx.save();
    ctx.beginPath();
    ctx.rect(plot.bbox.left, plot.bbox.top, plot.bbox.width, plot.bbox.height);
    ctx.clip();
    for (const at of places) {
      const place = found.get(at);
      if (place === undefined || trace.y[place] === null || trace.open[place] === null) continue;
      const [open, high, low, close] = [trace.open, trace.high, trace.low, trace.y].map((each) =>
        plot.valToPos(each[place], scale, true),
      );
      const middle = Math.round(plot.valToPos(at, "x", true));
      ctx.fillStyle = trace.y[place] >= trace.open[place] ? up : down;
      ctx.fillRect(middle - devicePixelRatio / 2, high, devicePixelRatio, Math.max(1, low - high));
      ctx.fillRect(
        middle - width / 2,
        Math.min(open, close),
        width,
        Math.max(devicePixelRatio, Math.abs(open - close)),
      );
    }
    ctx.restore();
  };
}

function seriesOf(trace, place, say, read) {
  const name = trace.name || (read.traces.length > 1 ? String(place + 1) : read.yTitle || say("value"));
  const shared = {
    label: name,
    scale: trace.right ? "y2" : "y",
    value: (_, value) => significant(value, say.language),
    spanGaps: read.traces.length > 1,
  };
  if (trace.open) {
    const alone = read.traces.length === 1;
    const all = (place) =>
      [trace.open, trace.high, trace.low, trace.y].map((each) => significant(each[place], say.language)).join(" / ");
    const label = alone
      ? ["open", "highBar", "lowBar", "close"].map((each) => say(each)).join(" / ")
      : `${name} (${say("close")})`;
    const value = alone ? (_, __, ___, place) => (typeof place === "number" ? all(place) : "–") : shared.value;
    return { ...shared, label, value, stroke: colourless, paths: () => null, points: { show: false } };
  }
  if (trace.kind === "bar")
    return {
      ...shared,
      stroke: trace.colour,
      fill: faint(trace.colour, "b8"),
      width: 0,
      paths: uPlot.paths.bars({ size: [0.8, 60] }),
      points: { show: false },
    };
  const fill = trace.filled ? faint(trace.colour, "2e") : undefined;
  const paths = !trace.lines ? () => null : trace.steps ? uPlot.paths.stepped({ align: 1 }) : uPlot.paths.linear();
  return {
    ...shared,
    stroke: trace.colour,
    fill,
    width: 1.75,
    dash: trace.dashed ? [5, 4] : undefined,
    paths,
    points: { show: trace.markers, size: 5, fill: trace.colour },
  };
}

// Days or hours under an axis, in UTC; the day is told once.
function writeTicks(splits, step, language) {
  const day = 86_400;
  const form = (options) => new Intl.DateTimeFormat(language, { timeZone: "UTC", hourCycle: "h23", ...options });
  const [years, months, days, hours] = [
    { year: "numeric" },
    { month: "short", year: "numeric" },
    { day: "numeric", month: "short" },
    { hour: "2-digit", minute: "2-digit" },
  ].map(form);
  let before = "";
  return splits.map((at) => {
    const moment = at * 1000;
    if (step >= 360 * day) return years.format(moment);
    if (step >= 28 * day) return months.format(moment);
    const dated = days.format(moment);
    const told = step >= day ? dated : hours.format(moment);
    const second = step >= day ? years.format(moment) : dated;
    const changed = second !== before;
    before = second;
    return changed ? `${told}\n${second}` : told;
  });
}

function axesOf(read, host, say) {
  const ink = colourOf(host, "--oq-soft");
  const rule = { stroke: colourOf(host, "--oq-line"), width: 1 };
  const font = `11px ${getComputedStyle(host).fontFamily}`;
  const shared = { stroke: ink, grid: rule, ticks: { ...rule, size: 4 }, font, labelFont: font, labelSize: 18 };
  const values = (_, splits) => splits.map((each) => (each === null ? "" : significant(each, say.language)));
  const size = (plot, written) => {
    const longest = (written ?? []).reduce((most, each) => Math.max(most, String(each).length), 0);
    return Math.min(110, 16 + longest * 6.6);
  };
  const across = { ...shared, label: read.xTitle || undefined };
  if (read.names) {
    across.splits = (plot) => {
      const every = Math.max(1, Math.ceil((read.names.length * 74) / Math.max(1, plot.width)));
      return read.names.map((_, place) => place).filter((place) => place % every === 0);
    };
    across.values = (_, splits) => splits.map((place) => (read.names[place] ?? "").slice(0, 12));
  } else across.values = read.dated ? (_, splits, __, ___, step) => writeTicks(splits, step, say.language) : values;
  const axes = [across, { ...shared, label: read.yTitle || undefined, values, size }];
  if (read.traces.some((each) => each.right))
    axes.push({ ...shared, scale: "y2", side: 1, grid: { show: false }, values, size });
  return axes;
}

function padded(read) {
  const wide = read.names || read.traces.some((each) => each.kind === "bar" || each.open);
  return (_, least, most) => {
    if (least === null || most === null) return [0, 1];
    const gap = read.names
      ? 0.6
      : wide && read.traces[0].x.length > 1
        ? (most - least) / (read.traces[0].x.length - 1) / 1.6
        : least === most
          ? 1
          : 0;
    return [least - gap, most + gap];
  };
}

function plotOptions(read, host, say, width) {
  const scales = { x: { time: read.dated, range: padded(read) }, y: read.logarithmic ? { distr: 3 } : {}, y2: {} };
  const candles = read.traces.flatMap((each, place) =>
    each.open ? [paintCandles(each, place + 1, colourOf(host, "--oq-good"), colourOf(host, "--oq-bad"))] : [],
  );
  for (const [name, right] of [
    ["y", false],
    ["y2", true],
  ]) {
    const held = read.traces.filter((each) => each.open && each.right === right);
    if (!held.length) continue;
    scales[name].range = (_, least, most) => {
      const low = Math.min(least ?? Infinity, ...held.map((each) => lowest(each.low)));
      const high = Math.max(
        most ?? -Infinity,
        ...held.map((each) => -lowest(each.high.map((value) => (value === null ? null : -value)))),
      );
      const gap = (high - low || 1) * 0.05;
      return high >= low ? [low - gap, high + gap] : [0, 1];
    };
  }
  if (read.traces.some((each) => each.kind === "bar") && !read.logarithmic && !candles.length) {
    scales.y.range = (_, least, most) => [Math.min(0, least ?? 0) * 1.05, Math.max(0, most ?? 1) * 1.05 || 1];
  }
  const series = [
    {
      label: read.xTitle || (read.dated ? say("when") : "x"),
      value: (_, place) => writePlace(read, place, say.language),
    },
  ];
  return {
    width,
    height: HEIGHT,
    scales,
    series: [...series, ...read.traces.map((each, place) => seriesOf(each, place, say, read))],
    axes: axesOf(read, host, say),
    tzDate: (at) => uPlot.tzDate(new Date(at * 1000), "Etc/UTC"),
    hooks: { draw: candles, ready: [tellLast], setCursor: [tellLast] },
    padding: [10, null, 0, null],
    cursor: { y: false, drag: { x: true, y: false }, points: { size: 7 } },
    legend: { live: true },
  };
}

// Nobody points at anything: the last values are told.
function tellLast(plot) {
  if (plot.cursor.idx === null || plot.cursor.idx === undefined)
    plot.setLegend({ idx: plot.data[0].length - 1 }, false);
}

function lowest(values) {
  let least = Infinity;
  for (const each of values) if (each !== null && each < least) least = each;
  return least;
}

function columnsOf(read) {
  // Marks of a scatter may share a place, which a joined table cannot hold: then each keeps its own order.
  if (read.traces.length === 1) return [read.traces[0].x, read.traces[0].y];
  const joined = read.traces.map((each) => {
    const kept = each.x
      .map((at, place) => [at, each.y[place]])
      .filter(([at], place) => place === 0 || at !== each.x[place - 1]);
    return [kept.map(([at]) => at), kept.map(([, value]) => value)];
  });
  return uPlot.join(joined);
}

// A figure as a card. It is drawn when it comes into view, follows the width and the theme, and ends with `leave`.
export function chartCard(figure, say) {
  const read = readFigure(figure);
  const card = element("figure", "oq-chart");
  card.append(element("figcaption", "oq-card-title", read.title || say("chart")));
  const notes = [
    read.left.length ? say("notDrawn", { kinds: read.left.join(", ") }) : "",
    read.long ? say("cutPoints", { count: writeNumber(read.limit, say.language) }) : "",
  ];
  const held = element("div", "oq-plot");
  const told = read.traces.map((each, place) => tellTrace(read, each, place, say)).join(". ");
  held.setAttribute("role", "img");
  held.setAttribute("aria-label", `${read.title || say("chart")}. ${told || say("noPoints")}`);
  if (read.traces.length) card.append(held);
  else card.append(element("p", "oq-note", say("noPoints")));
  if (notes.some(Boolean)) card.append(element("p", "oq-note", notes.filter(Boolean).join(" ")));
  let plot = null;
  const draw = () => {
    if (!read.traces.length || !held.isConnected || held.clientWidth < 40) return;
    plot?.destroy();
    try {
      plot = new uPlot(plotOptions(read, held, say, held.clientWidth), columnsOf(read), held);
    } catch {
      held.replaceChildren(element("p", "oq-note", say("undrawn")));
      seen.disconnect();
    }
  };
  const seen = new IntersectionObserver(
    (entries) => {
      if (entries.some((each) => each.isIntersecting) && !plot) draw();
    },
    { rootMargin: "400px" },
  );
  const sized = new ResizeObserver(
    () => plot && held.clientWidth > 40 && plot.setSize({ width: held.clientWidth, height: HEIGHT }),
  );
  seen.observe(held);
  sized.observe(held);
  return {
    card,
    redraw: () => plot && draw(),
    leave() {
      seen.disconnect();
      sized.disconnect();
      plot?.destroy();
      plot = null;
    },
  };
}
