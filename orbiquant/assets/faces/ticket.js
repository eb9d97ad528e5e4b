// The control of an order: everything that is known of it, and the only two buttons that decide on it.
import { sideMark } from "./cards.js";
import { decimalsOf, element, factList, pushButton, writeNumber, writePrice, writeSize, writeTime } from "./dom.js";

const STATES = {
  pending: "pending",
  approved: "approved",
  executed: "executed",
  refused: "refusedOrder",
  denied: "deniedOrder",
  void: "void",
};
const NEEDS_OVERRIDE = /^`override` must be true to approve this: (.*)$/s;
const MOST_LABEL = 60; // characters of a reason on a button

const lines = (told) => (Array.isArray(told) ? told.slice(0, 20).map((each) => String(each).slice(0, 500)) : []);

export class TicketCard {
  // decide({approved, override?}) tells the kernel.
  constructor(say, decide) {
    this.say = say;
    this.decide = decide;
    this.reasons = null; // of an override that was asked for after the proposal
    this.error = "";
    this.deciding = false;
    this.meant = false; // the box beside an override
    this.dead = false; // there is nobody to tell
    this.card = element("section", "oq-ticket");
    this.card.tabIndex = -1;
  }

  get state() {
    return Object.hasOwn(STATES, this.ticket?.state ?? "") ? this.ticket.state : "void";
  }

  get told() {
    const { action, size, symbol } = this.known;
    const { say } = this;
    return `${sideMark(action, say).textContent} ${writeSize(size, say.language)} ${say("lots")} ${symbol ?? ""}`.slice(
      0,
      200,
    );
  }

  get known() {
    return this.ticket?.known && typeof this.ticket.known === "object" ? this.ticket.known : {};
  }

  // Whose idea it was, where no words in this chat asked for it; its name is only what it calls itself.
  get claimed() {
    const { source } = this.ticket;
    if (!source || source === "copilot") return [];
    const program = String(this.known.program ?? "").slice(0, MOST_LABEL);
    const who = program ? this.say("byProgram", { program }) : this.say("byUnnamed");
    return [element("p", "oq-claim", element("strong", "", who), ` ${this.say("notAsked")}`)];
  }

  // Why an approval takes an override, null where it takes none.
  get against() {
    if (this.reasons) return this.reasons;
    return this.known.needs_override ? lines(this.known.override_reasons) : null;
  }

  show(ticket) {
    const decided = this.ticket && ticket.state !== this.ticket.state;
    this.ticket = ticket;
    if (ticket.state !== "pending" || decided) this.deciding = false;
    if (ticket.state !== "pending") this.error = "";
    this.draw(decided);
  }

  // A decision was refused: its text, and whether it now takes an override.
  refuse(text, reasons) {
    const found = NEEDS_OVERRIDE.exec(text);
    if (reasons?.length) this.reasons = lines(reasons);
    else if (found) this.reasons = found[1].split("; ");
    this.deciding = false;
    this.error = found ? "" : text;
    this.draw(true);
  }

  unlock(dead) {
    this.dead = dead;
    this.deciding = false;
    this.draw(false);
  }

  draw(announced) {
    const held = this.card.contains(document.activeElement) ? document.activeElement : null;
    this.card.dataset.state = this.deciding ? "deciding" : this.state;
    this.card.replaceChildren(
      this.head(),
      ...this.body(),
      ...(this.state === "pending" ? this.controls() : [this.outcome()]),
    );
    this.card.setAttribute("aria-label", `${this.say("order")}: ${this.told}`);
    if (!held) return;
    const same =
      announced || held === this.card
        ? null
        : this.card.querySelector(held.className ? `.${held.className.split(" ").join(".")}` : "input");
    (same && !same.disabled ? same : this.card).focus({ preventScroll: true });
  }

  head() {
    const { action, symbol, size, timeframe } = this.known;
    const { say } = this;
    const title = element(
      "h3",
      "",
      sideMark(action, say),
      ` ${writeSize(size, say.language)} ${say("lots")} `,
      element("span", "oq-symbol", String(symbol ?? "").slice(0, 100)),
    );
    const state = element(
      "span",
      "oq-badge oq-ticket-state",
      this.deciding ? say("deciding") : say(STATES[this.state]),
    );
    state.setAttribute("role", "status");
    return element("div", "oq-card-head", title, element("span", "oq-muted", String(timeframe ?? "")), state);
  }

  body() {
    const { say, known } = this;
    const language = say.language;
    const decimals = decimalsOf(known.price, known.stop_loss, known.take_profit);
    const price = (value) => writePrice(value, language, decimals);
    const share = typeof known.risk_percent === "number" ? `${writeNumber(known.risk_percent, language, 2, 2)} %` : "–";
    const currency = String(known.currency ?? "");
    const levels = factList(
      [
        [say("entry"), typeof known.price === "number" ? price(known.price) : null],
        [say("stopLoss"), typeof known.stop_loss === "number" ? price(known.stop_loss) : say("none")],
        [say("target"), typeof known.take_profit === "number" ? price(known.take_profit) : say("noTarget")],
        [say("rr"), typeof known.risk_reward === "number" ? writeNumber(known.risk_reward, language, 2, 2) : "–"],
      ],
      "oq-facts oq-levels",
    );
    const facts = factList([
      [say("risk"), `${writeNumber(known.risk_amount, language, 2, 2)} ${currency}`],
      [say("ofAccount"), share, typeof known.risk_percent === "number" && known.risk_percent > 2 ? "oq-bad" : ""],
      [
        say("confidence"),
        typeof known.confidence === "number" ? `${writeNumber(100 * known.confidence, language, 0, 0)} %` : "–",
      ],
      [say("phase"), known.amd_phase ?? "–"],
      [say("latestSignal"), known.signal ? sideMark(known.signal, say).textContent : say("none")],
      [say("account"), known.account_id],
    ]);
    const warned = lines(known.warnings);
    if (known.closes) warned.unshift(say("closes"));
    const parts = this.claimed.concat(levels, facts);
    const dated = [
      this.ticket.proposed_at && say("proposedAt", { time: writeTime(this.ticket.proposed_at) }),
      known.price_time && say("asOf", { time: writeTime(known.price_time) }),
    ].filter(Boolean);
    if (dated.length) parts.push(element("p", "oq-note", dated.join(" · ")));
    if (warned.length)
      parts.push(
        element(
          "div",
          "oq-warnings",
          element("strong", "", say("warnings")),
          element("ul", "", ...warned.map((each) => element("li", "", each))),
        ),
      );
    return parts;
  }

  controls() {
    const { say, against } = this;
    const parts = [];
    const deny = pushButton("oq-deny", say("deny"), () => this.send({ approved: false }));
    const shut = this.deciding || this.dead;
    deny.disabled = shut;
    if (this.error) {
      const line = element("p", "oq-error-line", this.error);
      line.setAttribute("role", "alert");
      parts.push(line);
    }
    if (against === null) {
      const approve = pushButton("oq-approve", say("approve"), () => this.send({ approved: true }));
      approve.disabled = shut;
      parts.push(element("div", "oq-decide", approve, deny));
      return parts;
    }
    const box = element("input");
    box.type = "checkbox";
    box.checked = this.meant; // a card that is drawn anew forgets nothing
    box.disabled = shut;
    const spoken = say.language === "en" && against.length === 1 && against[0].length <= MOST_LABEL; // reasons are in English
    const label = spoken ? say("overridePlace", { reasons: against[0] }) : say("overridePlaceShort");
    const place = pushButton(
      "oq-approve oq-override-place",
      label,
      () => box.checked && this.send({ approved: true, override: true }),
    );
    place.disabled = shut || !box.checked;
    box.addEventListener("change", () => {
      this.meant = box.checked;
      place.disabled = shut || !box.checked;
    });
    const reasons = element("ul", "", ...against.map((each) => element("li", "", each)));
    const asked = element(
      "div",
      "oq-override",
      element("strong", "", say("overrideTitle")),
      reasons,
      element("label", "", box, ` ${say("overrideCheck")}`),
    );
    parts.push(asked, element("div", "oq-decide", place, deny));
    return parts;
  }

  send(decision) {
    if (this.deciding || this.dead || this.state !== "pending") return;
    this.deciding = true;
    this.error = "";
    this.draw(true);
    this.decide(decision);
  }

  outcome() {
    const { say, ticket } = this;
    const language = say.language;
    if (this.state === "denied" || this.state === "void") {
      const why =
        this.state === "void" && /^the conversation went on/.test(ticket.reason ?? "")
          ? say("voidWhy")
          : String(ticket.reason ?? "");
      return element("p", "oq-outcome", why === "the user said no" ? "" : why.slice(0, 1_000));
    }
    const out = ticket.outcome && typeof ticket.outcome === "object" ? ticket.outcome : null;
    if (!out) return element("p", "oq-outcome", say(STATES[this.state]));
    const facts = factList([
      [
        say("filled"),
        typeof out.executed_price === "number"
          ? writePrice(out.executed_price, language)
          : out.success
            ? say("atNextOpen")
            : null,
      ],
      [say("slippage"), typeof out.slippage === "number" ? writePrice(out.slippage, language) : null],
      [say("size"), typeof out.quantity === "number" ? `${writeSize(out.quantity, language)} ${say("units")}` : null],
      [say("ticketId"), out.ticket ? element("code", "", String(out.ticket)) : null],
      [say("override"), ticket.override ? String(ticket.reason ?? "").replace(/^override: /, "") : null],
    ]);
    return element("div", "oq-outcome", element("p", "", String(out.message ?? "").slice(0, 1_000)), facts);
  }
}
