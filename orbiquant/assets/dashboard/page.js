// The live dashboard. The key comes in the address and stays in this tab, as on the chat's page beside it.
import { Agents } from "./agents.js";
import { Alerts } from "./alerts.js";
import { Decisions, Positions } from "./books.js";
import { ask, field } from "./dialogs.js";
import { element, pushButton } from "./dom.js";
import { Feed } from "./feed.js";
import { capital, renew, timeOf } from "./format.js";
import { HealthPanel } from "./health.js";
import { Market } from "./market.js";
import { Rounds, Service } from "./service.js";

const KEY = "orbiquant-key";
const THEME = "orbiquant-theme";
const POLL_S = 15;
const [FAST_S, SLOW_S, SERIES_S] = [15, 60, 300];
const CHAT_MS = 1_500; // that the market and the agents have for themselves
const CLOSED_MS = 2_000; // after a bar began, until what follows from it is asked for

const at = (id) => document.getElementById(id);
const base = new URL(".", location.href).href.replace(/\/$/, "");

// --- the key ---

for (const place of [location.hash.slice(1), location.search]) {
  const token = new URLSearchParams(place).get("token");
  if (token) sessionStorage.setItem(KEY, token);
}
if (/[#&?]token=/.test(location.hash + location.search)) history.replaceState(null, "", location.pathname); // no key in the history, nor in what is copied
addEventListener("hashchange", () => location.hash.includes("token=") && location.reload());
const keyOf = () => sessionStorage.getItem(KEY);

// --- what is asked, and how often ---

const service = new Service(base, keyOf);
const rounds = new Rounds(service);
let me = null;
let unread = null; // why a key that is known may not even say whose it is
let feeds = [];
let wasOffline = false;

const may = (scope) => (me ? me.scopes.includes(scope) : null); // null: nobody knows yet
const told = (text) => (at("said").textContent = text);
const live = () => feeds.length > 0 && feeds[0].live;
const acted = () => rounds.soon("agents", "positions", "figures");
const ahead = () => setTimeout(() => rounds.soon("market", "decisions", "positions"), CLOSED_MS);

const market = new Market(service, { changed: () => (listen(), alerts.show(), rounds.soon("market")), told, ahead });
const agents = new Agents(service, { may, acted, told });
const positions = new Positions(service, agents, (symbol) => market.decimalsOf(symbol));
const decisions = new Decisions(service, agents, (lines) => market.hearDecisions(lines));
const alerts = new Alerts(service, market, { may, told });
const health = new HealthPanel(service);

rounds.add("me", () => SERIES_S, async () => {
  try {
    me = await service.ask("/api/v1/me");
    unread = null;
  } catch (refusal) {
    unread = refusal.status === 403 ? refusal : null;
  }
  showWho();
  showConnection();
});
rounds.add("series", () => (market.lines.length ? SERIES_S : POLL_S), () => market.list());
rounds.add("market", () => SLOW_S, () => market.load());
rounds.add("bars", () => POLL_S, async () => {
  if (!live() && (await market.look())) ahead();
});
rounds.add("agents", () => FAST_S, async () => {
  const { begun: { length: before }, known } = agents;
  await agents.load();
  if (!known) decisions.show();
  if (agents.begun.length !== before) rounds.soon("positions", "figures", "decisions");
});
rounds.add("alerts", () => 2 * FAST_S, () => alerts.load());
rounds.add("health", () => 2 * FAST_S, () => health.load());
rounds.add("positions", () => 2 * FAST_S, () => positions.load());
rounds.add("decisions", () => SLOW_S, () => decisions.load());
rounds.add("figures", () => 2 * SLOW_S, () => agents.loadFigures());

function listen() {
  feeds.forEach((each) => each.end());
  feeds = [];
  if (!market.line) return;
  const { symbol, timeframe } = market.line;
  const open = (stream, heard) =>
    new Feed(
      () => {
        const place = new URL(`${base.replace(/^http/, "ws")}/ws/${stream}`);
        place.search = new URLSearchParams({ ...(keyOf() && { token: keyOf() }), symbols: symbol, timeframe });
        return place;
      },
      {
        heard: (event) => event.symbol === symbol && event.timeframe === timeframe && heard(event),
        missed: () => rounds.soon("market"),
        changed: showConnection,
      },
    );
  feeds = [
    open("market", ({ bar }) => bar && market.hearBar(bar)),
    ...(market.line.has_model ? [open("signals", ({ signal }) => signal && market.hearSignal(signal))] : []),
  ];
}

// --- what the page says of itself ---

function showWho() {
  at("who").textContent = me ? `${me.user_id}, plan ${me.plan}` : "";
  agents.show();
  alerts.show();
}

function showConnection() {
  const state = service.signedOut
    ? ["gone", "Not signed in"]
    : service.offlineSince
      ? ["gone", "Offline since ", timeOf(service.offlineSince)]
      : service.held
        ? ["connecting", "Too many requests: waits until ", timeOf(service.heldUntil)]
        : live()
          ? ["live", "Live"]
          : unread
            ? ["gone", "This key may not read"]
            : me
            ? ["polling", `Polling every ${POLL_S} s`]
            : ["connecting", "Connecting…"];
  const [way, ...words] = state;
  const place = at("connection");
  const text = words.map((each) => each.textContent ?? each).join("");
  document.documentElement.dataset.reach = way;
  if (place.textContent === text && place.dataset.way === way) return;
  place.dataset.way = way;
  renew(place, element("span", "", ...words));
  if (service.offlineSince) {
    renew(at("notices"), element("p", "notice bad", "The service does not answer. What you see is from before ", timeOf(service.offlineSince), "; it is asked again every few seconds. To stop the agents meanwhile, on the machine they run on: ", element("code", "", "orbiquant kill --all --why …")));
  } else if (service.signedOut) {
    const sign = pushButton("main", "Sign in…", signIn);
    renew(at("notices"), element("p", "notice warn", "This page has no key that the service accepts. Open the address that ", element("code", "", "orbiquant serve"), " printed, or ", sign));
  } else if (unread) renew(at("notices"), element("p", "notice warn", `${capital(unread.message)}. `, pushButton("main", "Sign in with another…", signIn)));
  else renew(at("notices"));
  if (wasOffline && !service.offlineSince) {
    told("The service answers again");
    rounds.soon("health", "market", "agents", "positions", "decisions", "alerts");
  }
  if (service.offlineSince && !wasOffline) {
    told("The service does not answer");
    health.gone();
  }
  wasOffline = Boolean(service.offlineSince);
}
service.changed = showConnection;

function signIn() {
  const act = async ({ key }) => {
    const before = keyOf();
    sessionStorage.setItem(KEY, key.trim());
    try {
      me = await service.ask("/api/v1/me");
    } catch (refusal) {
      if (before) sessionStorage.setItem(KEY, before);
      else sessionStorage.removeItem(KEY);
      throw refusal;
    }
    location.reload();
  };
  ask({
    title: "Sign in",
    text: "An API key, or the token of the console. It stays in this tab.",
    fields: [field("Key", "key", { kind: "password", required: true, autocomplete: "off" })],
    confirm: "Sign in",
    act,
  });
}

at("docs").addEventListener("click", (event) => {
  event.preventDefault();
  location.assign(keyOf() ? `docs?token=${encodeURIComponent(keyOf())}` : "docs");
});

// --- light and dark ---

function paint(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  market.paint();
}
at("theme").value = sessionStorage.getItem(THEME) ?? "";
at("theme").addEventListener("change", ({ target }) => {
  sessionStorage.setItem(THEME, target.value);
  paint(target.value);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => market.paint());
paint(at("theme").value);

// --- the chat, as soon as somebody comes near it ---

let tries = 0; // a module that failed is kept as failed under its name

async function openChat() {
  const room = at("chat-room");
  try {
    const { httpLink, mountChat } = await import(`../chat/face.js#${tries}`);
    const headers = () => (keyOf() ? { Authorization: `Bearer ${keyOf()}` } : {});
    renew(room);
    mountChat(room, httpLink({ base, conversation: sessionStorage.getItem("orbiquant-conversation") ?? "web", headers }));
  } catch {
    tries += 1;
    renew(room, element("p", "empty trouble", "The chat could not be loaded. "), pushButton("", "Try again", openChat));
  }
}
const near = new IntersectionObserver(
  (seen) => {
    if (!seen.some((each) => each.isIntersecting)) return;
    near.disconnect();
    openChat();
  },
  { rootMargin: "300px" },
);
setTimeout(() => near.observe(at("chat")), CHAT_MS);

rounds.begin();
setInterval(showConnection, 1000);
