"""One numbered stream of events for many listeners: kept for who comes back, and never waiting for who is slow."""

# A number is given once and is never given again in the same epoch, so that a client which names the last number it saw
# gets all that came after it, or is told which numbers are no longer kept. Each listener has a queue of its own: one that
# does not read is let go of when its queue is full, and nobody else notices.

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from secrets import token_hex
from typing import NamedTuple

from orbiquant.domain import SeriesId
from orbiquant.wire import to_wire

STREAM_KEPT = 1_000  # of a stream, for clients that come back
QUEUED_EVENTS = 500  # that a client may be behind before it is let go


class StreamEvent(NamedTuple):
    "One event as it is sent."

    seq: int
    series: SeriesId
    text: str


def numbered_text(
    kind: str,  # "bar" or "signal"
    seq: int,  # its number
    body: str,  # the rest of it, a JSON object
) -> str:
    "Return an event as JSON: its body is encoded once, its number put before it."
    return f'{{"type":"{kind}","seq":{seq},{body[1:]}'


def message_text(
    kind: str,  # of the message
    **fields: object,  # of the message
) -> str:
    "Return a message that is no event."
    return to_wire({"type": kind} | fields).decode()


class StreamListener:
    "What one client waits for, and what waits for it."

    def __init__(
        self,
        most: int = QUEUED_EVENTS,  # that may wait
    ) -> None:
        self.series: set[SeriesId] = set()
        self.most, self.waiting = most, deque[str]()
        self.overflow = asyncio.Event()  # it was too slow
        self._news = asyncio.Event()

    def put(
        self,
        text: str,  # a message
    ) -> None:
        "Let a message wait, unless too many do."
        if len(self.waiting) >= self.most:
            self.overflow.set()
            return
        self.waiting.append(text)
        self._news.set()

    async def next(self) -> str:
        "Return the next message, when there is one."
        while not self.waiting:
            self._news.clear()
            await self._news.wait()
        return self.waiting.popleft()


class Hub:
    "A stream in this process: what it kept, and who listens."

    def __init__(
        self,
        name: str,  # "market" or "signals"
        most: int = STREAM_KEPT,  # events that are kept
    ) -> None:
        self.name, self.epoch, self.seq = name, token_hex(8), 0
        self.kept, self.listeners = deque[StreamEvent](maxlen=most), set[StreamListener]()

    def begin(
        self,
        epoch: str,  # of the numbers that follow
        seq: int,  # the last one that was given
        kept: Iterable[StreamEvent] = (),  # the last events, oldest first
    ) -> None:
        "Begin anew with what another process has counted; whoever listens is told that events are missing."
        known, self.epoch, self.seq = self.seq if epoch == self.epoch else 0, epoch, seq
        self.kept.clear()
        self.kept.extend(kept)
        for each in self.listeners:
            each.put(self._hello(seq))
            if known < seq:
                each.put(message_text("gap", **{"from": known + 1, "to": seq}))

    def add(
        self,
        event: StreamEvent,  # the next one, or a later one where some were lost
    ) -> None:
        "Keep an event, and pass it on to whoever waits for its series."
        if event.seq <= self.seq:
            return
        if event.seq > self.seq + 1:
            self.kept.clear()
            gap = message_text("gap", **{"from": self.seq + 1, "to": event.seq - 1})
            for each in self.listeners:
                each.put(gap)
        self.seq = event.seq
        self.kept.append(event)
        for each in self.listeners:
            if event.series in each.series:
                each.put(event.text)

    def join(
        self,
        listener: StreamListener,  # a new one, with its series
        epoch: str = "",  # that its number is of; empty: it has seen nothing
        since: int | None = None,  # the last number that it has seen
        answers: Sequence[str] = (),  # messages for it, after hello and before any event
    ) -> None:
        "Let a client listen from now on, or from where it was."
        known = since is not None and epoch == self.epoch and since <= self.seq
        begin = since if known and since is not None else self.seq
        listener.most += len(answers) + 2
        for text in (self._hello(begin), *answers):
            listener.put(text)
        if known:
            self._resume(listener, begin)
        elif since is not None and epoch and self.seq:
            listener.put(message_text("gap", **{"from": 1, "to": self.seq}))
        self.listeners.add(listener)

    def leave(
        self,
        listener: StreamListener,  # that is gone
    ) -> None:
        "Forget a client."
        self.listeners.discard(listener)

    def _resume(self, listener: StreamListener, since: int) -> None:
        oldest = self.kept[0].seq if self.kept else self.seq + 1
        missed = [event.text for event in self.kept if event.seq > since and event.series in listener.series]
        listener.most += len(missed)
        if since + 1 < oldest:
            listener.put(message_text("gap", **{"from": since + 1, "to": oldest - 1}))
        for text in missed:
            listener.put(text)

    def _hello(self, seq: int) -> str:
        return message_text("hello", stream=self.name, epoch=self.epoch, seq=seq)
