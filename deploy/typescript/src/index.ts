// A client of an OrbiQuant service: `api` has every route, typed from the service's own OpenAPI document; the methods have the
// names that systems already call. It runs in Node 20 and newer and in browsers: nothing but fetch and Web Crypto is needed.

import createClient, { type Client } from "openapi-fetch";
import type { components, paths } from "./schema.js";

export type { components, paths } from "./schema.js";
type Schemas = components["schemas"];
export type AgentStatus = Schemas["AgentStatus"];
export type AgentMetrics = Schemas["AgentMetrics"];
export type HeldPositions = Schemas["HeldPositions"];
export type Health = Schemas["Health"];
export type Received = Schemas["Received"];

/** A signal of another system, as `POST /webhooks/ml-signals` takes it. */
export interface MlSignal {
  symbol: string;
  action: "buy" | "sell" | "hold";
  /** 0 to 1. */
  confidence: number;
  /** In the quote currency. */
  price: number;
  /** A moment with its offset, such as `new Date().toISOString()`. */
  timestamp: string;
}

export interface Options {
  /** Where the service is, such as `http://127.0.0.1:8003`. */
  baseUrl: string;
  /** An API key or a signed token; sent as `Authorization: Bearer`. */
  apiKey?: string;
  /** What signals are signed with: `[webhooks] secret` of the service. */
  signalSecret?: string;
  /** Milliseconds that an answer may take; 30,000 where it is left out. */
  timeoutMs?: number;
  /** Another `fetch`, such as one behind a proxy. */
  fetch?: typeof globalThis.fetch;
}

/** What the service refused or could not do: switch on `code`, read `message`. */
export class OrbiQuantError extends Error {
  readonly status: number;
  readonly code: string;
  readonly details: Record<string, unknown>;
  /** Seconds after which to ask again; undefined where the service names none. */
  readonly retryAfterS: number | undefined;

  constructor(status: number, code: string, message: string, details: Record<string, unknown>, retryAfterS?: number) {
    super(message);
    this.name = "OrbiQuantError";
    [this.status, this.code, this.details, this.retryAfterS] = [status, code, details, retryAfterS];
  }
}

interface Answer<Data> {
  data?: Data;
  error?: unknown;
  response: Response;
}

function problemOf(response: Response, error: unknown): OrbiQuantError {
  const told = (typeof error === "object" && error !== null ? error : {}) as Record<string, unknown>;
  const code = typeof told["error"] === "string" ? told["error"] : `HTTP_${response.status}`;
  const message = typeof told["message"] === "string" ? told["message"] : response.statusText;
  const wait = response.headers.get("Retry-After");
  const details = (told["details"] ?? {}) as Record<string, unknown>;
  return new OrbiQuantError(response.status, code, message, details, wait === null ? undefined : Number(wait));
}

async function take<Data>(asked: Promise<Answer<Data>>): Promise<Data> {
  const { data, error, response } = await asked;
  if (!response.ok || data === undefined) throw problemOf(response, error);
  return data;
}

/** The hexadecimal HMAC-SHA256 of `timestamp.body`, as the service checks it. */
export async function signSignal(secret: string, timestamp: string, body: string): Promise<string> {
  const text = new TextEncoder();
  const hmac = { name: "HMAC", hash: "SHA-256" };
  const key = await crypto.subtle.importKey("raw", text.encode(secret), hmac, false, ["sign"]);
  const signed = await crypto.subtle.sign("HMAC", key, text.encode(`${timestamp}.${body}`));
  return Array.from(new Uint8Array(signed), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export class OrbiQuantClient {
  /** Every route of the service, typed. */
  readonly api: Client<paths>;
  readonly #options: Options;

  constructor(options: Options) {
    this.#options = options;
    const headers = options.apiKey === undefined ? {} : { Authorization: `Bearer ${options.apiKey}` };
    const ask = options.fetch ?? globalThis.fetch;
    this.api = createClient<paths>({
      baseUrl: options.baseUrl,
      headers,
      fetch: (request) => ask(request, { signal: AbortSignal.any([request.signal, this.#deadline()]) }),
    });
  }

  /** Let an agent trade; one that runs is left as it is. Needs the scope `operate`. */
  startAgent(name: string, initialEquity?: number): Promise<AgentStatus> {
    const body = initialEquity === undefined ? {} : { body: { initial_equity: initialEquity } };
    return take(this.api.POST("/agents/{name}/start", { params: { path: { name } }, ...body }));
  }

  /** Let an agent open nothing more for now. */
  pauseAgent(name: string): Promise<AgentStatus> {
    return take(this.api.POST("/agents/{name}/pause", { params: { path: { name } } }));
  }

  /** Let an agent that is paused or halted go on. */
  resumeAgent(name: string): Promise<AgentStatus> {
    return take(this.api.POST("/agents/{name}/resume", { params: { path: { name } } }));
  }

  stopAgent(name: string): Promise<AgentStatus> {
    return take(this.api.POST("/agents/{name}/stop", { params: { path: { name } } }));
  }

  getAgentStatus(name: string): Promise<AgentStatus> {
    return take(this.api.GET("/agents/{name}/status", { params: { path: { name } } }));
  }

  getAgentMetrics(name: string): Promise<AgentMetrics> {
    return take(this.api.GET("/agents/{name}/metrics", { params: { path: { name } } }));
  }

  getPositions(name: string): Promise<HeldPositions> {
    return take(this.api.GET("/agents/{name}/positions", { params: { path: { name } } }));
  }

  healthCheck(): Promise<Health> {
    return take(this.api.GET("/health"));
  }

  /** Sign a signal and send it; the very same one sent again is answered and acted on once. */
  async sendSignal(signal: MlSignal, agentName = "atlas"): Promise<Received> {
    const { baseUrl, signalSecret } = this.#options;
    if (!signalSecret) throw new TypeError("`signalSecret` must be set to send signals, was empty");
    const body = JSON.stringify({ agent_name: agentName, signal });
    const timestamp = String(Math.floor(Date.now() / 1000));
    const headers = {
      "Content-Type": "application/json",
      "X-ML-Timestamp": timestamp,
      "X-ML-Signature": await signSignal(signalSecret, timestamp, body),
    };
    const ask = this.#options.fetch ?? globalThis.fetch; // the bytes that were signed are the bytes that are sent
    const address = `${baseUrl.replace(/\/+$/, "")}/webhooks/ml-signals`;
    const response = await ask(address, { method: "POST", headers, body, signal: this.#deadline() });
    const told: unknown = await response.json().catch(() => undefined);
    if (!response.ok) throw problemOf(response, told);
    return told as Received;
  }

  #deadline(): AbortSignal {
    return AbortSignal.timeout(this.#options.timeoutMs ?? 30_000);
  }
}
