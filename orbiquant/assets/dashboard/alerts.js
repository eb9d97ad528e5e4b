// Alerts of whoever looks: those that wait and those that fired, a form for another one.
import { ask, field } from "./dialogs.js";
import { element, pushButton } from "./dom.js";
import { badge, capital, empty, keyed, renew, tableOf, timeOf, trouble, writePrice } from "./format.js";

const at = (id) => document.getElementById(id);

export class Alerts {
  constructor(service, market, { may, told }) {
    Object.assign(this, { service, market, may, told, alerts: null, refusal: null });
    this.build();
  }

  build() {
    const condition = element("select");
    Object.assign(condition, { name: "condition", id: "alert-condition" });
    for (const each of ["above", "below"]) condition.append(Object.assign(element("option", "", each), { value: each }));
    const said = element("label", "unseen", "Condition");
    said.htmlFor = condition.id;
    this.symbol = element("span", "chosen", "–");
    this.price = field("Price", "price", { kind: "number", step: "any", min: "0", required: true, inputMode: "decimal" });
    this.note = field("Note", "message", { maxLength: 500, placeholder: "optional" });
    this.set = element("button", "main", "Set alert");
    this.set.type = "submit";
    this.answer = element("p", "note answer");
    this.answer.setAttribute("role", "status");
    this.needs = element("p", "note", "Setting one needs the scope write.");
    this.needs.hidden = true;
    const form = at("alert-form");
    form.append(
      element("div", "line", element("span", "", "Tell me when "), this.symbol, element("span", "", " goes "), said, condition, this.price, this.note, this.set),
      this.needs,
      this.answer,
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.add(Object.fromEntries(new FormData(form)), form);
    });
  }

  async add({ condition, price, message }, form) {
    this.set.disabled = true;
    this.answer.className = "note answer";
    try {
      const made = await this.service.ask("/api/alerts", { method: "POST", body: { symbol: this.market.line.symbol, condition, price, message } });
      this.answer.textContent = capital(made.message);
      form.reset();
    } catch (refusal) {
      this.answer.textContent = capital(refusal.message);
      this.answer.className = "trouble answer";
    }
    this.set.disabled = !this.may("write");
    await this.load();
  }

  async load() {
    try {
      const { alerts } = await this.service.ask("/api/alerts");
      const waited = new Set((this.alerts ?? []).filter((each) => each.status === "active").map((each) => each.alert_id));
      for (const each of alerts)
        if (each.status === "fired" && waited.has(each.alert_id)) this.told(`Alert: ${each.symbol} is ${each.condition} ${each.price}`);
      Object.assign(this, { alerts, refusal: null });
    } catch (refusal) {
      this.refusal = refusal;
    }
    this.show();
  }

  show() {
    const { alerts } = this;
    const may = this.may("write");
    this.symbol.textContent = this.market.line?.symbol ?? "–";
    this.set.disabled = !may || !this.market.line;
    this.set.title = may ? "" : "Needs the scope write";
    this.needs.hidden = may !== false;
    if (!alerts) return renew(at("alerts-list"), this.refusal ? trouble(this.refusal) : null);
    const waiting = alerts.filter((each) => each.status === "active").length;
    at("alerts-told").textContent = alerts.length ? `${waiting} waiting` : "";
    if (!alerts.length) return renew(at("alerts-list"), empty("No alerts."));
    const rows = [...alerts].reverse().map((each) => {
      const price = writePrice(each.price, Math.max(this.market.decimalsOf(each.symbol) ?? 0, (String(each.price).split(".")[1] ?? "").length));
      const remove = keyed(`remove-${each.alert_id}`, pushButton("quiet", "Remove", () => this.askRemove(each, price)));
      remove.setAttribute("aria-label", `Remove the alert ${each.symbol} ${each.condition} ${price}`);
      remove.disabled = !may;
      const state = each.status === "fired" ? element("span", "", badge("Fired", "good"), element("span", "note beneath", timeOf(each.fired_at))) : badge("Waiting");
      const said = element("span", "", `${each.symbol} ${each.condition} ${price}`, each.message ? element("span", "note beneath", each.message) : null);
      return { cells: [said, state, remove] };
    });
    const heads = [{ name: "Alert", kind: "wide" }, { name: "State" }, { name: "Remove" }];
    renew(at("alerts-list"), tableOf("Your alerts, newest first", heads, rows));
  }

  askRemove({ alert_id, symbol, condition }, price) {
    const act = async () => {
      await this.service.ask(`/api/alerts/${encodeURIComponent(alert_id)}`, { method: "DELETE" });
      await this.load();
    };
    ask({ title: "Remove this alert?", text: `${symbol} ${condition} ${price}`, confirm: "Remove", danger: true, act });
  }
}
