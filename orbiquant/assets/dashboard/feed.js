// A stream of events over a WebSocket that is taken up again where it broke off.
//
// The server says `hello` with its epoch and the number of its last event, then events with higher numbers; those between
// are of other markets. After a break the page tells epoch and number, and gets what it missed; where that is gone the
// server says `gap`, and everything is asked for anew.

const WAITS_S = [1, 2, 4, 8, 15, 30, 60];
const FINAL = ["UNAUTHORIZED", "FORBIDDEN", "PLAN_REQUIRED"]; // nothing changes by asking again
const SETTLED_MS = 5_000; // a line that held for so long was one

export class Feed {
  constructor(address, { heard, missed, changed }) {
    Object.assign(this, { address, heard, missed, changed, epoch: null, seq: null, tries: 0, live: false, ended: false, fault: "" });
    this.open();
  }

  open() {
    const place = new URL(this.address());
    if (this.epoch !== null) {
      place.searchParams.set("epoch", this.epoch);
      place.searchParams.set("since", this.seq);
    }
    const socket = new WebSocket(place);
    this.socket = socket;
    socket.addEventListener("message", ({ data }) => socket === this.socket && this.hear(data));
    socket.addEventListener("close", () => socket === this.socket && this.lost());
  }

  hear(data) {
    let told;
    try {
      told = JSON.parse(data);
    } catch {
      return;
    }
    if (told.type === "hello") {
      const other = this.epoch !== null && told.epoch !== this.epoch;
      if (this.epoch === null || other) this.seq = told.seq;
      this.epoch = told.epoch;
      this.mark(true);
      this.settled = setTimeout(() => (this.tries = 0), SETTLED_MS);
      if (other) this.missed();
    } else if (told.type === "error") {
      this.fault = told.error ?? "";
    } else if (told.type === "gap") {
      this.seq = told.to ?? this.seq;
      this.missed();
    } else if (typeof told.seq === "number") {
      if (told.seq <= this.seq) return; // twice
      this.seq = told.seq;
      this.heard(told);
    }
  }

  lost() {
    clearTimeout(this.settled);
    this.mark(false);
    if (this.ended || FINAL.includes(this.fault)) return;
    const wait_s = WAITS_S[Math.min(this.tries, WAITS_S.length - 1)];
    this.tries += 1;
    this.again = setTimeout(() => this.open(), 1000 * wait_s * (0.75 + Math.random() / 2));
  }

  mark(live) {
    if (live === this.live) return;
    this.live = live;
    this.changed();
  }

  end() {
    this.ended = true;
    clearTimeout(this.again);
    clearTimeout(this.settled);
    const { socket } = this;
    this.socket = null;
    socket.close();
    this.live = false;
  }
}
