"""A trading desk on paper for tests: an engine, its agents and what they trade on."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from sqlalchemy import Engine

from orbiquant.core import FixedClock
from orbiquant.domain import AssetClass, Bars, Costs, SeriesId, Signals
from orbiquant.market.instruments import instrument_of
from orbiquant.orders import Capabilities
from orbiquant.persistence import engine, migrate
from orbiquant.strategies.contract import TradeTerms
from orbiquant.strategies.plans import PlannedFeed
from orbiquant.trading.brokers.paper import PaperBroker
from orbiquant.trading.brokers.terms import PaperTerms
from orbiquant.trading.config import AgentProfile, RiskConfig
from orbiquant.trading.engine import TradingEngine
from orbiquant.trading.pages import Pages
from orbiquant.trading.replay import TableFeed
from orbiquant.trading.standing import Standing
from orbiquant.trading.switches import Switches

LOOSE = {
    **{"profile": "aggressive", "risk_per_trade": "0.001", "max_position_loss": "0.5", "max_drawdown": "0.99"},
    **{"daily_loss": "0.98", "max_positions": 100, "target_month": "0.1", "min_win_rate": "0.5"},
    **{"min_reward_to_risk": 0, "initial_equity": "100000000", "stale_bars": 1000},
}
FREE = RiskConfig(
    max_exposure=1000, max_account_risk="0.99", max_correlated_risk=1000, open_risk_share="0.99", crypto_leverage=1000,
    forex_leverage=1000, metal_leverage=1000,
)  # fmt: skip


def loose_profile(series: SeriesId, **changes: Any) -> AgentProfile:
    """Return a profile that denies next to nothing, so that its trades are those of its signals."""
    facts = {"pairs": (series.symbol,), "timeframe": series.timeframe} | LOOSE | changes
    return AgentProfile.model_validate(facts)


def fresh_database(folder: Path) -> Engine:
    """Return a migrated SQLite database."""
    made = engine(f"sqlite:///{folder / 'desk.db'}")
    migrate(made)
    return made


def make_engine(
    database: Engine,
    signals: Mapping[SeriesId, Signals],
    profiles: Mapping[str, AgentProfile],
    costs: Costs,
    start: datetime,
    limits: RiskConfig = FREE,
    short: bool = True,
    folder: Path | None = None,
    planned: Mapping[str, PlannedFeed] = MappingProxyType({}),
    rules: Mapping[str, TradeTerms] = MappingProxyType({}),
) -> TradingEngine:
    """Return an engine on paper whose agents have begun, and whose clock stands at the start."""
    clock, pages = FixedClock(start), Pages(database)
    series = {*signals, *(each for feed in planned.values() for each in feed.past.series)}
    quote = {instrument_of(each.symbol).instrument.quote for each in series}.pop()

    def terms(symbol: str) -> PaperTerms:
        instrument = instrument_of(symbol).instrument
        return PaperTerms(instrument, costs, limits.leverage(AssetClass(instrument.asset_class)))

    broker = PaperBroker(pages, "paper", quote, terms, clock, lambda symbol: Capabilities(short=short))
    switches = Switches(database, folder or Path(database.url.database).parent / "switches", clock)
    standing = Standing(pages, broker, "paper", quote, terms, switches, clock)
    feeds = dict.fromkeys(rules or ("ml",), TableFeed(signals, clock))
    made = TradingEngine(standing, profiles, limits, feeds | planned, terms=rules)
    for name in profiles:
        made.enlist(name)
    return made


def random_signals(bars: Bars, seed: int, share: float = 0.05, stop: float = 0.004, horizon: int = 24) -> Signals:
    """Return signals that say LONG and SHORT by chance, with a stop and a target twice as far."""
    chance = np.random.default_rng(seed)
    side = np.where(chance.random(len(bars)) < 0.5, 1, -1)
    acts = chance.random(len(bars)) < share
    close = bars["close"].to_numpy(float)
    distance = close * stop * chance.uniform(0.5, 1.5, len(bars))
    table = pd.DataFrame(
        {
            "action": np.where(acts, np.where(side > 0, "LONG", "SHORT"), "HOLD"),
            "side": side,
            "confidence": 0.7,
            "probability": 0.5,
            "entry_price": close,
            "stop_loss": close - side * distance,
            "take_profit": close + 2 * side * distance,
            "risk_reward": 2.0,
            "amd_phase": "neutral",
            "direction": 0,
            "killzone": "none",
            "reason": np.where(acts, "", "low confidence"),
        },
        index=bars.index,
    )
    table.attrs["horizon_bars"] = horizon
    return table


def begin_of(bars: Bars) -> datetime:
    """Return a moment before the first bar."""
    return (bars.index[0] - timedelta(days=1)).to_pydatetime()


def decimal_sum(values: Any) -> Decimal:
    """Return the exact sum of amounts."""
    return sum(values, Decimal(0))
