// What is held and what was decided: of whoever looks, and of the agents.
import { element } from "./dom.js";
import { badge, capital, empty, facts, keyed, profitOf, renew, tableOf, timeOf, trouble, writeCount, writeMoney, writePrice, writeShare } from "./format.js";

const SHOWN = 40;
const PAGE = 30; // decisions asked for of each agent
const TONES = { taken: "good", resized: "good", closed: "", denied: "bad", rejected: "bad", filtered: "warn" };

const NEEDED = "PLAN_REQUIRED"; // positions and decisions of agents tell what their signals said

const at = (id) => document.getElementById(id);

export class Positions {
  constructor(service, agents, decimalsOf) {
    Object.assign(this, { service, agents, decimalsOf, own: null, refusal: null, unseen: false });
  }

  async load() {
    try {
      this.own = await this.service.ask("/api/portfolio");
      this.refusal = null;
    } catch (refusal) {
      this.refusal = refusal;
    }
    for (const name of this.agents.begun) {
      try {
        this.agents.hold(name, (await this.service.ask(`/agents/${name}/positions`)).positions);
      } catch (refusal) {
        this.unseen = refusal.code === NEEDED; // what else failed, the agents' own line says
      }
    }
    this.agents.show();
    this.show();
  }

  show() {
    const { own } = this;
    const rows = [
      ...(own?.positions ?? []).map((each) => ["You", each, own.currency]),
      ...this.agents.agents.flatMap((agent) => (this.agents.held.get(agent.name) ?? []).map((each) => [capital(agent.name), each, agent.currency])),
    ].map(([who, held, currency]) => {
      const price = (value) => (value === null ? "–" : writePrice(value, this.decimalsOf(held.symbol)));
      return {
        cells: [
          held.symbol, who, element("span", held.side === "LONG" ? "good" : "bad", held.side === "LONG" ? "▲ Long" : "▼ Short"), profitOf(held.profit, (value) => writeMoney(value, currency)), writeCount(held.size, 8),
          price(held.open_price), price(held.current_price), price(held.stop_loss), price(held.take_profit), held.strategy, timeOf(held.opened_at),
        ],
      };
    });
    const heads = [
      { name: "Symbol" }, { name: "Owner" }, { name: "Side" }, { name: "Profit", number: true }, { name: "Size", number: true }, { name: "Opened at", number: true },
      { name: "Now", number: true }, { name: "Stop", number: true }, { name: "Target", number: true }, { name: "Strategy" }, { name: "Since" },
    ];
    at("positions-told").textContent = rows.length ? `${rows.length} open` : "";
    const money = (value) => writeMoney(value, own?.currency);
    renew(
      at("positions-list"),
      own
        ? facts([
            ["Your own equity", money(own.equity)],
            ["Balance", money(own.balance)],
            ["Free margin", money(own.free_margin)],
            ["Closed today", profitOf(own.daily_pnl, money)],
            ["Closed in 7 days", profitOf(own.weekly_pnl, money)],
          ])
        : this.refusal && trouble(this.refusal),
      own && this.agents.agents.length ? element("p", "note", "Your own account alone: what the agents have stands with each of them.") : null,
      rows.length ? tableOf("Open positions", heads, rows) : this.unseen ? null : own && empty("Nobody holds anything."),
      this.unseen ? empty("What agents hold tells their signals, which need the plan pro.") : null,
    );
  }
}

export class Decisions {
  constructor(service, agents, heard) {
    Object.assign(this, { service, agents, heard, lines: [], refusal: null });
    const option = (value, label) => Object.assign(element("option", "", label), { value });
    at("outcome").append(option("", "All outcomes"), ...["taken", "resized", "closed", "hold", "filtered", "denied", "rejected"].map((each) => option(each, capital(each))));
    at("outcome").addEventListener("change", () => this.load());
  }

  async load() {
    const outcome = at("outcome").value;
    const lines = [];
    this.refusal = null;
    for (const name of this.agents.begun) {
      try {
        lines.push(...(await this.service.ask(`/agents/${name}/journal?limit=${PAGE}${outcome && `&outcome=${outcome}`}`)).decisions);
      } catch (refusal) {
        this.refusal = refusal;
      }
    }
    if (outcome !== at("outcome").value || (this.refusal && !lines.length && this.lines.length)) return;
    this.lines = lines.sort((one, other) => Date.parse(other.decided_at) - Date.parse(one.decided_at)).slice(0, SHOWN);
    this.heard(this.lines);
    this.show();
  }

  show() {
    const refusal = this.refusal ?? this.agents.refusal;
    if (!this.agents.known) return; // whose decisions is not known yet: "Loading…" stays
    if (!this.lines.length)
      return renew(
        at("decisions-list"),
        refusal?.code === NEEDED ? empty("What agents decide tells their signals, which need the plan pro.") : refusal ? trouble(refusal) : empty(at("outcome").value ? "No decision came out so." : "No agent has decided anything yet."),
      );
    const rows = this.lines.map((each) => ({
      cells: [
        timeOf(each.decided_at),
        element("span", "", capital(each.agent), element("span", "note beneath", `${each.symbol} ${each.timeframe}, ${each.strategy}`)),
        element("span", "", badge(capital(each.outcome), TONES[each.outcome] ?? ""), element("span", "note beneath", `${capital(each.action.toLowerCase())}, ${writeShare(each.confidence, 0)}`)),
        each.reason,
      ],
    }));
    const heads = [{ name: "Decided" }, { name: "Agent" }, { name: "Outcome" }, { name: "Why", kind: "why" }];
    renew(at("decisions-list"), keyed("decisions", tableOf("Recent decisions, newest first", heads, rows)));
  }
}
