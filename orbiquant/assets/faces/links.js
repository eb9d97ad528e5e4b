// Where events come from: a kernel beside the page, or the service over HTTP. Both speak the same words.

const SAVED = "snapshot";

const LOOK_MS = 1_000;

const AGAIN_MS = 500; // and twice as long each time

// JupyterLab tells a page of a restart, and not of a kernel that was shut down: whoever manages its widgets knows.
function isGone(model) {
  const { kernel } = model.widget_manager ?? {};
  return kernel === null || Boolean(kernel?.isDisposed) || kernel?.status === "dead";
}

// A link to the kernel, by the model of a widget. What is said before the kernel has a subshell waits for its cells to
// end: a hello is said again until something is heard.
export function kernelLink(model) {
  let asking = 0;
  const greet = (milliseconds) => {
    if (isGone(model)) return;
    model.send({ kind: "hello" });
    asking = setTimeout(greet, milliseconds, 2 * milliseconds);
  };
  return {
    listen(callback) {
      let gone = false;
      const heard = (told) => {
        clearTimeout(asking);
        callback(told);
      };
      const changed = () => callback({ kind: "connection", changed: true });
      const look = () => {
        if (isGone(model) === gone) return;
        gone = !gone;
        if (gone) callback({ kind: "state", state: { disconnected: true } });
        else changed();
      };
      const looking = setInterval(look, LOOK_MS);
      model.on("msg:custom", heard);
      model.on("comm_live_update", changed);
      return () => {
        clearInterval(looking);
        clearTimeout(asking);
        model.off("msg:custom", heard);
        model.off("comm_live_update", changed);
      };
    },
    send(told) {
      if (isGone(model)) throw new Error("the kernel is gone");
      if (told.kind !== "hello") return model.send(told);
      clearTimeout(asking);
      return greet(AGAIN_MS);
    },
    saved: () => model.get(SAVED),
  };
}

const WAITS_MS = [300, 700, 1_500, 3_000, 6_000, 10_000, 10_000, 10_000];
const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

function freshName() {
  return `chat-${[...crypto.getRandomValues(new Uint8Array(12))].map((each) => each.toString(16).padStart(2, "0")).join("")}`;
}

// The messages of an event stream, each with its id and data.
async function* readStream(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      held = (held + value).replace(/\r\n?/g, "\n");
      const whole = held.split("\n\n");
      held = whole.pop();
      for (const each of whole) {
        const lines = each.split("\n");
        const of = (name) =>
          lines
            .filter((line) => line.startsWith(`${name}:`))
            .map((line) => line.slice(name.length + 1).replace(/^ /, ""))
            .join("\n");
        if (of("data")) yield { id: of("id"), data: of("data") };
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

class HttpLink {
  constructor({ base = "", conversation = "web", headers = {} }) {
    this.base = base.replace(/\/$/, "");
    this.conversation = conversation;
    this.headers = headers;
    this.callbacks = new Set();
    this.state = { busy: false };
    this.following = null; // ends the stream that is read
  }

  tell(told) {
    this.callbacks.forEach((each) => each(told));
  }

  show(changes) {
    this.state = { ...this.state, ...changes, conversation: this.conversation };
    this.tell({ kind: "state", state: this.state });
  }

  get place() {
    return `/api/v1/chat/${encodeURIComponent(this.conversation)}`;
  }

  ask(path, options = {}) {
    const headers = { ...(typeof this.headers === "function" ? this.headers() : this.headers), ...options.headers };
    if (options.body) headers["content-type"] = "application/json";
    return fetch(this.base + path, { ...options, headers, credentials: "same-origin" });
  }

  async refused(response, asked = {}) {
    const told = await response.json().catch(() => ({}));
    const tickets = asked.decisions && Object.keys(asked.decisions);
    this.tell({
      kind: "error",
      status: response.status,
      code: told.error,
      reasons: told.details?.reasons,
      text: typeof told.message === "string" ? told.message : "",
      said: asked.message,
      tickets,
    });
  }

  // over: a run of which nothing is to be had, not even from its beginning.
  async hello(over = null) {
    this.following?.abort();
    const response = await this.ask(this.place);
    if (!response.ok) return this.refused(response);
    const told = await response.json();
    const run = told.run && told.run !== over ? told.run : null;
    this.state = { ...this.state, ...told.state, busy: Boolean(run), conversation: this.conversation };
    this.tell({
      kind: "reset",
      state: this.state,
      messages: told.messages ?? [],
      tickets: told.tickets ?? [],
      run,
      said: run && (told.said ?? null),
      events: [],
    });
    if (run) await this.resume({ run, number: 0 });
  }

  // A turn that begins with a request of ours.
  async turn(path, body) {
    const ending = new AbortController();
    const response = await this.ask(path, {
      method: "POST",
      body: JSON.stringify({ ...body, conversation_id: this.conversation, stream: true }),
      signal: ending.signal,
    });
    if (!response.ok) return this.refused(response, body); // and a turn that is read is read on
    this.watch(ending);
    const seen = { run: null, number: 0, said: body.message };
    if (!(await this.follow(response, seen))) await this.resume(seen);
  }

  watch(ending = new AbortController()) {
    this.following?.abort();
    this.following = ending;
    return ending;
  }

  // Read a stream to its end; false where it was cut before.
  async follow(response, seen) {
    try {
      for await (const { id, data } of readStream(response.body)) {
        const [, run, number] = /^(.+)-(\d+)$/.exec(id) ?? [
          null,
          seen.run ?? `here-${freshName()}`,
          String(seen.number + 1),
        ];
        if (run !== seen.run) {
          Object.assign(seen, { run, number: Number(number) - 1 });
          this.tell({ kind: "begin", run, said: seen.said ?? null });
          this.show({ busy: true });
        }
        const event = data === "[DONE]" ? { type: "done" } : JSON.parse(data);
        this.tell({ kind: "events", run, first: Number(number), events: [event] });
        Object.assign(seen, { number: Number(number), resumable: Boolean(id) });
        if (event.type === "done") {
          this.show({ busy: false });
          this.refresh();
          return true;
        }
      }
    } catch (error) {
      if (error.name === "AbortError") return true;
    }
    return false;
  }

  // Go on after the last event that came, as soon as there is a network again.
  async resume(seen) {
    const ending = this.watch();
    for (const wait of WAITS_MS) {
      try {
        const headers = seen.number ? { "Last-Event-ID": `${seen.run}-${seen.number}` } : {};
        const response = await this.ask(`${this.place}/stream`, { headers, signal: ending.signal });
        // What came after an event is not known, or there is nothing more: the history has it.
        if ([204, 404, 410].includes(response.status)) return this.hello(seen.number ? null : seen.run);
        if (response.ok) {
          this.tell({ kind: "connection", lost: false });
          if (await this.follow(response, seen)) return;
        } else if (response.status < 500) return this.refused(response);
      } catch (error) {
        if (error.name === "AbortError") return;
      }
      this.tell({ kind: "connection", lost: true });
      await pause(wait);
      if (ending.signal.aborted) return;
    }
    this.tell({ kind: "connection", lost: true, given: true });
  }

  // What the model is, and how much of its context is used now.
  async refresh() {
    const response = await this.ask(this.place).catch(() => null);
    if (response?.ok) this.show({ ...(await response.json()).state, busy: this.state.busy });
  }

  async act(told) {
    if (told.kind === "hello") return this.hello();
    if (told.kind === "say") return this.turn("/api/v1/chat", { message: told.text });
    if (told.kind === "decide") return this.turn("/api/v1/chat/decisions", { decisions: told.decisions });
    if (told.kind === "stop") {
      const response = await this.ask(`${this.place}/stop`, { method: "POST" });
      return response.ok ? undefined : this.refused(response);
    }
    if (told.kind === "new") {
      this.following?.abort();
      this.conversation = freshName();
      return this.hello();
    }
  }
}

// A link to the service: headers hold the bearer token, as an object or a function that returns one.
export function httpLink(options) {
  const link = new HttpLink(options ?? {});
  return {
    served: true,
    listen(callback) {
      link.callbacks.add(callback);
      return () => {
        link.callbacks.delete(callback);
        if (!link.callbacks.size) link.following?.abort();
      };
    },
    send(told) {
      link.act(told).catch((error) => {
        if (error.name !== "AbortError") link.tell({ kind: "error", status: 0, text: "", said: told.text });
      });
    },
    get conversation() {
      return link.conversation;
    },
  };
}
