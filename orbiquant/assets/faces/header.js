// What answers, how full its context is, and whether anybody is there.
import { element, pushButton, writeNumber } from "./dom.js";

function short(count, language) {
  return count >= 10_000 ? `${writeNumber(count / 1000, language, 0, 0)}k` : writeNumber(count, language, 0, 0);
}

export class Header {
  constructor(fresh) {
    this.state = element("span", "oq-connection");
    this.state.setAttribute("role", "status");
    this.model = element("span", "oq-model");
    this.plan = element("span", "oq-badge oq-plan");
    this.fill = element("span", "");
    this.meter = element("span", "oq-meter", element("span", "oq-bar", this.fill), element("span", "oq-meter-text"));
    this.meter.setAttribute("role", "meter");
    this.fresh = pushButton("oq-quiet oq-new", "", fresh);
    this.title = element("strong", "oq-name");
    this.frames = element("span", "oq-frames");
    this.box = element(
      "header",
      "oq-head",
      this.title,
      this.state,
      this.model,
      this.plan,
      this.frames,
      this.meter,
      this.fresh,
    );
  }

  show(say, state, connection) {
    this.title.textContent = say("title");
    this.fresh.textContent = say("fresh");
    const way = connection === "live" && state.busy ? "working" : connection;
    this.box.dataset.way = way;
    this.state.textContent = say(way);
    this.model.textContent = [state.provider, state.model]
      .filter((each) => typeof each === "string" && each)
      .join(" · ")
      .slice(0, 80);
    this.model.title = String(state.why ?? "");
    this.plan.textContent = state.plan ? `${say("plan")} ${state.plan}` : "";
    const frames = Array.isArray(state.frames) ? state.frames.map(String) : [];
    this.frames.textContent = frames.length
      ? `▦ ${frames.slice(0, 3).join(", ")}${frames.length > 3 ? ` +${frames.length - 3}` : ""}`.slice(0, 60)
      : "";
    this.frames.title = frames.length ? `${say("frames")}: ${frames.join(", ").slice(0, 500)}` : "";
    this.measure(say, state.context);
  }

  measure(say, context) {
    const known = typeof context?.used === "number" && context.room > 0;
    this.meter.hidden = !known;
    if (!known) return;
    const share = Math.min(1, context.used / context.room);
    const told = say("contextLong", {
      used: writeNumber(context.used, say.language),
      room: writeNumber(context.room, say.language),
    });
    this.fill.style.inlineSize = `${100 * share}%`;
    this.meter.classList.toggle("oq-full", share > 0.85);
    this.meter.lastChild.textContent = `${short(context.used, say.language)} / ${short(context.room, say.language)} ${say("tokens")}`;
    this.meter.title = told;
    for (const [name, value] of Object.entries({
      "aria-label": say("context"),
      "aria-valuemin": 0,
      "aria-valuemax": context.room,
      "aria-valuenow": Math.min(context.used, context.room),
      "aria-valuetext": told,
    }))
      this.meter.setAttribute(name, value);
  }
}
