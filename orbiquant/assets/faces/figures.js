// What a figure of plotly says, as plain numbers: its lines, bars and candles, and what is not drawn here.
const MOST_CHART_POINTS = 20_000; // of one trace
const MOST_TRACES = 24;
const BINS = 40;
const HOUSE_COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F7F7F"];
const TYPED = {
  f8: Float64Array,
  f4: Float32Array,
  i4: Int32Array,
  i2: Int16Array,
  i1: Int8Array,
  u4: Uint32Array,
  u2: Uint16Array,
  u1: Uint8Array,
};

// A column of plotly's JSON: a list, or numbers in base 64.
function readColumn(column) {
  if (Array.isArray(column)) return column.slice(0, MOST_CHART_POINTS);
  const Kind = Object.hasOwn(TYPED, column?.dtype ?? "") ? TYPED[column.dtype] : null;
  if (!Kind || typeof column.bdata !== "string") return [];
  try {
    const bytes = Uint8Array.from(atob(column.bdata), (each) => each.charCodeAt(0));
    return Array.from(new Kind(bytes.buffer, 0, Math.floor(bytes.length / Kind.BYTES_PER_ELEMENT))).slice(
      0,
      MOST_CHART_POINTS,
    );
  } catch {
    return [];
  }
}

const asNumber = (value) => {
  if (value === null || value === undefined || value === "" || typeof value === "boolean") return null;
  const read = Number(value);
  return Number.isFinite(read) ? read : null;
};

// Text of plotly may hold tags and entities of its own: they are taken out, and what is left is text.
export function plainText(title) {
  const text = typeof title === "string" ? title : (title?.text ?? "");
  const bare = String(text)
    .slice(0, 2_000)
    .replace(/<br\s*\/?>/gi, " ")
    .replace(/<\/?(?:b|i|em|strong|span|sub|sup|a)\b[^<>]*>/gi, "");
  const named = { amp: "&", lt: "<", gt: ">", quot: '"', nbsp: " " };
  return bare
    .replace(/&(amp|lt|gt|quot|nbsp);/g, (_, name) => named[name])
    .replace(/\s+/g, " ")
    .trim()
    .slice(0, 300);
}

const LOOKS_DATED = /^\d{4}-\d\d(-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?)?(Z|[+-]\d\d:?\d\d)?)?$/;

function readDate(text) {
  const zoned = /Z$|[T ].*[+-]\d\d:?\d\d$/.test(text);
  const at = Date.parse(zoned ? text : `${text.replace(" ", "T")}${/[T ]/.test(text) ? "Z" : ""}`);
  return Number.isNaN(at) ? null : at / 1000;
}

function binned(values) {
  const known = values.map(asNumber).filter((each) => each !== null);
  if (!known.length) return { x: [], y: [] };
  let [least, most] = [Infinity, -Infinity];
  for (const each of known) [least, most] = [Math.min(least, each), Math.max(most, each)];
  const count = least === most ? 1 : Math.min(BINS, Math.ceil(Math.sqrt(known.length)) + 1);
  const width = (most - least) / count || 1;
  const y = Array(count).fill(0);
  for (const each of known) y[Math.min(count - 1, Math.floor((each - least) / width))] += 1;
  return { x: y.map((_, place) => least + width * (place + 0.5)), y };
}

function readTrace(trace, place) {
  const kind = trace?.type ?? "scatter";
  const colour = [trace?.line?.color, trace?.marker?.color].find(
    (each) => typeof each === "string" && /^#[0-9a-f]{3,8}$|^rgba?\([\d., ]+\)$/i.test(each),
  );
  const read = {
    kind,
    name: plainText(trace?.name ?? ""),
    colour: colour ?? HOUSE_COLOURS[place % HOUSE_COLOURS.length],
    right: trace?.yaxis === "y2",
  };
  if (kind === "candlestick" || kind === "ohlc") {
    const [open, high, low, close] = ["open", "high", "low", "close"].map((each) =>
      readColumn(trace[each]).map(asNumber),
    );
    const count = Math.min(open.length, high.length, low.length, close.length);
    const at = readColumn(trace.x);
    return {
      ...read,
      x: at.length ? at.slice(0, count) : [...Array(count).keys()],
      y: close.slice(0, count),
      open,
      high,
      low,
    };
  }
  if (kind === "histogram") return { ...read, kind: "bar", ...binned(readColumn(trace.x ?? trace.y)) };
  const sideways = trace.orientation === "h";
  const y = readColumn(sideways ? trace.x : trace.y).map(asNumber);
  const x = readColumn(sideways ? trace.y : trace.x);
  const mode = String(trace.mode ?? (y.length > 20 ? "lines" : "lines+markers"));
  const lines = kind === "bar" ? false : mode.includes("lines");
  return {
    ...read,
    kind: kind === "bar" ? "bar" : "scatter",
    lines,
    markers: kind !== "bar" && mode.includes("markers"),
    steps: trace.line?.shape === "hv",
    filled: trace.fill === "tozeroy",
    dashed: /dash|dot/.test(trace.line?.dash ?? ""),
    x: x.length ? x.slice(0, y.length) : [...y.keys()],
    y,
  };
}

const DRAWN = ["scatter", "scattergl", "bar", "histogram", "candlestick", "ohlc"];

function readPlaces(traces) {
  const all = traces.flatMap((each) => each.x);
  const known = all.filter((each) => each !== null && each !== undefined);
  const dated = known.length > 0 && known.every((each) => typeof each === "string" && LOOKS_DATED.test(each));
  const numeric = !dated && known.every((each) => asNumber(each) !== null);
  const names = dated || numeric ? null : [...new Set(known.map(String))].slice(0, MOST_CHART_POINTS);
  const index = names && new Map(names.map((each, place) => [each, place]));
  for (const trace of traces)
    trace.x = trace.x.map((each) =>
      dated ? (each === null ? null : readDate(each)) : numeric ? asNumber(each) : (index.get(String(each)) ?? null),
    );
  return { dated, names };
}

// Times in order and each once, as a chart needs them.
function inOrder(trace) {
  const places = [...trace.x.keys()]
    .filter((place) => trace.x[place] !== null)
    .sort((one, other) => trace.x[one] - trace.x[other]);
  const kept = places.filter((place, order) =>
    trace.kind === "scatter" && !trace.lines
      ? true
      : order === places.length - 1 || trace.x[places[order + 1]] !== trace.x[place],
  );
  for (const column of ["x", "y", "open", "high", "low"])
    if (trace[column]) trace[column] = kept.map((place) => trace[column][place]);
  return trace;
}

// A logarithmic axis shows what is above zero, and no bars, which begin at it.
function onLogarithm(layout, traces) {
  const left = traces.filter((each) => !each.right);
  const fits =
    layout.yaxis?.type === "log" &&
    left.every((each) => each.kind !== "bar") &&
    left.some((each) => each.y.some((value) => value > 0));
  if (!fits) return false;
  for (const trace of left) {
    for (const column of ["y", "open", "high", "low"])
      trace[column] = trace[column]?.map((value) => (value > 0 ? value : null));
  }
  return true;
}

export function readFigure(figure) {
  const given = Array.isArray(figure?.data) ? figure.data.filter((each) => each && typeof each === "object") : [];
  const layout = figure?.layout && typeof figure.layout === "object" ? figure.layout : {};
  const known = given.filter(
    (each) => DRAWN.includes(each.type ?? "scatter") && each.visible !== false && each.visible !== "legendonly",
  );
  const fitting = known
    .filter((each) => [undefined, "y", "y2"].includes(each.yaxis) && [undefined, "x"].includes(each.xaxis))
    .slice(0, MOST_TRACES);
  const left = given
    .filter((each) => !fitting.includes(each))
    .map((each) => String(each.type ?? "scatter").slice(0, 30));
  const counted = [...new Set(left)].map((each) => `${each} (${left.filter((other) => other === each).length})`);
  const long = fitting.some((each) => (each.x ?? each.y)?.length > MOST_CHART_POINTS);
  const traces = fitting.map(readTrace);
  const { dated, names } = readPlaces(traces);
  return {
    title: plainText(layout.title),
    xTitle: plainText(layout.xaxis?.title),
    yTitle: plainText(layout.yaxis?.title),
    logarithmic: onLogarithm(layout, traces),
    dated,
    names,
    long,
    left: counted,
    limit: MOST_CHART_POINTS,
    traces: traces.map(inOrder).filter((each) => each.x.length > 0),
  };
}
