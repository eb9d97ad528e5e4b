"""A workspace in which an agent has traded for some days of a made market, and a person has thrown a switch."""

from datetime import timedelta
from decimal import Decimal

from orbiquant.core import FixedClock
from orbiquant.domain import SeriesId
from orbiquant.market.synthetic import synthetic_market
from orbiquant.research.live import Live
from orbiquant.research.room import TradingRoom, start_agent
from orbiquant.runtime import Runtime
from orbiquant.settings import load_settings
from orbiquant.trading.kills import SwitchScope

FIRST, HOURS, SEED = 1000, 60, 25  # bars before an agent begins, and those that it trades
DAY = "2024-02-28"  # one that is over, with decisions and a position
SERIES = SeriesId.parse("BTCUSDT", "1h")


def trade_some_days() -> None:
    """Let atlas trade in the workspace that the environment names; its clock stands still between two bars."""
    bars = synthetic_market(FIRST + HOURS, "1h", seed=SEED).bars
    bars[["open", "high", "low", "close"]] *= 40_000
    clock = FixedClock((bars.index[FIRST] + timedelta(hours=1)).to_pydatetime())
    runtime = Runtime(load_settings(atlas={"strategies": "breakout"}), clock)
    runtime.store.upsert(SERIES, bars.iloc[: FIRST + 1])
    room = TradingRoom(runtime, Live(runtime))
    start_agent(room, "atlas", "paper-usdt", Decimal(10_000), "a person")
    for hour in range(FIRST + 1, FIRST + HOURS):
        runtime.store.upsert(SERIES, bars.iloc[hour : hour + 1])
        clock.advance(timedelta(hours=1))
        room.turn("paper-usdt")
        if hour == FIRST + 20:
            runtime.switches.kill(SwitchScope.AGENT, "nova", who="ana", why="it is not wanted yet")
    runtime.engine.dispose()
