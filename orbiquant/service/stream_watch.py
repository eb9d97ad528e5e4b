"""Notices bars that have closed in the store, whoever wrote them, and tells of each once: the bar, and its signal."""

# To look costs a look at one file while nothing was written. What was told last of each series is the relay's to know,
# so that a process which takes over goes on where another stopped.

import asyncio
from datetime import datetime, timedelta
from typing import NamedTuple

import pandas as pd

from orbiquant.core import NotFoundError, get_logger
from orbiquant.desk.market import Bar
from orbiquant.desk.series import has_model, live_of
from orbiquant.desk.signals import for_agents, latest_of
from orbiquant.domain import Bars, SeriesId
from orbiquant.leases import claim_lease, own_name, release_lease
from orbiquant.market.bars import known_at
from orbiquant.market.calendars import to_utc
from orbiquant.research.live import store_state
from orbiquant.runtime import Runtime
from orbiquant.service.stream_relay import Relay
from orbiquant.wire import to_wire

LOOK_EVERY_S, ASK_EVERY_S = 0.1, 2.0  # at a folder; at object storage, which has to be asked
MOST_NEW_BARS = 500  # bars of a series that are told after one look; of more, the newest
STREAM_LEASE, STREAM_LEASE_S = "streams", 15.0
LOOK_AGAIN_S = 2.0  # after a failure
_TICK = timedelta(microseconds=1)


class NewBars(NamedTuple):
    "What closed since the last look."

    series: SeriesId
    bars: Bars


def bar_bodies(
    new: NewBars,  # what closed
) -> list[tuple[datetime, str]]:
    "Return when each bar opened, and what is told of it."
    named = {"symbol": new.series.symbol, "timeframe": new.series.timeframe}
    records = new.bars.reset_index().to_dict("records")
    bars = [Bar.model_validate(each) for each in records]
    return [(bar.time, to_wire(named | {"bar": bar}).decode()) for bar in bars]


class ClosedBars:
    "What has closed in a store since it was looked at last."

    def __init__(
        self,
        runtime: Runtime,  # store, clock
    ) -> None:
        self.runtime = runtime
        self.told: dict[SeriesId, datetime] = {}  # the last bar of each that was told
        self._seen: tuple[int, int] | None = None
        self._next: pd.Timestamp | None = None  # when the next bar that is stored already closes

    def forget(self) -> None:
        "Look at everything again the next time."
        self._seen = None

    def unknown(self) -> dict[SeriesId, datetime]:
        "Return the series that nothing is known of, each with the last of its bars that has closed by now."
        now = to_utc(self.runtime.clock.now())
        lines = [held for held in live_of(self.runtime).series() if held.series not in self.told]
        return {held.series: min(to_utc(held.last), now - held.series.timeframe.delta) for held in lines}

    def look(self) -> list[NewBars]:
        "Return what has closed since it was told, by series."
        runtime, now = self.runtime, to_utc(self.runtime.clock.now())
        state = store_state(runtime.store)
        if state == self._seen and (self._next is None or now < self._next):
            return []
        found, closes = list[NewBars](), list[pd.Timestamp]()
        for held in live_of(runtime).series():
            told = self.told.get(held.series)
            if told is None or held.last <= told:
                continue
            try:
                bars = runtime.store.read(held.series, start=to_utc(told) + _TICK)
            except NotFoundError:  # removed meanwhile
                continue
            known = known_at(bars, held.series.timeframe)
            closes += [*known[known > now][:1]]
            if (known <= now).any():
                found.append(NewBars(held.series, bars[known <= now].iloc[-MOST_NEW_BARS:]))
        self._seen, self._next = state, min(closes, default=None)
        return found


def newest_signal(
    runtime: Runtime,  # registry, store
    series: SeriesId,  # which bars
) -> tuple[datetime, str] | None:
    "Return the bar of a series' newest signal and what is told of it, None where there is no model."
    if not has_model(runtime, series):
        return None
    signal = for_agents(latest_of(runtime, series.symbol, series.timeframe))
    named = {"symbol": series.symbol, "timeframe": series.timeframe}
    return signal.time, to_wire(named | {"signal": signal.model_dump(mode="json")}).decode()


class StreamWatcher:
    "Looks at the store and publishes what closed: in one process where several share a relay."

    def __init__(
        self,
        runtime: Runtime,  # store, registry, database
        bars: Relay,  # takes bars
        signals: Relay,  # takes signals
        shared: bool,  # other processes may publish, too
    ) -> None:
        self.runtime, self.bars, self.signals, self.shared = runtime, bars, signals, shared
        self.closed = ClosedBars(runtime)
        self.looked = asyncio.Event()  # what closes from now on is told
        self._until = 0.0  # the lease is held, by the loop's clock
        self._due = dict[SeriesId, None]()  # whose signal is to be told, in order
        self._news = asyncio.Event()

    async def run(self) -> None:
        "Publish for as long as the service runs."
        remote, quiet = "://" in self.runtime.settings.workspace.store_uri, False
        try:
            while True:
                try:
                    if await self._may_publish():
                        await self._look()
                        quiet = False
                    await asyncio.sleep(ASK_EVERY_S if remote else LOOK_EVERY_S)
                except Exception as error:
                    if not quiet:
                        get_logger("streams").warning("the store was not looked at", reason=repr(error)[:300])
                    quiet = True
                    self.closed.forget()
                    await asyncio.sleep(LOOK_AGAIN_S)
        finally:
            if self.shared and self._until:
                await asyncio.shield(asyncio.to_thread(release_lease, self.runtime.engine, STREAM_LEASE, own_name()))

    async def _may_publish(self) -> bool:
        now = asyncio.get_running_loop().time()
        if not self.shared or now < self._until - 2 * STREAM_LEASE_S / 3:
            return True
        runtime, length = self.runtime, timedelta(seconds=STREAM_LEASE_S)
        other = await asyncio.to_thread(claim_lease, runtime.engine, STREAM_LEASE, own_name(), length, runtime.clock)
        if other is not None:
            self._until = 0.0
            self.looked.set()
            await asyncio.sleep(LOOK_EVERY_S * 10)
            return False
        if not self._until:  # others have told meanwhile
            self.closed.told.clear()
            self.closed.forget()
        self._until = now + STREAM_LEASE_S
        return True

    async def _look(self) -> None:
        unknown = await asyncio.to_thread(self.closed.unknown)
        first = not self.closed.told
        for series, last in unknown.items():
            begun = last if first else last - _TICK  # one that is new is told of with its newest bar
            told, said = await self.bars.begin(series, begun), await self.signals.begin(series, begun)
            self.closed.told[series] = told
            if said < told:  # whoever told of the bar has ended before it told of the signal
                self._due[series] = None
        for new in await asyncio.to_thread(self.closed.look):
            for time, body in bar_bodies(new):
                await self.bars.publish("bar", new.series, time, body)
            self.closed.told[new.series] = to_utc(new.bars.index[-1])
            self._due[new.series] = None
        if self._due:
            self._news.set()
        self.looked.set()

    async def tell_signals(self) -> None:
        "Tell the signals of what has closed: beside the bars, which do not wait for a model."
        while True:
            await self._news.wait()
            self._news.clear()
            while self._due:
                series = next(iter(self._due))
                del self._due[series]
                try:
                    newest = await asyncio.to_thread(newest_signal, self.runtime, series)
                    if newest is not None:
                        await self.signals.publish("signal", series, *newest)
                except Exception as error:
                    get_logger("streams").warning(
                        "no signal of a new bar", series=str(series), reason=repr(error)[:300]
                    )
