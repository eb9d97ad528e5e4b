// Markdown becomes elements token by token: no text of a model is ever read as HTML, and nothing it writes can freeze the page.
import { copyButton, element, scrolling } from "./dom.js";

const MOST_MARKDOWN = 30_000; // characters; what is longer is shown as it was written
const MOST_TOKENS = 6_000;
const MOST_DEPTH = 24;
const REDRAW_MS = 70; // at most 15 times a second, and never for more than a fraction of the time
const ODD_RUN = /([[\]()<>*_~`!|&\\])\1{199}|(?:[[\]()<>*_~`!|&\\][ \n]?){600}/; // what nobody writes, and a parser chokes on

const reader = markdownit({ html: false, linkify: false, maxNesting: MOST_DEPTH }).disable(["image"]);
reader.validateLink = (address) => safeAddress(address) !== null;

export function safeAddress(address) {
  try {
    const read = new URL(address);
    return ["http:", "https:", "mailto:"].includes(read.protocol) ? read.href : null;
  } catch {
    return null;
  }
}

const TAGS = {
  strong: "strong",
  em: "em",
  s: "s",
  paragraph: "p",
  blockquote: "blockquote",
  bullet_list: "ul",
  list_item: "li",
  thead: "thead",
  tbody: "tbody",
  tr: "tr",
};

function codeBlock(token, say) {
  const language = token.info?.trim().split(/\s+/)[0].slice(0, 30) || say("code");
  const text = token.content.replace(/\n$/, "");
  const head = element(
    "div",
    "oq-code-head",
    element("span", "", language),
    copyButton(say, say("copyCode"), () => text),
  );
  const held = element("pre", "", element("code", "", text));
  held.tabIndex = 0;
  return element("div", "oq-code", head, held);
}

function openToken(token, say) {
  const kind = token.type.replace(/_open$/, "");
  if (kind === "heading") return element(`h${Math.min(6, Number(token.tag.slice(1)) + 2)}`);
  if (kind === "ordered_list") {
    const list = element("ol");
    const start = Number(token.attrGet("start") ?? 1);
    if (start !== 1 && start < 1e9) list.start = start;
    return list;
  }
  if (kind === "link") {
    const address = safeAddress(token.attrGet("href") ?? "");
    if (address === null) return element("span");
    const link = element("a");
    link.href = address;
    link.title = address.slice(0, 300);
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
    return link;
  }
  if (kind === "th" || kind === "td") {
    const cell = element(kind, /right/.test(token.attrGet("style") ?? "") ? "oq-number" : "");
    if (kind === "th") cell.scope = "col";
    return cell;
  }
  if (kind === "table") return scrolling(element("table"), say("table"));
  return element(TAGS[kind] ?? "span");
}

function leafToken(token, say) {
  if (token.type === "fence" || token.type === "code_block") return codeBlock(token, say);
  if (token.type === "code_inline") return element("code", "", token.content);
  if (token.type === "hr") return element("hr");
  if (token.type === "softbreak" || token.type === "hardbreak") return element("br");
  return token.content;
}

function drawTokens(tokens, host, say) {
  const open = [host];
  for (const token of tokens) {
    const within = open.at(-1);
    if (token.type === "inline") drawTokens(token.children, within, say);
    else if (token.hidden) continue;
    else if (token.nesting === 1) {
      const made = openToken(token, say);
      within.append(made);
      open.push(token.type === "table_open" ? made.firstChild : made);
    } else if (token.nesting === -1) open.pop();
    else within.append(leafToken(token, say));
  }
}

// The blocks of a text that stand beside one another, each with the line where it begins; null where it should stay as it is.
function readBlocks(text) {
  if (text.length > MOST_MARKDOWN || ODD_RUN.test(text)) return null;
  const tokens = reader.parse(text, {});
  let count = 0;
  for (const token of tokens) {
    count += 1 + (token.children?.length ?? 0);
    if (token.level >= MOST_DEPTH - 2) return null;
  }
  if (count > MOST_TOKENS) return null;
  const blocks = [];
  let depth = 0;
  let first = 0;
  tokens.forEach((token, place) => {
    depth += token.nesting;
    if (depth > 0) return;
    blocks.push({ tokens: tokens.slice(first, place + 1), line: tokens[first].map?.[0] ?? 0 });
    first = place + 1;
  });
  return blocks;
}

function lineStart(text, line) {
  let at = 0;
  for (let passed = 0; passed < line; passed += 1) at = text.indexOf("\n", at) + 1;
  return at;
}

// A text that grows: blocks that are complete stay as they are, only the last one is drawn again.
export class MarkdownView {
  constructor(host, say) {
    this.host = host;
    this.say = say;
    this.text = "";
    this.settled = 0; // characters whose elements stay
    this.live = []; // elements of what follows
    this.plain = null;
    this.timer = 0;
    this.took = 0;
  }

  append(delta) {
    this.text += String(delta).replaceAll("\r", "");
    this.timer ||= setTimeout(() => this.draw(), Math.max(REDRAW_MS, 6 * this.took));
  }

  finish() {
    clearTimeout(this.timer);
    if (/\]:/.test(this.text) && this.plain === null) {
      this.host.replaceChildren();
      this.live = [];
      this.settled = 0;
    }
    this.draw();
  }

  draw() {
    this.timer = 0;
    if (this.plain !== null) return this.drawPlain();
    const tail = this.text.slice(this.settled);
    const began = performance.now();
    const blocks = this.text.length > MOST_MARKDOWN ? null : readBlocks(tail);
    this.took = performance.now() - began;
    if (blocks === null) return this.drawPlain();
    this.live.forEach((each) => each.remove());
    this.live = blocks.map(({ tokens }) => {
      const held = element("div", "oq-block");
      held.dir = "auto";
      drawTokens(tokens, held, this.say);
      return held;
    });
    this.host.append(...this.live);
    if (blocks.length > 1) {
      this.settled += lineStart(tail, blocks.at(-1).line);
      this.live = this.live.slice(-1);
    }
  }

  drawPlain() {
    if (this.plain === null) {
      this.plain = document.createTextNode("");
      this.host.replaceChildren(element("div", "oq-plain", this.plain));
    }
    const known = this.plain.length;
    if (this.text.length > known) this.plain.appendData(this.text.slice(known));
  }
}
