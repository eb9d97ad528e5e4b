// What the page asks of the service, and how often: gently, never while nobody looks, never sooner than it was told.

const WAIT_S = 30; // after a refusal that names no time
const PUBLIC = /\bhealth$/;
const NEAR = 5; // requests left in a window: the rest is left to whoever acts by hand

export class Refusal extends Error {
  constructor(status, code, message) {
    super(message);
    Object.assign(this, { status, code });
  }
}

// Seconds until the window of a limit ends, where a service tells it and little is left: `RateLimit: "x";r=3;t=20`, or
// the same in headers of their own.
function nearLimit(headers) {
  const whole = headers.get("RateLimit") ?? "";
  const part = (name) => /^\d+$/.test(name ?? "") ? Number(name) : null;
  const left = part(/(?:^|[;,\s])(?:r|remaining)=(\d+)/.exec(whole)?.[1] ?? headers.get("RateLimit-Remaining"));
  const ends = part(/(?:^|[;,\s])(?:t|reset)=(\d+)/.exec(whole)?.[1] ?? headers.get("RateLimit-Reset"));
  return left !== null && ends !== null && left < NEAR ? ends : 0;
}

export class Service {
  constructor(base, keyOf) {
    Object.assign(this, { base, keyOf, heldUntil: 0, offlineSince: null, signedOut: false, changed: () => {} });
  }

  get held() {
    return Date.now() < this.heldUntil;
  }

  hold(seconds) {
    this.heldUntil = Math.max(this.heldUntil, Date.now() + 1000 * seconds);
  }

  async ask(path, { method = "GET", body } = {}) {
    if (this.held && method === "GET") throw new Refusal(429, "HELD", "too many requests: it is asked again in a moment");
    const key = this.keyOf();
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    if (body) headers["Content-Type"] = "application/json";
    let response;
    try {
      response = await fetch(this.base + path, { method, headers, body: body && JSON.stringify(body) });
    } catch {
      this.offlineSince ??= new Date();
      this.changed();
      throw new Refusal(0, "OFFLINE", "the service does not answer");
    }
    this.offlineSince = null;
    const told = await response.json().catch(() => null);
    const near = nearLimit(response.headers);
    if (response.status === 429) this.hold(Number(response.headers.get("Retry-After")) || WAIT_S);
    else if (near) this.hold(near);
    if (response.status === 401) this.signedOut = true;
    else if (key && response.ok && !PUBLIC.test(path)) this.signedOut = false; // there a stranger is answered, too
    this.changed();
    if (response.ok) return told;
    const said = typeof told?.message === "string" ? told.message : `the service answered ${response.status}`;
    throw new Refusal(response.status, told?.error ?? "", said);
  }
}

// Questions that are asked again and again: each has its own pace, one at a time, and all rest while the page is hidden.
export class Rounds {
  constructor(service) {
    Object.assign(this, { service, tasks: new Map(), timer: null });
    document.addEventListener("visibilitychange", () => this.wake());
  }

  // every_s() may change as things go live.
  add(name, every_s, run) {
    this.tasks.set(name, { name, every_s, run, due: 0, busy: false });
  }

  soon(...names) {
    for (const name of names) if (this.tasks.has(name)) this.tasks.get(name).due = 0;
    this.wake();
  }

  begin() {
    clearInterval(this.timer);
    this.timer = setInterval(() => this.wake(), 1000);
    this.wake();
  }

  end() {
    clearInterval(this.timer);
    this.timer = null;
  }

  wake() {
    if (document.hidden || this.timer === null || this.service.held || this.service.signedOut) return;
    for (const task of this.tasks.values()) if (!task.busy && Date.now() >= task.due) this.turn(task);
  }

  async turn(task) {
    task.busy = true;
    task.due = Date.now() + 1000 * task.every_s();
    try {
      await task.run();
    } finally {
      task.busy = false;
    }
  }
}
