// Who trades: state, account, limits and how near they are, why one does not; and the switch that stops all new risk.
import { ask, choice, field } from "./dialogs.js";
import { element, pushButton } from "./dom.js";
import { badge, capital, empty, facts, keyed, profitOf, prose, renew, timeOf, trouble, writeCount, writeMoney, writeShare } from "./format.js";

const TONES = { running: "good", halted: "bad", paused: "warn" };
const MOVES = {
  created: ["start"],
  running: ["pause", "stop"],
  paused: ["resume", "stop"],
  halted: ["resume", "stop"],
  stopped: ["start"],
};
const SAID = {
  start: "It trades from the next bar on; at its first start with the capital of its profile.",
  pause: "It opens nothing more for now; what it holds stays protected.",
  resume: "It goes on trading.",
  stop: "It trades no more; what it holds stays protected until its stop, its target or its time.",
};
const NEAR = 0.7; // of a limit

const at = (id) => document.getElementById(id);

function meter(name, value, limit) {
  const share = limit > 0 ? Math.min(1, value / limit) : 0;
  const bar = element("span", "bar");
  const filled = element("span", share >= 1 ? "full" : share >= NEAR ? "near" : "");
  filled.style.width = `${100 * share}%`;
  bar.append(filled);
  bar.setAttribute("role", "meter");
  bar.setAttribute("aria-label", name);
  bar.setAttribute("aria-valuemin", "0");
  bar.setAttribute("aria-valuemax", String(limit));
  bar.setAttribute("aria-valuenow", String(value));
  bar.setAttribute("aria-valuetext", `${writeShare(value, 2)} of ${writeShare(limit, 2)}`);
  return element("div", "meter", element("span", "", name), bar, element("span", "figure", `${writeShare(value, 2)} of ${writeShare(limit, 2)}`));
}

export const whom = ({ scope, name }) =>
  scope === "all" ? "Everybody" : scope === "agent" ? capital(name) : `Everybody who trades ${name}`;
const target = ({ scope, name }) => (scope === "all" ? { everybody: true } : { [scope]: name });

export class Agents {
  constructor(service, { may, acted, told }) {
    Object.assign(this, { service, may, acted, told, agents: [], kills: [], metrics: new Map(), held: new Map(), known: false, refusal: null });
    at("kill").addEventListener("click", () => this.askKill("all:"));
  }

  // Those whose books can hold something.
  get begun() {
    return this.agents.filter((each) => each.status !== "created").map((each) => each.name);
  }

  async load() {
    try {
      const [{ agents }, { kills }] = [await this.service.ask("/agents"), await this.service.ask("/agents/kill")];
      for (const each of agents) {
        const before = this.agents.find(({ name }) => name === each.name);
        if (before && before.status !== each.status) this.told(`${capital(each.name)} is ${each.status}`);
      }
      const stopped = (all) => JSON.stringify(all.map((each) => [each.scope, each.name]));
      if (stopped(kills) !== stopped(this.kills)) this.told(kills.length ? `Stopped: ${kills.map(whom).join(", ")}` : "Nothing is stopped any more");
      Object.assign(this, { agents, kills, refusal: null });
    } catch (refusal) {
      this.refusal = refusal;
    }
    this.known = true;
    this.show();
  }

  async loadFigures() {
    for (const name of this.begun) {
      try {
        this.metrics.set(name, await this.service.ask(`/agents/${name}/metrics`));
      } catch {
        continue; // the state's own line says so
      }
    }
    this.show();
  }

  hold(name, positions) {
    this.held.set(name, positions);
  }

  show() {
    this.showKills();
    const running = this.agents.filter((each) => each.status === "running").length;
    at("agents-told").textContent = this.agents.length ? `${running} of ${this.agents.length} running` : "";
    if (!this.known) return; // nobody has answered yet: "Loading…" stays
    if (!this.agents.length)
      return renew(at("agents-list"), this.refusal ? trouble(this.refusal) : empty("No agents."));
    renew(at("agents-list"), ...this.agents.map((each) => this.card(each)));
  }

  killOf({ name, account }) {
    return this.kills.find((each) => each.scope === "all" || (each.scope === "agent" ? each.name === name : each.name === account));
  }

  card(agent) {
    const { name, currency, status } = agent;
    const kill = this.killOf(agent);
    const made = this.metrics.get(name);
    const held = this.held.get(name);
    const open = (held ?? []).reduce((sum, each) => sum + each.profit, 0);
    const money = (value) => writeMoney(value, currency);
    const head = element("h3", "", capital(name));
    head.id = `agent-${name}`;
    const [first, ...others] = agent.idle;
    const card = element(
      "article",
      "agent",
      element("div", "agent-head", head, badge(capital(status), TONES[status] ?? ""), kill ? badge("Killed", "bad") : null, element("span", "note", `${agent.profile}, ${agent.account}`)),
      facts([
        ["Equity", money(agent.equity)],
        ["Open profit", status === "created" || !held ? null : profitOf(open, money)],
        ["Closed profit", made ? profitOf(made.net_profit, money) : null],
        ["In R", made && made.total_trades ? profitOf(made.total_r, (value) => `${writeCount(value, 2)} R`) : null],
        ["Won", made && made.win_rate !== null ? `${writeShare(made.win_rate)} of ${writeCount(made.total_trades)}` : null],
        ["Positions", `${agent.open_positions} of ${agent.max_positions}`],
      ]),
      meter("Drawdown", agent.drawdown, agent.max_drawdown),
      meter("Loss today", agent.day_loss, agent.daily_loss),
      ...agent.warnings.map((each) => element("p", "warned", each)),
      first ? prose("p", "note why", `Does not trade: ${first}`) : null,
      others.length ? keyed(`why-${name}`, element("details", "", element("summary", "", `${others.length} more`), element("ul", "", ...others.map((each) => prose("li", "", each))))) : null,
      this.acts(agent, Boolean(kill)),
    );
    card.setAttribute("aria-labelledby", head.id);
    return card;
  }

  // Whoever is killed trades nothing, whatever its state: a person lifts that first.
  acts({ name, status }, killed) {
    const may = this.may("operate");
    const buttons = (killed ? [] : (MOVES[status] ?? [])).map((move) => {
      const made = keyed(`${move}-${name}`, pushButton("", capital(move), () => this.askMove(name, move)));
      made.setAttribute("aria-label", `${capital(move)} ${capital(name)}`);
      return made;
    });
    const kill = keyed(`kill-${name}`, pushButton("danger", "Kill…", () => this.askKill(`agent:${name}`)));
    kill.setAttribute("aria-label", `Kill ${capital(name)}…`);
    for (const each of [...buttons, kill]) each.disabled = !may;
    return element("div", "acts", ...buttons, kill, may === false ? element("span", "note", "Needs the scope operate") : null);
  }

  showKills() {
    const place = at("killed");
    place.hidden = !this.kills.length;
    const may = this.may("operate");
    renew(
      place,
      ...this.kills.map((kill) => {
        const lift = keyed(`lift-${kill.scope}-${kill.name}`, pushButton("", "Lift…", () => this.askLift(kill)));
        lift.setAttribute("aria-label", `Lift: let ${whom(kill)} trade again`);
        lift.disabled = !may;
        return element(
          "div",
          "kill",
          element("p", "", element("strong", "", `${whom(kill)} is stopped`), ` by ${kill.who}`, kill.at ? element("span", "", " since ", timeOf(kill.at)) : "", `: ${kill.why}`),
          element("p", "note", kill.flatten ? "What was held is being closed; no new risk until it is lifted." : "No new risk until it is lifted; protective stops stay."),
          lift,
          may === false ? element("span", "note", "Needs the scope operate") : null,
        );
      }),
    );
    at("kill").disabled = !may;
    at("kill-why").textContent = may ? "Stops all new risk; asks first" : may === false ? "Needs the scope operate" : "";
    at("kill-why").className = may === false ? "note" : "unseen";
  }

  askMove(name, move) {
    const act = async () => {
      await this.service.ask(`/agents/${name}/${move}`, { method: "POST", body: move === "start" ? {} : undefined });
      this.acted();
    };
    ask({ title: `${capital(move)} ${capital(name)}?`, text: SAID[move], confirm: capital(move), danger: move === "stop", act });
  }

  askKill(chosen) {
    const accounts = [...new Set(this.agents.map((each) => each.account))];
    const options = [
      ["all:", "Everybody"],
      ...this.agents.map(({ name }) => [`agent:${name}`, capital(name)]),
      ...accounts.map((each) => [`account:${each}`, `All who trade ${each}`]),
    ];
    const act = async ({ whom: said, why, flatten }) => {
      const [scope, ...name] = said.split(":");
      await this.service.ask("/agents/kill", { method: "POST", body: { ...target({ scope, name: name.join(":") }), why, flatten: Boolean(flatten) } });
      this.acted();
    };
    ask({
      title: "Kill switch",
      text: "Stops all new risk at once, until a person lifts it. Protective stops stay where they are.",
      fields: [
        choice("Whom", "whom", options, chosen),
        field("Reason, for the journal", "why", { kind: "area", required: true, maxLength: 500, rows: 2 }),
        field("Also close what is held, by orders that only reduce", "flatten", { kind: "checkbox" }),
      ],
      confirm: "Stop them now",
      danger: true,
      act,
    });
  }

  askLift(kill) {
    const act = async ({ why }) => {
      await this.service.ask("/agents/kill/lift", { method: "POST", body: { ...target(kill), why } });
      this.acted();
    };
    ask({
      title: `Let ${kill.scope === "all" ? "everybody" : whom(kill)} trade again?`,
      text: `It was stopped by ${kill.who}: ${kill.why}`,
      fields: [field("Reason, for the journal", "why", { kind: "area", required: true, maxLength: 500, rows: 2 })],
      confirm: "Lift it",
      act,
    });
  }
}
