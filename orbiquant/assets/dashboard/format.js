// How numbers and times are written: in the language and the zone of whoever looks, with UTC beside them.
import { decimalsOf, element, writeNumber } from "./dom.js";

export const LANGUAGE = navigator.language || "en";
export const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;

const DAY_MS = 86_400_000;
const form = (options) => new Intl.DateTimeFormat(LANGUAGE, { hourCycle: "h23", ...options });
const HOUR = form({ hour: "2-digit", minute: "2-digit" });
const DAY = form({ day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const YEAR = form({ day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" });

export function writeMoment(moment) {
  const at = new Date(moment);
  if (Number.isNaN(at.getTime())) return "–";
  const now = new Date();
  if (at.toDateString() === now.toDateString()) return HOUR.format(at);
  return (Math.abs(now - at) < 300 * DAY_MS ? DAY : YEAR).format(at);
}

// A moment in the zone of whoever looks; UTC is in its title.
export function timeOf(moment) {
  const at = new Date(moment);
  const told = element("time", "", writeMoment(moment));
  if (Number.isNaN(at.getTime())) return told;
  told.dateTime = at.toISOString();
  told.title = `${at.toISOString().slice(0, 19).replace("T", " ")} UTC`;
  return told;
}

export function writeSpan(seconds) {
  const sizes = [
    [172_800, 86_400, "days"],
    [7_200, 3_600, "hours"],
    [120, 60, "minutes"],
    [0, 1, "seconds"],
  ];
  const [, size, unit] = sizes.find(([least]) => seconds >= least) ?? sizes.at(-1);
  return `${Math.round(seconds / size).toLocaleString(LANGUAGE)} ${unit}`;
}

export function writePrice(value, decimals = decimalsOf(value)) {
  return writeNumber(value, LANGUAGE, decimals, decimals);
}

export function writeMoney(value, currency = "") {
  return `${writeNumber(value, LANGUAGE, 2, 2)} ${currency}`.trim();
}

export function writeShare(value, most = 1) {
  return typeof value === "number" ? `${writeNumber(100 * value, LANGUAGE, 0, most)} %` : "–";
}

export const writeCount = (value, most = 0) => writeNumber(value, LANGUAGE, 0, most);

// What was won or lost: its sign and its word say it, its colour only repeats it.
export function profitOf(value, write = writeMoney) {
  if (typeof value !== "number") return element("span", "figure", "–");
  const sign = value > 0 ? "+" : value < 0 ? "−" : "";
  return element("span", `figure ${value > 0 ? "good" : value < 0 ? "bad" : ""}`, sign + write(Math.abs(value)));
}

export const capital = (text) => String(text ?? "").replace(/^\p{Ll}/u, (letter) => letter.toUpperCase());

export function badge(text, tone = "") {
  return element("span", `badge ${tone}`, text);
}

// A list of what is said: [name, value]; a value is text or an element.
export function facts(pairs) {
  const list = element("dl", "facts");
  for (const [name, value] of pairs)
    if (value !== null && value !== undefined && value !== "")
      list.append(element("div", "", element("dt", "", name), element("dd", "", value)));
  return list;
}

// A table: heads as { name, number? }, rows as { key, cells }; the first cell names its row.
export function tableOf(caption, heads, rows) {
  const top = element("tr");
  for (const { name, number } of heads) {
    const cell = element("th", number ? "number" : "", name);
    cell.scope = "col";
    top.append(cell);
  }
  const body = element("tbody");
  for (const { cells } of rows) {
    const row = element("tr");
    cells.forEach((inside, place) => {
      const cell = element(place ? "td" : "th", heads[place].number ? "number" : (heads[place].kind ?? ""), inside);
      if (!place) cell.scope = "row";
      row.append(cell);
    });
    body.append(row);
  }
  const table = element("table", "", element("caption", "unseen", caption), element("thead", "", top), body);
  const held = element("div", "scroll", table);
  held.tabIndex = 0;
  held.setAttribute("role", "region");
  held.setAttribute("aria-label", `${caption}, scrolls sideways`);
  return held;
}

// Put something new into a place: whoever was at a button is at the same one afterwards, and what was open stays open.
export function renew(host, ...inside) {
  const keyOf = (each) => each?.dataset?.key;
  const held = host.contains(document.activeElement) ? keyOf(document.activeElement) : undefined;
  const open = new Set([...host.querySelectorAll("details[open]")].map(keyOf));
  const scrolled = host.querySelector(".scroll")?.scrollLeft ?? 0;
  host.replaceChildren(...inside.filter((each) => each !== null && each !== undefined));
  for (const each of host.querySelectorAll("details")) if (keyOf(each) && open.has(keyOf(each))) each.open = true;
  if (scrolled) host.querySelector(".scroll")?.scrollTo({ left: scrolled });
  if (!held) return;
  const same = [...host.querySelectorAll("[data-key]")].find((each) => keyOf(each) === held && !each.disabled);
  (same ?? host.closest("[tabindex]") ?? document.getElementById("kill")).focus({ preventScroll: true }); // not lost with a button
}

export function keyed(key, made) {
  made.dataset.key = key;
  return made;
}

// What the service says: what stands between backticks is something to type.
export function prose(tag, className, text) {
  const parts = String(text).split("`");
  if (parts.length % 2 === 0) return element(tag, className, text);
  return element(tag, className, ...parts.map((each, place) => (place % 2 ? element("code", "", each) : each)));
}

export const empty = (text) => prose("p", "empty", text);

// Why something is not there. That nobody is signed in, or that nobody answers, is told once, above all.
export function trouble(refusal) {
  if (refusal.status === 0) return empty("Nothing yet: the service does not answer.");
  return refusal.status === 401 ? empty("Sign in to see this.") : prose("p", "empty trouble", capital(refusal.message));
}
