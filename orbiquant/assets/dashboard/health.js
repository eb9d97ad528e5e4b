// Whether the service can do its work, part by part.
import { badge, capital, facts, renew, trouble, writeSpan } from "./format.js";

const TONES = { ok: "good", empty: "warn", error: "bad" };

const at = (id) => document.getElementById(id);

export class HealthPanel {
  constructor(service) {
    Object.assign(this, { service, model: null });
  }

  async load() {
    try {
      const told = await this.service.ask("/health");
      this.model ??= (await this.service.ask("/api/health")).llm_status;
      this.show(told);
    } catch (refusal) {
      if (!refusal.status) return this.gone();
      renew(at("health-told"), badge("Unknown", "bad"));
      renew(at("health-list"), trouble(refusal));
    }
  }

  gone() {
    renew(at("health-told"), badge("Does not answer", "bad"));
    renew(at("health-list"));
  }

  show(told) {
    const parts = Object.entries(told.components).map(([name, state]) => [capital(name), badge(capital(state), TONES[state] ?? "")]);
    const age = told.age_s === null ? "No bars" : `${writeSpan(told.age_s)} old`;
    renew(at("health-told"), badge(capital(told.status), told.status === "healthy" ? "good" : "bad"));
    renew(
      at("health-list"),
      facts([
        ...parts,
        ["Newest bar", told.stale ? badge(`${age}, stale`, "warn") : age],
        ["Agents running", String(told.agents_running)],
        ["Warming up", told.warming ? "Models are being loaded" : null],
        ["Copilot", this.model],
      ]),
    );
  }
}
