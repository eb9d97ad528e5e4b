// What was said, oldest first: messages of a history and events of a turn end up as the same elements.
import { ToolCard } from "./cards.js";
import { chartCard } from "./charts.js";
import { copyButton, element, pushButton } from "./dom.js";
import { MarkdownView } from "./markdown.js";
import { TicketCard } from "./ticket.js";

const MOST_ALOUD = 600; // characters of a sentence that are read out

// Whole sentences for whoever listens, never the pieces they come in.
class Aloud {
  constructor(region) {
    this.region = region;
    this.held = "";
  }

  hear(delta) {
    this.held += delta;
    const end = Math.max(...[". ", "! ", "? ", ".\n", ":\n", "\n\n"].map((each) => this.held.lastIndexOf(each)));
    if (end > 0) {
      this.say(this.held.slice(0, end + 1));
      this.held = this.held.slice(end + 1);
    }
  }

  flush() {
    if (this.held.trim()) this.say(this.held);
    this.held = "";
  }

  say(text) {
    const line = element(
      "p",
      "",
      text
        .replace(/[*_`#|>]+/g, " ")
        .trim()
        .slice(0, MOST_ALOUD),
    );
    this.region.append(line);
    while (this.region.childElementCount > 4) this.region.firstChild.remove();
  }
}

export class Conversation {
  // acts: decide(id, decision), retry(text)
  constructor(host, region, acts) {
    this.host = host;
    this.aloud = new Aloud(region);
    this.acts = acts;
    this.charts = new Set();
    this.clear();
  }

  clear() {
    this.charts.forEach((each) => each.leave());
    this.charts.clear();
    this.turn?.texts.forEach((each) => clearTimeout(each.timer));
    this.host.replaceChildren();
    this.tools = new Map();
    this.tickets = new Map();
    this.turn = null;
    this.asked = "";
  }

  get empty() {
    return this.host.childElementCount === 0;
  }

  question(text) {
    this.asked = text;
    const bubble = element("div", "oq-bubble", text);
    bubble.dir = "auto";
    const held = element("article", "oq-question", bubble);
    held.setAttribute("aria-label", this.say("you"));
    this.host.append(held);
    return held;
  }

  // An answer begins; what follows belongs to it.
  begin(live = true) {
    const card = element("article", "oq-answer");
    card.setAttribute("aria-label", this.say("answer"));
    const busy = element("div", "oq-working", element("span", "oq-dots"), element("span", "", this.say("waiting")));
    if (live) card.append(busy);
    this.host.append(card);
    this.turn = { card, busy, live, texts: new Map(), said: [], asked: this.asked };
    card.classList.toggle("oq-live", live);
    return this.turn;
  }

  put(made) {
    const turn = this.turn ?? this.begin(false);
    if (turn.busy.parentNode === turn.card) turn.card.insertBefore(made, turn.busy);
    else turn.card.append(made);
  }

  end() {
    const { turn } = this;
    if (!turn) return;
    turn.texts.forEach((each) => each.finish());
    turn.busy.remove();
    turn.card.classList.remove("oq-live");
    turn.card.querySelectorAll(".oq-growing").forEach((each) => each.classList.remove("oq-growing"));
    for (const each of this.tools.values())
      if (each.turn === turn && each.card.dataset.state === "running") each.mark("stopped");
    const text = () =>
      turn.said
        .map((each) => each.text.trim())
        .filter(Boolean)
        .join("\n\n");
    if (text()) turn.card.append(element("div", "oq-acts", copyButton(this.say, this.say("copyAnswer"), text)));
    if (!turn.card.childElementCount) turn.card.remove();
    if (turn.live) this.aloud.flush();
    this.turn = null;
  }

  textView(id) {
    const known = this.turn?.texts.get(id);
    if (known) return known;
    const host = element("div", "oq-text oq-growing");
    this.put(host);
    const view = new MarkdownView(host, this.say);
    this.turn.texts.set(id, view);
    this.turn.said.push(view);
    return view;
  }

  tool(id, name) {
    const known = this.tools.get(id);
    if (known) return known;
    const made = new ToolCard(name, this.say);
    this.put(made.card);
    made.turn = this.turn;
    this.tools.set(id, made);
    return made;
  }

  ticket(ticket) {
    if (!ticket || typeof ticket.id !== "string") return;
    let held = this.tickets.get(ticket.id);
    if (!held) {
      held = new TicketCard(this.say, (decision) => this.acts.decide(ticket.id, decision));
      this.tickets.set(ticket.id, held);
      this.put(held.card);
    }
    held.show(ticket);
    if (ticket.state === "pending" && this.turn?.live) this.aloud.say(this.say("ticketNews", { order: held.told }));
  }

  chart(figure) {
    const made = chartCard(figure, this.say);
    this.charts.add(made);
    this.put(made.card);
  }

  error(text) {
    const { turn } = this;
    const asked = turn?.asked || this.asked;
    const line = element(
      "div",
      "oq-error",
      element("strong", "", this.say("failed")),
      element("p", "", String(text).slice(0, 2_000)),
    );
    line.setAttribute("role", "alert");
    if (asked) line.append(pushButton("oq-quiet", this.say("retry"), () => this.acts.retry(asked)));
    this.put(line);
  }

  mark(text) {
    this.put(element("p", "oq-stopped", text));
  }

  reasoning(id, delta) {
    let held = this.turn?.texts.get(`reasoning ${id}`);
    if (!held) {
      const words = document.createTextNode("");
      this.put(
        element(
          "details",
          "oq-tool oq-reasoning",
          element("summary", "", this.say("thinking")),
          element("div", "oq-plain", words),
        ),
      );
      held = { words, finish() {}, text: "" };
      this.turn.texts.set(`reasoning ${id}`, held);
    }
    held.words.appendData(delta);
  }

  // What cannot be drawn is told in its place, and takes nothing else along.
  guarded(draw) {
    try {
      draw();
    } catch {
      this.put(element("p", "oq-note", this.say("undrawn")));
    }
  }

  apply(event) {
    if (!this.turn) this.begin();
    this.guarded(() => this.draw(event));
  }

  draw(event) {
    switch (event.type) {
      case "text-start":
        this.textView(event.id);
        break;
      case "text-delta":
        this.textView(event.id).append(event.delta);
        this.aloud.hear(String(event.delta));
        break;
      case "text-end": {
        const view = this.textView(event.id);
        view.finish();
        view.host.classList.remove("oq-growing");
        break;
      }
      case "reasoning-delta":
        this.reasoning(event.id, String(event.delta));
        break;
      case "data-ticket":
        this.ticket(event.data);
        break;
      case "data-chart":
        this.chart(event.data);
        break;
      case "error":
        this.error(event.errorText);
        break;
      case "abort":
        this.mark(this.say("stopped"));
        break;
      case "done":
        this.end();
        break;
      default:
        if (typeof event.toolCallId === "string") this.toolEvent(event);
    }
  }

  toolEvent(event) {
    const card = this.tool(event.toolCallId, event.toolName);
    switch (event.type) {
      case "tool-input-available":
        card.asked(event.input);
        break;
      case "tool-input-error":
        card.asked(event.input);
        card.failed(event.errorText);
        break;
      case "tool-output-available":
        card.said(event.output);
        break;
      case "tool-output-error":
        card.failed(event.errorText);
        break;
      case "tool-approval-request":
        card.mark("needsApproval");
        break;
      case "tool-output-denied":
        card.mark("denied");
        break;
      default:
        break;
    }
  }

  part(part, tickets) {
    const type = String(part?.type ?? "");
    if (type === "text") {
      const view = this.textView(`part ${this.turn.texts.size}`);
      view.text = String(part.text ?? "").replaceAll("\r", "");
      view.finish();
    } else if (type === "reasoning") this.reasoning(this.turn.texts.size, String(part.text ?? ""));
    else if (type === "data-chart") this.chart(part.data);
    else if (type === "data-ticket") this.ticket(tickets.get(part.data?.id ?? part.id) ?? part.data);
    else if (part.toolCallId) {
      this.toolPart(part, type === "dynamic-tool" ? part.toolName : type.replace(/^tool-/, ""));
      if (tickets.has(part.toolCallId)) this.ticket(tickets.get(part.toolCallId));
    }
  }

  toolPart(part, name) {
    const card = this.tool(part.toolCallId, name);
    if (part.input !== undefined) card.asked(part.input);
    if (part.state === "output-available") card.said(part.output);
    else if (part.state === "output-error") card.failed(part.errorText);
    else if (part.state === "output-denied") card.mark("denied");
    else if (part.state === "approval-requested") card.mark("needsApproval");
  }

  // A history, and then the tickets that no message of it holds, but for those that events are about to tell.
  history(messages, tickets, events = []) {
    const known = new Map(tickets.filter((each) => typeof each?.id === "string").map((each) => [each.id, each]));
    for (const message of messages) {
      const parts = Array.isArray(message?.parts)
        ? message.parts.filter((each) => each && typeof each === "object")
        : [];
      if (message?.role === "user") {
        this.end();
        const text = parts
          .filter((each) => each.type === "text")
          .map((each) => each.text)
          .join("\n");
        if (text) this.question(text);
      } else if (message?.role === "assistant") {
        // One answer may be several messages: one for each time that the model spoke.
        if (!this.turn) this.begin(false);
        parts.forEach((each) => this.guarded(() => this.part(each, known)));
      }
    }
    this.end();
    const coming = new Set(events.map((each) => each?.toolCallId ?? each?.id));
    const left = [...known.values()].filter((each) => !this.tickets.has(each.id) && !coming.has(each.id));
    if (left.length) {
      this.begin(false);
      left.forEach((each) => this.guarded(() => this.ticket(each)));
      this.end();
    }
  }
}
