// Where a user writes: Enter sends, a turn on its way turns Send into Stop, and no key of it reaches the notebook.
import { element, pushButton, writeNumber } from "./dom.js";

const MOST_CHARACTERS = 8_000; // that a message may have
const MOST_PASTED = 20_000; // more is refused before it slows the page
const TWICE_MS = 900;

// As Python counts: a character beyond the first plane is one.
function countCharacters(text) {
  return text.length <= MOST_CHARACTERS ? text.length : [...text].length;
}

export class Composer {
  // acts: say(text), stop()
  constructor(acts) {
    this.acts = acts;
    this.busy = false;
    this.last = "";
    this.escaped = -Infinity;
    this.area = element("textarea", "oq-composer");
    this.area.rows = 1;
    this.area.enterKeyHint = "send";
    this.send = pushButton("oq-send", "", () => this.submit());
    this.stop = pushButton("oq-stop", "", () => this.halt());
    this.told = element("span", "oq-composer-told");
    this.told.setAttribute("role", "status");
    this.hint = element("span", "oq-hint");
    this.box = element(
      "form",
      "oq-compose",
      element("div", "oq-row", this.area, this.send, this.stop),
      element("div", "oq-foot", this.told, this.hint),
    );
    this.box.addEventListener("submit", (event) => event.preventDefault());
    this.area.addEventListener("keydown", (event) => this.keyed(event));
    this.area.addEventListener("input", () => this.typed());
    this.area.addEventListener("paste", (event) => this.pasted(event, event.clipboardData));
    this.area.addEventListener("drop", (event) => this.pasted(event, event.dataTransfer));
  }

  speak(say) {
    this.say = say;
    this.area.placeholder = say("ask");
    this.area.setAttribute("aria-label", say("message"));
    this.send.textContent = say("send");
    this.mark(this.busy);
  }

  mark(busy, stopping = false) {
    const held = document.activeElement === (this.busy ? this.stop : this.send);
    this.busy = busy;
    this.send.hidden = busy;
    this.stop.hidden = !busy;
    this.stop.disabled = stopping;
    this.stop.textContent = this.say(stopping ? "stopping" : "stop");
    this.hint.textContent = this.say(busy ? "hintBusy" : "hint");
    if (held) this.area.focus({ preventScroll: true });
    this.typed(true);
  }

  typed(quiet = false) {
    const { area } = this;
    const count = countCharacters(area.value.trim());
    const over = count > MOST_CHARACTERS;
    area.style.height = "auto";
    area.style.height = `${Math.min(area.scrollHeight + 2, 200)}px`;
    area.setAttribute("aria-invalid", String(over));
    this.send.disabled = over || count === 0;
    const language = this.say.language;
    const near = count > MOST_CHARACTERS * 0.9;
    if (over)
      this.tell(
        this.say("tooLong", { count: writeNumber(count, language), most: writeNumber(MOST_CHARACTERS, language) }),
        true,
      );
    else if (near) this.tell(`${writeNumber(count, language)} / ${writeNumber(MOST_CHARACTERS, language)}`);
    else if (!quiet) this.tell("");
  }

  tell(text, wrong = false) {
    if (this.told.textContent !== text) this.told.textContent = text;
    this.told.classList.toggle("oq-wrong", wrong);
  }

  pasted(event, data) {
    const text = data?.getData("text/plain") ?? "";
    if (text.length + this.area.value.length <= MOST_PASTED) return;
    event.preventDefault();
    const language = this.say.language;
    this.tell(
      this.say("pasted", { count: writeNumber(text.length, language), most: writeNumber(MOST_CHARACTERS, language) }),
      true,
    );
  }

  keyed(event) {
    if (event.isComposing || event.keyCode === 229) return;
    if (event.key === "Enter" && !event.shiftKey && !event.altKey) {
      event.preventDefault();
      this.submit();
    } else if (event.key === "ArrowUp" && !this.area.value && this.last && !event.shiftKey) {
      event.preventDefault();
      this.put(this.last);
    }
  }

  // Escape, anywhere in the chat: twice stops.
  escape() {
    const now = performance.now();
    if (this.busy && now - this.escaped < TWICE_MS) this.halt();
    this.escaped = now;
  }

  put(text) {
    this.area.value = text;
    this.area.focus({ preventScroll: true });
    this.area.setSelectionRange(text.length, text.length);
    this.typed();
  }

  // What was refused comes back, where nothing else was begun.
  giveBack(text) {
    if (!this.area.value) this.put(text);
  }

  submit() {
    const text = this.area.value.trim();
    if (!text || countCharacters(text) > MOST_CHARACTERS) return this.typed();
    if (this.busy) return this.tell(this.say("busyHint"));
    this.last = text;
    this.area.value = "";
    this.typed();
    this.acts.say(text);
  }

  halt() {
    if (!this.busy || this.stop.disabled) return;
    this.mark(true, true);
    this.acts.stop();
    setTimeout(() => this.busy && this.mark(true), 5_000);
  }
}
