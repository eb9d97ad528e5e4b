"""Agents over stored bars: the engine that trades, signals that could have been known, capital that is shared."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from sqlalchemy import func, select

from orbiquant.core import NotFoundError, OptionError, configure_logging
from orbiquant.domain import Costs, SeriesId
from orbiquant.market.synthetic import synthetic_market
from orbiquant.performance import money_figures, r_figures
from orbiquant.research.replays import AgentReplay, ReplayedMarket, on_markets, replay_agents, replay_markets
from orbiquant.runtime import Runtime
from orbiquant.settings import load_settings
from orbiquant.trading import tables
from tests.tools.desk import random_signals

MODELS = Path(__file__).parent / "fixtures" / "models"
EURUSD, XAUUSD, BTCUSDT = (SeriesId.parse(symbol, "1h") for symbol in ("EURUSD", "XAUUSD", "BTCUSDT"))
BARS = 600


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """Yield a workspace with a model and the bars that it was trained on."""
    configure_logging("ERROR")
    folder = tmp_path_factory.mktemp("replay")
    shutil.copytree(MODELS, folder / "models")
    places = {"store_uri": f"{folder}/store", "models_dir": f"{folder}/models", "database_url": f"sqlite:///{folder}/o"}
    made = Runtime(load_settings(workspace=places | {"data_dir": str(folder)}))
    made.store.upsert(EURUSD, synthetic_market(2600, "1h", seed=11).bars)
    yield made
    made.engine.dispose()


def market(series: SeriesId, seed: int, scale: float = 1.0) -> ReplayedMarket:
    """Return a market whose signals are made by chance."""
    bars = synthetic_market(BARS, "1h", seed=seed).bars
    bars[["open", "high", "low", "close"]] *= scale
    signals = {"ml": random_signals(bars, seed, share=0.1)}
    return ReplayedMarket(series, bars, signals, Costs(), {"ml": "by chance"}, 1, seed)


def traded(runtime: Runtime, *markets: ReplayedMarket, agents: tuple[str, ...] = ("atlas", "nova")) -> AgentReplay:
    """Return what agents make of markets, whatever the time of day and the phase."""
    own = {"policy": "base", "killzones": (), "min_confidence": 0.6, "min_reward_to_risk": 1, "cool_down_bars": 0}
    series = [each.series for each in markets]
    profiles = {name: on_markets(getattr(runtime.settings, name), series).model_copy(update=own) for name in agents}
    return replay_markets(runtime, markets, profiles, "USD" if series[0] is not BTCUSDT else "USDT")


@pytest.fixture(scope="module")
def made(runtime: Runtime) -> AgentReplay:
    """Return two agents on two markets."""
    return traded(runtime, market(EURUSD, 3), market(XAUUSD, 5, 1700))


def test_agents_share_markets_and_each_has_its_own_book(made: AgentReplay):
    assert {*made.trades["owner"]} == {"atlas", "nova"} and {*made.trades["symbol"]} == {"EURUSD", "XAUUSD"}
    for name, profile in made.profiles.items():
        curve, first = made.curve(name)
        own = made.trades[made.trades["owner"] == name]
        assert first == float(profile.initial_equity) and len(own) > 5
        assert curve.iloc[-1] == pytest.approx(first + own["pnl"].sum(), abs=1e-6)
    assert made.equity.iloc[-1] == pytest.approx(20_000 + made.trades["pnl"].sum(), abs=1e-6)
    assert len(made.result.equity) == BARS == made.result.steps


def test_the_figures_are_those_of_every_backtest(made: AgentReplay):
    table = made.table()
    assert [*table] == ["atlas", "nova", "all"]
    own = made.trades[made.trades["owner"] == "nova"]
    assert table["nova"]["total_r"] == r_figures(own["r"])["total_r"]
    assert table["all"]["max_drawdown"] == money_figures(made.equity, 20_000.0)["max_drawdown"]
    assert 0 < table["all"]["exposure"] <= 1
    assert made.by_strategy()["net_profit"].sum() == pytest.approx(made.trades["pnl"].sum())
    assert made.plot().data and "atlas, nova on EURUSD" in made.as_card().title


def test_every_signal_has_one_answer_with_its_reason(made: AgentReplay):
    assert made.reasons["count"].sum() == 2 * 2 * BARS == made.result.decisions.to_numpy().sum()
    taken = made.reasons[made.reasons["outcome"].isin(["taken", "resized"])]["count"].sum()
    assert len(made.trades) <= taken and (made.reasons["reason"] != "").all()
    assert not made.reasons["reason"].str.contains(r"\d").any()


def test_risk_stays_within_the_profile_of_each(made: AgentReplay):
    for name, profile in made.profiles.items():
        own = made.trades[made.trades["owner"] == name]
        lost = own["pnl"] / float(profile.initial_equity)
        assert lost.min() > -1.6 * float(profile.risk_per_trade)  # a gap may pass the stop
        curve, first = made.curve(name)
        assert money_figures(curve, first)["max_drawdown"] < 1.3 * float(profile.max_drawdown)


def test_spot_is_not_sold_short(runtime: Runtime):
    spot = traded(runtime, market(BTCUSDT, 3, 40_000), agents=("nova",))
    assert len(spot.trades) and (spot.trades["side"] == 1).all()
    said = spot.reasons.set_index("reason")["count"]
    assert said["no short"] > 0 and spot.reasons["outcome"].eq("closed").any()


def test_the_same_replay_is_the_same_and_leaves_the_workspace_alone(runtime: Runtime, made: AgentReplay):
    again = traded(runtime, market(EURUSD, 3), market(XAUUSD, 5, 1700))
    pd.testing.assert_frame_equal(again.trades, made.trades)
    with runtime.engine.connect() as connection:
        counts = [connection.scalar(select(func.count()).select_from(t)) for t in (tables.agents, tables.trades)]
    assert counts == [0, 0]


# --- signals of a model ---


def test_a_model_is_replayed_on_what_it_had_not_seen(runtime: Runtime):
    predictions = runtime.registry.load(EURUSD).predictions
    told = replay_agents(runtime, [EURUSD], ["orion"], strategies=["ml"])
    (one,) = told.markets
    signals = one.signals["ml"]
    assert signals.index[0] == predictions.index[0] and signals.index.equals(one.bars.index)
    assert signals.attrs["horizon_bars"] == 24 or signals.attrs["horizon_bars"] > 0
    assert told.reasons["count"].sum() == len(one.bars) and one.facts["seed"] == 7
    start, end = one.bars.index[100], one.bars.index[200]
    part = replay_agents(runtime, [EURUSD], ["orion"], start.to_pydatetime(), end.to_pydatetime(), strategies=["ml"])
    assert (part.markets[0].bars.index[0], len(part.markets[0].bars)) == (start, 100)


def test_what_cannot_be_replayed_is_said(runtime: Runtime):
    with pytest.raises(OptionError, match="one currency"):
        replay_agents(runtime, [EURUSD, BTCUSDT], ["orion"])
    with pytest.raises(NotFoundError, match="model"):
        replay_agents(runtime, [XAUUSD], ["orion"], strategies=["ml"])
    with pytest.raises(OptionError, match="agent"):
        replay_agents(runtime, [EURUSD], ["orin"])
    late = pd.Timestamp("2030-01-01", tz="UTC").to_pydatetime()
    with pytest.raises(NotFoundError, match="no out-of-fold signal"):
        replay_agents(runtime, [EURUSD], ["orion"], start=late, strategies=["ml"])


def test_an_agent_without_a_feed_is_refused(runtime: Runtime):
    alone = runtime.settings.orion.model_copy(update={"strategies": ("breakout",), "pairs": ("EURUSD",)})
    with pytest.raises(OptionError, match="strategies"):
        replay_markets(runtime, [replace(market(EURUSD, 3))], {"orion": alone}, "USD")
