"""The chat's page without a notebook: turns of the real copilot to draw, and a link that tests speak through."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models.function import AgentInfo, FunctionModel

from orbiquant.copilot.assembly import copilot_of
from orbiquant.copilot.face_source import face_source, face_style
from orbiquant.copilot.loop import Copilot, TicketDecision
from orbiquant.core import ConflictError, FixedClock, configure_logging
from orbiquant.domain import Caller, SeriesId
from orbiquant.market.synthetic import synthetic_market
from orbiquant.runtime import Runtime, using
from orbiquant.settings import load_settings
from tests.tools.browser import Witness

ANA = Caller("key:ana", "ana", "pro", frozenset({"read", "write", "trade"}))
STATE = {
    "conversation": "talk", "busy": False, "provider": "router", "why": "no model is here", "model": "rules",
    "plan": "pro", "context": {"used": 1240, "room": 8192}, "language": "en", "frames": ["prices"],
}  # fmt: skip
RICH = """## What the table says

The last close is **1.0832**, *above* its mean. See [the rules](https://example.com/rules).

| month | trades | net, R |
|---|---:|---:|
| January | 12 | +1.40 |
| February | 9 | −0.35 |

```python
prices["close"].rolling(20).mean()
```

1. Wait for the close
2. Then look again, with `prices.tail()`
"""
HTML = """<!doctype html><html lang="en" data-theme="{theme}"><head><meta charset="utf-8"><title>chat</title>
<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,"><style>{style}
body {{ margin: 0; padding: 12px; background: {paper}; }}</style></head><body><div id="chat"></div></body></html>"""
LINK = """() => {
  const callbacks = new Set();
  window.sent = [];
  window.link = {
    listen(callback) { callbacks.add(callback); return () => callbacks.delete(callback); },
    send(told) { window.sent.push(told); },
    saved: () => window.snapshot,
  };
  window.tell = (told) => callbacks.forEach((each) => each(told));
  window.listeners = () => callbacks.size;
}"""
MOUNT = """async (source) => {
  window.face ??= await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
  window.leave = window.face.mountChat(document.getElementById("chat"), window.link);
}"""


class Recorded:
    """Turns of the real copilot, and what a page is told of its conversation after them."""

    def __init__(self, folder: Path) -> None:
        configure_logging("ERROR")
        bars = synthetic_market(400, "1h", seed=11).bars
        places = {"store_uri": f"{folder}/store", "models_dir": f"{folder}/models", "data_dir": str(folder)}
        settings = load_settings(
            workspace=places | {"database_url": f"sqlite:///{folder}/o.db"}, llm={"provider": "router"}
        )
        clock = FixedClock((bars.index[-1] + timedelta(hours=1, seconds=5)).to_pydatetime())
        self.runtime, self.frames = Runtime(settings, clock), {"prices": bars}
        self.runtime.store.upsert(SeriesId.parse("EURUSD", "1h"), bars)
        self.price = float(bars["close"].iloc[-1])
        self.turns: dict[str, list[dict[str, Any]]] = {}
        with using(self.runtime):
            self.copilot = copilot_of(self.runtime)
            asyncio.run(self._talk())
        self.runtime.engine.dispose()

    def order(self, action: str, size: float = 0.1) -> str:
        """Return an order in words."""
        sign = 1 if action == "buy" else -1
        stop, target = round(self.price * (1 - sign * 0.02), 5), round(self.price * (1 + sign * 0.06), 5)
        return f"{action} {size} lots of EURUSD with stop {stop} and target {target}"

    async def _said(self, name: str, message: str, copilot: Copilot | None = None) -> None:
        turn = (copilot or self.copilot).stream(ANA, "talk", message, self.frames)
        self.turns[name] = [event async for event in turn]

    async def _decided(self, name: str, asked: str, **decision: Any) -> None:
        ticket = self.ticket(asked)["id"]
        turn = self.copilot.decide(ANA, "talk", {ticket: TicketDecision(**decision)})
        self.turns[name] = [event async for event in turn]

    async def _talk(self) -> None:
        async def speak(_: list[ModelMessage], __: AgentInfo) -> AsyncIterator[str]:
            for each in RICH.splitlines(keepends=True):
                yield each

        rich = Copilot(self.runtime, FunctionModel(stream_function=speak), self.copilot.stores)
        await self._said("price", "what is the price of EURUSD?")
        await self._said("indicators", "RSI of EURUSD")
        await self._said("chart", "draw the column close of the table prices")
        await self._said("rich", "what does the table say?", rich)
        await self._said("buy", self.order("buy"))
        try:
            await self._decided("-", "buy", approved=True)
        except ConflictError as error:
            self.override_said = error.message
        await self._decided("bought", "buy", approved=True, override=True)
        await self._said("sell", self.order("sell"))
        await self._decided("not sold", "sell", approved=False)
        await self._said("late", self.order("sell"))
        await self._said("void", "RSI of EURUSD")
        await self._said("huge", self.order("buy", 10))
        await self._decided("refused", "huge", approved=True, override=True)
        self.messages = await self.copilot.messages(ANA, "talk")

    def ticket(self, name: str) -> dict[str, Any]:
        """Return the last ticket that a turn showed."""
        return [each["data"] for each in self.turns[name] if each["type"] == "data-ticket"][-1]

    @property
    def tickets(self) -> list[dict[str, Any]]:
        """Return all tickets as they stand at the end."""
        shown = [e["data"] for turn in self.turns.values() for e in turn if e["type"] == "data-ticket"]
        return [*{each["id"]: each for each in shown}.values()]


class ChatPage:
    """The chat in a bare page, spoken to as a kernel would."""

    def __init__(self, browser: Browser, width: int = 1100, theme: str = "light", mount: bool = True) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900})
        self.page.set_default_timeout(10_000)
        self.witness, self.runs = Witness(self.page), 0
        paper = {"light": "#fff", "dark": "#0d1115"}[theme]
        self.page.set_content(HTML.format(theme=theme, style=face_style(), paper=paper))
        self.page.evaluate(LINK)
        if mount:
            self.mount()
            self.reset()

    def mount(self) -> None:
        """Draw a chat."""
        self.page.evaluate(MOUNT, face_source())

    def tell(self, kind: str, **told: Any) -> None:
        """Tell the page something."""
        self.page.evaluate("told => window.tell(told)", {"kind": kind, **told})

    def reset(self, messages: Any = (), tickets: Any = (), state: dict[str, Any] | None = None, **told: Any) -> None:
        """Tell the page all there is."""
        whole = {"run": None, "said": None, "events": [], "messages": [*messages], "tickets": [*tickets]} | told
        self.tell("reset", state=STATE | (state or {}), **whole)

    def turn(self, said: str | None, events: list[dict[str, Any]]) -> str:
        """Tell the page of a turn, and return its id."""
        self.runs += 1
        run = f"run-{self.runs}"
        self.tell("begin", run=run, said=said)
        self.tell("events", run=run, first=1, events=events)
        return run

    def speak(self, text: str, said: str | None = "?") -> str:
        """Tell the page of a turn that says something."""
        told = [{"type": "text-start", "id": "t"}, {"type": "text-delta", "id": "t", "delta": text}]
        return self.turn(said, [{"type": "start"}, *told, {"type": "text-end", "id": "t"}, {"type": "done"}])

    def sent(self, kind: str) -> list[dict[str, Any]]:
        """Return what the page has sent of a kind."""
        return [each for each in self.page.evaluate("() => window.sent") if each["kind"] == kind]

    def at(self, selector: str, **filters: Any) -> Locator:
        """Return what a selector finds."""
        return self.page.locator(selector, **filters)
