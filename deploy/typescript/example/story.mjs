// An account is opened, its product's agent runs, a signed signal comes, and a position stands.
//   ORBIQUANT_URL=http://127.0.0.1:8003 ORBIQUANT_KEY=oq_… ORBIQUANT_SECRET=… node example/story.mjs BTCUSDT 64000
import { OrbiQuantClient, OrbiQuantError } from "../dist/index.js";

const { ORBIQUANT_URL, ORBIQUANT_KEY, ORBIQUANT_SECRET } = process.env;
const [symbol, price] = process.argv.slice(2);
const orbiquant = new OrbiQuantClient({ baseUrl: ORBIQUANT_URL, apiKey: ORBIQUANT_KEY, signalSecret: ORBIQUANT_SECRET });

const opened = await orbiquant.api.POST("/investment/accounts", {
  body: { product_id: "atlas-conservative", initial_deposit: "10000" },
});
if (opened.error) throw new Error(opened.error.message);

async function until(ask, holds, withinMs = 240_000) {
  const end = Date.now() + withinMs;
  for (;;) {
    const found = await ask();
    if (holds(found)) return found;
    if (Date.now() > end) throw new Error(`did not happen in time: ${JSON.stringify(found)}`);
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

const health = await until(() => orbiquant.healthCheck(), (seen) => seen.status === "healthy");
const status = await until(() => orbiquant.getAgentStatus("atlas"), (seen) => seen.status === "running" && seen.equity > 0);
const signal = { symbol, action: "buy", confidence: 0.85, price: Number(price), timestamp: new Date().toISOString() };
const received = await orbiquant.sendSignal(signal);
const held = await until(() => orbiquant.getPositions("atlas"), (seen) => seen.total_positions > 0);
const metrics = await orbiquant.getAgentMetrics("atlas");
const paused = await orbiquant.pauseAgent("atlas");
const refused = await orbiquant.getAgentStatus("nobody").catch((error) => error);
console.log(
  JSON.stringify({
    health: health.status,
    account: opened.data.status,
    agent: status.status,
    received: received.status,
    position: held.positions[0],
    trades: metrics.total_trades,
    paused: paused.status,
    resumed: (await orbiquant.resumeAgent("atlas")).status,
    refused: refused instanceof OrbiQuantError && [refused.status, refused.code],
  }),
);
