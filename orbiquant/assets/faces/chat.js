// The copilot's chat: it draws the events of a turn, wherever they come from, and sends what its user says and decides.
// A link is where they come from: listen(callback) → unlisten, send({kind, …}), and perhaps saved() → a snapshot.
// Kinds that it sends: hello, say, decide, stop, new. Kinds that it is sent: reset, begin, events, state, error, connection.
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { element, pushButton } from "./dom.js";
import { Header } from "./header.js";
import { kernelLink } from "./links.js";
import { speaker } from "./words.js";

const HELLO_MS = 3_000; // without an answer the saved conversation is shown
const SLOW_SAY_MS = 5_000;
const SLOW_DECIDE_MS = 20_000;
const UNKNOWN = [0, 401]; // of a refusal: nobody is there, or nobody knows us
const JUMP = 200; // pixels that nobody scrolls in one step
const NEAR = 48; // pixels from the end that still count as being there
const KEPT_IN = [
  "keydown",
  "keypress",
  "keyup",
  "paste",
  "copy",
  "cut",
  "contextmenu",
  "beforeinput",
  "input",
  "dragover",
  "drop",
  "dblclick",
  "mousedown",
  "wheel",
];

class Chat {
  constructor(root, link) {
    this.link = link;
    this.root = element("section", "oq-chat");
    this.state = { busy: false };
    this.connection = "connecting";
    this.run = null;
    this.next = 1;
    this.waiting = null; // what was said and has not begun yet
    this.pinned = true;
    this.top = 0; // where the log was scrolled to
    this.touched = -Infinity; // when somebody last scrolled by hand
    this.timers = new Map();
    this.undo = [];
    this.say = speaker(link.saved?.()?.state?.language ?? (navigator.language?.startsWith("es") ? "es" : "en"));
    this.build();
    this.bind();
    root.append(this.root);
    this.speak(this.say.language);
    this.undo.push(link.listen((told) => this.hear(told)));
    this.hello();
  }

  build() {
    this.header = new Header(() => this.renew());
    this.inside = element("div", "oq-messages");
    this.log = element("div", "oq-log", this.inside);
    this.log.tabIndex = 0;
    this.log.setAttribute("role", "log");
    this.log.setAttribute("aria-live", "off"); // whole sentences are told below, not the pieces they come in
    this.region = element("div", "oq-hidden");
    this.region.setAttribute("aria-live", "polite");
    this.region.setAttribute("role", "status");
    this.notice = element("div", "oq-notice");
    this.notice.setAttribute("role", "status");
    this.latest = pushButton("oq-latest", "", () => this.toEnd(true));
    this.welcome = element("div", "oq-welcome");
    this.composer = new Composer({ say: (text) => this.speakUp(text), stop: () => this.tell({ kind: "stop" }) });
    this.conversation = new Conversation(this.inside, this.region, {
      decide: (id, decision) => this.decide(id, decision),
      retry: (text) => this.composer.put(text),
    });
    this.root.append(
      this.header.box,
      this.notice,
      element("div", "oq-stage", this.log, this.latest),
      this.composer.box,
      this.region,
    );
    // JupyterLab gives its keys and its menu to a place that says so.
    this.root.dataset.lmSuppressShortcuts = "true";
    this.root.dataset.jpSuppressContextMenu = "true";
  }

  on(target, name, heard, options) {
    target.addEventListener(name, heard, options);
    this.undo.push(() => target.removeEventListener(name, heard, options));
  }

  bind() {
    this.on(this.root, "keydown", (event) => {
      if (event.isComposing) return;
      if (event.key === "Escape") this.composer.escape();
    });
    for (const name of KEPT_IN) this.on(this.root, name, (event) => event.stopPropagation(), { passive: true });
    this.on(this.log, "scroll", () => this.scrolled(), { passive: true });
    this.on(this.inside, "toggle", (event) => event.target.open && this.stay(), true);
    for (const name of ["wheel", "touchmove", "pointerdown", "keydown"]) {
      this.on(this.log, name, () => (this.touched = performance.now()), { passive: true });
    }
    const grown = new ResizeObserver(() =>
      this.log.scrollTop === 0 && this.top > JUMP ? this.putBack() : this.follow(),
    );
    grown.observe(this.inside);
    grown.observe(this.log);
    const redraw = () => this.conversation.charts.forEach((each) => each.redraw());
    const dark = matchMedia("(prefers-color-scheme: dark)");
    this.on(dark, "change", redraw);
    const themed = new MutationObserver(redraw);
    for (const each of [document.body, document.documentElement])
      themed.observe(each, {
        attributes: true,
        attributeFilter: ["data-jp-theme-light", "data-jp-theme-name", "class", "data-theme"],
      });
    this.undo.push(
      () => grown.disconnect(),
      () => themed.disconnect(),
    );
  }

  speak(language) {
    this.say = speaker(language);
    this.conversation.say = this.say;
    this.composer.speak(this.say);
    this.log.setAttribute("aria-label", this.say("log"));
    this.latest.textContent = this.say("latest");
    this.root.lang = this.say.language;
    this.root.setAttribute("aria-label", this.say("title"));
    this.show();
  }

  // Header, composer and the word for an empty page follow what is known.
  show() {
    const state = { ...this.state, busy: this.busy };
    this.root.dataset.connection = this.connection;
    this.header.show(this.say, state, this.connection);
    if (this.composer.busy !== this.busy) this.composer.mark(this.busy);
    const empty = this.conversation.empty && !this.waiting;
    if (!empty) this.welcome.remove();
    else if (!this.welcome.isConnected || this.welcome.lang !== this.say.language) this.greet();
    this.latest.hidden = this.pinned;
  }

  get busy() {
    return this.run !== null || Boolean(this.state.busy);
  }

  greet() {
    const examples = this.say("examples").map((each) => pushButton("oq-example", each, () => this.composer.put(each)));
    this.welcome.lang = this.say.language;
    this.welcome.replaceChildren(element("p", "", this.say("empty")), element("div", "oq-examples", ...examples));
    this.log.prepend(this.welcome);
  }

  wait(name, milliseconds, act) {
    clearTimeout(this.timers.get(name));
    this.timers.set(name, milliseconds ? setTimeout(act, milliseconds) : 0);
  }

  warn(text, again = false) {
    this.notice.replaceChildren(...(text ? [element("span", "", text)] : []));
    if (text && again) this.notice.append(pushButton("oq-quiet", this.say("again"), () => this.hello()));
  }

  // Say something to the other side; false where nobody can be told.
  tell(told) {
    try {
      this.link.send(told);
      return true;
    } catch {
      this.lost();
      return false;
    }
  }

  hello() {
    if (this.timers.get("hello")) return;
    this.wait("hello", HELLO_MS, () => {
      this.timers.set("hello", 0);
      this.lost();
    });
    this.tell({ kind: "hello" });
  }

  // Nobody answers: what was saved is shown, and nothing in it can be pressed.
  lost() {
    this.wait("hello", 0);
    this.connection = "gone";
    if (this.run !== null) this.conversation.end();
    this.run = null;
    this.state = { ...this.state, busy: false };
    const saved = this.link.saved?.();
    if (this.conversation.empty && Array.isArray(saved?.messages)) {
      this.state = { ...saved.state, busy: false };
      this.speak(this.state.language ?? this.say.language);
      this.conversation.history(saved.messages, Array.isArray(saved.tickets) ? saved.tickets : []);
    }
    this.conversation.tickets.forEach((each) => each.unlock(true));
    this.warn(this.say(this.link.served ? "goneServed" : "goneLong"), true);
    this.show();
    this.follow();
  }

  hear(told) {
    switch (told?.kind) {
      case "reset":
        this.reset(told);
        break;
      case "begin":
        this.begin(told);
        break;
      case "events":
        this.events(told);
        break;
      case "state":
        this.know(told.state);
        break;
      case "error":
        this.refused(told);
        break;
      case "connection":
        this.connected(told);
        break;
      default:
        break;
    }
    this.show();
    this.follow();
  }

  alive() {
    this.wait("hello", 0);
    if (this.connection === "live") return;
    this.connection = "live";
    this.warn("");
    this.conversation.tickets.forEach((each) => each.dead && each.unlock(false));
  }

  connected(told) {
    if (told.changed) return this.hello();
    if (!told.lost) return this.alive();
    this.connection = told.given ? "gone" : "connecting";
    this.warn(this.say(told.given ? "httpNone" : "lostLong"), Boolean(told.given));
  }

  know(state) {
    if (!state || typeof state !== "object") return;
    const before = this.say.language;
    const { disconnected, ...known } = state;
    this.state = { ...this.state, ...known };
    if (disconnected) return this.lost();
    this.alive();
    if (state.language && state.language !== before) {
      this.speak(state.language);
      if (!this.conversation.empty) this.hello();
    }
  }

  reset(told) {
    this.connection = "live";
    this.warn("");
    this.wait("hello", 0);
    this.wait("decide", 0);
    this.state = told.state ?? {};
    this.speak(this.state.language ?? this.say.language);
    const { scrollTop } = this.log;
    const held = this.inside.contains(document.activeElement);
    this.conversation.clear();
    const messages = (Array.isArray(told.messages) ? told.messages : []).filter((each) => Array.isArray(each?.parts));
    this.conversation.history(
      messages,
      Array.isArray(told.tickets) ? told.tickets : [],
      told.run && Array.isArray(told.events) ? told.events : [],
    );
    this.run = null;
    const last = messages.at(-1);
    const lastText = last?.role === "user" ? last.parts.map((each) => each?.text ?? "").join("\n") : null;
    if (told.run) {
      if (told.said && told.said !== lastText) this.conversation.question(told.said);
      this.open(told.run);
      this.events({ run: told.run, first: 1, events: told.events ?? [] });
    }
    const known = [
      ...messages
        .filter((each) => each.role === "user")
        .slice(-2)
        .map((each) => each.parts[0]?.text),
      told.said,
    ];
    if (this.waiting && !known.includes(this.waiting.text)) this.inside.append(this.waiting.card);
    else this.waiting = null;
    this.composer.last ||= known.findLast((each) => typeof each === "string") ?? "";
    if (!this.pinned) this.log.scrollTop = scrollTop;
    if (held) this.log.focus({ preventScroll: true });
  }

  open(run) {
    this.run = run;
    this.next = 1;
    this.conversation.begin();
  }

  begin(told) {
    this.alive();
    if (told.run === this.run) return;
    this.warn("");
    if (this.run !== null) this.conversation.end();
    this.settleWaiting(told.said);
    if (told.said) this.conversation.question(told.said);
    this.open(told.run);
  }

  // What was said has begun, or was refused: its grey copy goes.
  settleWaiting(said) {
    this.wait("say", 0);
    if (!this.waiting || (said !== undefined && said !== this.waiting.text)) return;
    this.waiting.card.remove();
    this.waiting = null;
  }

  events(told) {
    const events = Array.isArray(told.events) ? told.events : [];
    if (told.run !== this.run) return this.ended === told.run ? undefined : this.hello();
    if (told.first > this.next) return this.hello();
    this.alive();
    for (const event of events.slice(this.next - told.first)) {
      this.next += 1;
      this.apply(event);
    }
  }

  apply(event) {
    if (!event || typeof event !== "object") return;
    this.conversation.apply(event);
    if (event.type === "data-ticket") this.wait("decide", 0);
    if (event.type !== "done") return;
    this.ended = this.run;
    this.run = null;
    this.state = { ...this.state, busy: false };
    if ([...this.conversation.tickets.values()].some((each) => each.deciding)) this.hello();
  }

  refused(told) {
    this.alive();
    const text = this.tellRefusal(told);
    const named = (Array.isArray(told.tickets) ? told.tickets : [])
      .map((id) => this.conversation.tickets.get(id))
      .filter(Boolean);
    const deciding = named.length ? named : [...this.conversation.tickets.values()].filter((each) => each.deciding);
    if (deciding.length && told.said === undefined) {
      this.wait("decide", 0);
      deciding.forEach((each) => each.refuse(text, told.reasons));
      return;
    }
    if (UNKNOWN.includes(told.status)) this.connection = "gone";
    if (told.said === undefined) return this.warn(text, this.connection === "gone");
    this.settleWaiting(told.said);
    this.composer.giveBack(told.said);
    this.composer.tell(text, true);
  }

  tellRefusal(told) {
    const text = String(told.text ?? "").slice(0, 1_000);
    if (told.status === undefined) return text;
    const name = told.status === 0 ? "httpNone" : told.status >= 500 ? "http5" : `http${told.status}`;
    const own = ["http401", "http403", "http409", "http429", "http5", "httpNone"].includes(name) ? this.say(name) : "";
    if (told.code === "OVERRIDE_REQUIRED" || !own) return text;
    return [own, text && text[0].toUpperCase() + text.slice(1)].filter(Boolean).join(" ");
  }

  speakUp(text) {
    const card = element(
      "article",
      "oq-question oq-waiting",
      element("div", "oq-bubble", text),
      element("p", "oq-note", this.say("sending")),
    );
    this.waiting?.card.remove();
    this.waiting = { text, card };
    this.inside.append(card);
    this.pinned = true;
    this.show();
    this.toEnd();
    this.wait("say", SLOW_SAY_MS, () => this.waiting && (this.waiting.card.lastChild.textContent = this.say(this.link.served ? "slowServed" : "slow")));
    if (this.tell({ kind: "say", text })) return;
    this.settleWaiting();
    this.composer.giveBack(text);
  }

  decide(id, decision) {
    this.wait("decide", SLOW_DECIDE_MS, () => {
      this.warn(this.say("decideNone"));
      this.hello();
    });
    this.tell({ kind: "decide", decisions: { [id]: decision } });
  }

  renew() {
    this.tell({ kind: "new" });
    this.composer.area.focus({ preventScroll: true });
  }

  scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.log;
    // Only whoever scrolls up leaves the end: an answer that grows does not.
    if (scrollHeight - scrollTop - clientHeight < NEAR) this.pinned = true;
    else if (scrollTop === 0 && this.top > JUMP && performance.now() - this.touched > 500) return this.putBack();
    else if (scrollTop < this.top - 4) this.pinned = false;
    this.top = scrollTop;
    this.latest.hidden = this.pinned;
  }

  // A notebook took the cell off the page for a while, and with it the place that was read.
  putBack() {
    if (this.pinned) this.follow();
    else this.log.scrollTop = this.top;
  }

  // Something was opened to be read.
  stay() {
    this.pinned = false;
    this.latest.hidden = false;
    this.scrolled();
  }

  follow() {
    if (this.pinned) this.log.scrollTop = this.log.scrollHeight;
  }

  toEnd(pressed = false) {
    this.pinned = true;
    this.follow();
    this.latest.hidden = true;
    if (pressed) this.log.focus({ preventScroll: true });
  }

  leave() {
    this.timers.forEach((each) => clearTimeout(each));
    this.undo.forEach((each) => each());
    this.conversation.clear();
    this.root.remove();
  }
}

// Draw a chat into an element; what is returned takes it away again, with all it listens to.
export function mountChat(root, link) {
  const chat = new Chat(root, link);
  return () => chat.leave();
}

export default {
  render({ model, el }) {
    return mountChat(el, kernelLink(model));
  },
};
