"""Whoever keeps a strategy's contract is replayed and traded unchanged: in batch, bar by bar, in a replay, live."""

import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from orbiquant.backtest.simulate import simulate
from orbiquant.core import DataError, FixedClock, OptionError, SettingsError, configure_logging
from orbiquant.domain import Bars, Costs, Signals
from orbiquant.execution.config import FIXED
from orbiquant.market.sources import SampleSource
from orbiquant.market.synthetic import synthetic_market
from orbiquant.research.feeds import StrategyFeed, find_strategies, said_by
from orbiquant.research.live import Live
from orbiquant.research.replays import AgentReplay, replay_agents
from orbiquant.research.room import TradingRoom, start_agent
from orbiquant.research.standings import agent_status_of
from orbiquant.runtime import Runtime
from orbiquant.settings import load_settings
from orbiquant.signals import NO_SETUP
from orbiquant.strategies.config import SHIPPED, StrategyConfig
from orbiquant.strategies.contract import Strategy, terms_of
from orbiquant.strategies.registry import StrategyRegistry, find_strategy, strategy_version
from orbiquant.strategies.rules import RuleStrategy
from orbiquant.trading import tables
from orbiquant.trading.decisions import Answered, DecisionJournal
from orbiquant.trading.replay import replay
from tests.test_parity import EURUSD_1H, FOREX, check_equal
from tests.tools.desk import begin_of, fresh_database, loose_profile, make_engine
from tests.tools.shared_bars import shared_bars

HOUR = timedelta(hours=1)
RULES = tuple(name for name in SHIPPED if name not in ("grid_trading", "altcoin_rotation"))
SHORTER = {"trend_following": {"slow": 40}, "scalping": {"settle": 5}}  # so that a short market has something to say
REAL = [("EURUSD_1h", "mean_reversion"), ("XAUUSD_1h", "trend_following"), ("BTCUSDT_5m", "breakout")]


def gapped(bars: Bars, seed: int, share: float) -> Bars:
    """Return bars of which some are missing."""
    chance = np.random.default_rng(seed)
    kept = bars[chance.random(len(bars)) >= share]
    kept.attrs = bars.attrs
    return kept


def check_steps(strategy: Strategy, bars: Bars, cut: int) -> Signals:
    """Fail unless a strategy says bar by bar, to the last bit, what it says of the whole."""
    whole = strategy.batch(bars)
    stepper = strategy.follow(bars.iloc[:cut])
    steps = [stepper.step(bar) for _, bar in bars.iloc[cut:].iterrows()]
    assert [step.time for step in steps] == [*bars.index[cut:]]
    rows = pd.DataFrame([step.row for step in steps], bars.index[cut:], columns=[*whole]).astype(whole.dtypes)
    pd.testing.assert_frame_equal(rows, whole.iloc[cut:], check_exact=True, check_freq=False)
    return whole


# --- one contract ---


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    later=st.integers(1, 100),
    share=st.sampled_from([0.0, 0.02, 0.3]),
    frame=st.sampled_from(["5m", "1h"]),
)
def test_a_rule_says_bar_by_bar_what_it_says_of_the_whole(name: str, seed: int, later: int, share: float, frame: str):
    strategy = find_strategy(name, **SHORTER.get(name, {}))
    cut = strategy.warmup_bars + later
    bars = gapped(synthetic_market(800, frame, seed=seed).bars, seed, share).iloc[: cut + 60]
    assert len(bars) == cut + 60
    check_steps(strategy, bars, cut)


@pytest.mark.parametrize("name", RULES)
def test_a_history_that_is_too_short_is_said(name: str):
    strategy, bars = find_strategy(name), synthetic_market(300, "5m", seed=7).bars
    for count in (0, 1, strategy.warmup_bars):
        with pytest.raises(DataError, match=f"more than {strategy.warmup_bars} bars"):
            strategy.follow(bars.iloc[:count])
    check_steps(strategy, bars, strategy.warmup_bars + 1)


@pytest.mark.parametrize("name", RULES)
def test_a_rule_trades_and_what_it_says_is_a_signal(name: str):
    bars = synthetic_market(3000, "5m", seed=7).bars
    strategy = find_strategy(name)
    signals = check_steps(strategy, bars, 2900)
    acts = signals[signals["action"] != "HOLD"]
    assert {*acts["action"]} == {"LONG", "SHORT"} and acts.index[0] > bars.index[strategy.warmup_bars - 1]
    assert isinstance(strategy, Strategy) and (acts["amd_phase"] != "manipulation").all()
    assert (acts["side"] * (acts["entry_price"] - acts["stop_loss"]) > 0).all() and acts["atr"].notna().all()
    assert len(simulate(bars, signals, Costs(), exits=strategy.exits or FIXED).trades) > 3


@pytest.mark.parametrize(("file", "name"), REAL)
def test_years_of_real_bars(file: str, name: str):
    bars = shared_bars(file).iloc[-20_000:]
    bars.attrs = dict(zip(("symbol", "timeframe"), file.split("_"), strict=True))
    assert (check_steps(find_strategy(name), bars, len(bars) - 1_000)["action"] != "HOLD").sum() > 100


# --- by name ---


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: find_strategy("mean_revision"), "did you mean 'mean_reversion'"),
        (lambda: find_strategy("mean_reversion", treshold=2), "did you mean 'threshold'"),
        (
            lambda: find_strategy("mean_reversion", threshold=-1),
            "`threshold` of mean_reversion: must be greater than 0",
        ),
        (lambda: find_strategy("mean_reversion", threshold=float("nan")), "was nan"),
        (lambda: find_strategy("trend_following", fast=100, slow=20), "`fast` must be shorter than `slow`"),
        (lambda: find_strategy("grid_trading"), "gives signals"),
        (lambda: StrategyRegistry(StrategyConfig(modules="no_such_module")).names(), "no_such_module cannot"),
    ],
)
def test_what_is_no_strategy_is_said(ask: Callable[[], object], said: str):
    with pytest.raises(OptionError) as error:
        ask()
    assert said in error.value.message


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"strategies": {"parameters": "mean_reversion.threshold=-1"}}, "[strategies] parameters: `threshold`"),
        ({"strategies": {"parameters": "mean_reversion.treshold=1"}}, "did you mean 'threshold'"),
        ({"strategies": {"parameters": "mean_revision.threshold=1"}}, "did you mean 'mean_reversion'"),
        ({"strategies": {"parameters": "threshold=1"}}, "[strategies] parameters"),
        ({"strategies": {"modules": "my package"}}, "[strategies] modules"),
        ({"atlas": {"strategies": "ml, mean_revision"}}, "[atlas] strategies: `strategies` must be one of"),
        ({"nova": {"strategies": "Momentum!"}}, "[nova] strategies"),
    ],
)
def test_settings_that_name_no_strategy_are_refused(section: dict[str, Any], said: str):
    with pytest.raises(SettingsError) as error:
        load_settings(**section)
    assert said in str(error.value)


def test_frozen_parameters_hold_for_whoever_asks_and_mark_its_signals():
    registry = StrategyRegistry(load_settings(strategies={"parameters": "mean_reversion.threshold=2.5"}).strategies)
    frozen, other = registry.signals("mean_reversion"), registry.signals("mean_reversion", threshold=3)
    assert (frozen.threshold, other.threshold, find_strategy("mean_reversion").threshold) == (2.5, 3, 2)
    assert strategy_version(frozen) != strategy_version(find_strategy("mean_reversion"))


# --- the engine is its backtest ---


@pytest.mark.parametrize("name", RULES)
def test_a_rule_on_paper_is_its_backtest(name: str, tmp_path: Path):
    bars = SampleSource().bars(EURUSD_1H).iloc[:2_500]
    strategy = find_strategy(name, **SHORTER.get(name, {}))
    signals = strategy.batch(bars)
    profile = loose_profile(EURUSD_1H, strategies=(name,), min_reward_to_risk=50)  # the strategy's own holds
    terms = {name: terms_of(strategy)}
    engine = make_engine(
        fresh_database(tmp_path), {EURUSD_1H: signals}, {"nova": profile}, FOREX, begin_of(bars), rules=terms
    )
    played = replay(engine, {EURUSD_1H: bars})
    plan = FIXED if strategy.exits is None else strategy.exits
    tested = simulate(bars, signals, FOREX, exits=plan)
    assert len(tested.trades) > 10, len(tested.trades)
    check_equal(tested, played, 2e-6 if plan.targets else 1e-9)
    assert {*played.trades["strategy"]} == {name}


# --- a strategy that the project does not ship ---


OWN = '''
"""Ideas of a workspace."""

import pandas as pd

from orbiquant.strategies.rules import RuleStrategy


class Step:
    def __init__(self, time, row):
        self.time, self.row = time, row


class Turn:
    """Goes against two bars in a row; written without anything of the project's."""

    name = "{plain}"
    warmup_bars, exits, max_holding_bars, reward_to_risk = 2, None, 6, 1.0

    def __init__(self, share: float = 0.004):
        self.share = share

    def _row(self, before, bar):
        up = bar["close"] > bar["open"] and before["close"] > before["open"]
        down = bar["close"] < bar["open"] and before["close"] < before["open"]
        side = -1 if up else 1 if down else 0
        close = float(bar["close"])
        return {{
            "action": ("HOLD", "LONG", "SHORT")[side], "side": side, "probability": float("nan"),
            "confidence": float(side != 0), "entry_price": close, "stop_loss": close * (1 - side * self.share),
            "take_profit": close * (1 + side * self.share), "risk_reward": 1.0, "amd_phase": "neutral",
            "direction": 0, "killzone": "none", "reason": "" if side else "no setup",
        }}

    def batch(self, bars):
        rows = [self._row(bars.iloc[max(t - 1, 0)], bars.iloc[t]) for t in range(len(bars))]
        return pd.DataFrame(rows, bars.index)

    def follow(self, history):
        outer = self

        class Stepper:
            last = history.iloc[-1]

            def step(self, bar):
                before, self.last = self.last, bar
                return Step(pd.Timestamp(bar.name), outer._row(before, bar))

        return Stepper()


class AboveOpen:
    """A rule's memory: none."""

    def __init__(self, wide):
        self.wide = wide

    def run(self, view, out):
        new = slice(view.first, None)
        out[0] = view.close[new] > view.open[new]
        out[1] = out[2] = self.wide * view.atr[new]


class Green(RuleStrategy):
    """Long after a bar that rose."""

    name = "{rule}"
    reward_to_risk = 1.0
    wide: float = 2.0

    @property
    def warmup_bars(self) -> int:
        return 20

    def rule(self):
        return AboveOpen(self.wide)
'''


class Scene:
    """A workspace with bars of the euro, and a clock that stands."""

    def __init__(self, folder: Path, bars: Bars, modules: dict[str, str] | None = None, **sections: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in (modules or {}).items():
            (folder / f"{name}.py").write_text(text)
        places = {"store_uri": f"{folder}/store", "models_dir": f"{folder}/models", "data_dir": str(folder)}
        self.sections = {
            "workspace": places | {"database_url": f"sqlite:///{folder}/o.db"},
            "strategies": {"modules": ", ".join(modules or {})},
        } | sections
        self.folder, self.bars, self.clock = folder, bars, FixedClock((bars.index[0] + HOUR).to_pydatetime())
        self.open()

    def open(self) -> None:
        """Be a process that has just begun."""
        self.runtime = Runtime(load_settings(**self.sections), self.clock)
        self.live = Live(self.runtime)
        self.room = TradingRoom(self.runtime, self.live)

    def close(self) -> None:
        """End the process."""
        self.runtime.engine.dispose()

    def go_to(self, count: int) -> None:
        """Let so many bars in all be stored and closed."""
        self.runtime.store.upsert(EURUSD_1H, self.bars.iloc[:count])
        moment = (self.bars.index[count - 1] + HOUR + timedelta(seconds=3)).to_pydatetime()
        self.clock.advance(moment - self.clock.now())

    def trade(self, first: int, last: int, account: str = "paper-usd") -> None:
        """Trade bar by bar."""
        for count in range(first, last + 1):
            self.go_to(count)
            assert self.room.turn(account).bars == 1

    def decisions(self) -> list[Answered]:
        """Return what was decided, oldest first."""
        return DecisionJournal(self.runtime.pages).last(count=100_000)[::-1]

    def trades(self) -> pd.DataFrame:
        """Return the closed trades, in the order of their exits."""
        from orbiquant.trading.replay import tabulate_trades

        with self.room.at("paper-usd") as engine:
            return tabulate_trades(engine.books.trades())


FREE = {"pairs": "EURUSD", "timeframe": "1h", "cool_down_bars": 0, "initial_equity": 100_000, "policy": "base"}


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    configure_logging("ERROR")
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield


@pytest.fixture(scope="module")
def market() -> Bars:
    return synthetic_market(900, "1h", seed=12).bars


@pytest.fixture
def own(tmp_path: Path, market: Bars, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """Yield a workspace whose module brings two strategies."""
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path))
    (tmp_path / "settings.ini").write_text("[workspace]\n")
    text = OWN.format(plain="two_bars", rule="green")
    named = f"ideas_{tmp_path.name}".replace("-", "_")
    scene = Scene(tmp_path, market, {named: text}, nova=FREE | {"strategies": "two_bars, green"})
    yield scene
    scene.close()
    sys.modules.pop(named, None)


@pytest.mark.parametrize("name", ["two_bars", "green"])
def test_one_of_ones_own_keeps_the_contract(own: Scene, name: str):
    strategy = own.runtime.strategies.signals(name)
    signals = check_steps(strategy, own.bars, 700)
    assert {"LONG"} <= {*signals["action"]} and said_by(own.runtime, strategy, EURUSD_1H, own.bars).equals(signals)


def test_one_of_ones_own_is_replayed(own: Scene):
    own.go_to(900)
    made = replay_agents(own.runtime, [EURUSD_1H], ["nova"], start=own.bars.index[300].to_pydatetime())
    (told,) = made.markets
    assert [*told.versions] == ["two_bars", "green"] and told.facts["model"] is None
    assert {*made.trades["strategy"]} == {"two_bars", "green"}
    assert made.trades["entry_time"].min() <= own.bars.index[302], "the first bar is decided on"
    assert {*made.by_strategy().index} == {"nova two_bars", "nova green"}
    held = made.reasons.set_index("reason")["count"]
    assert held["in position"] > 10, "one position a symbol, the first in the profile's order wins"
    alone = replay_agents(own.runtime, [EURUSD_1H], ["atlas"], strategies=["green"])
    assert {*alone.trades["strategy"]} == {"green"} and len(alone.markets[0].bars) == 880


def test_what_cannot_be_replayed_is_said(own: Scene):
    own.go_to(900)
    with pytest.raises(OptionError, match="did you mean 'green'"):
        replay_agents(own.runtime, [EURUSD_1H], ["nova"], strategies=["gren"])


# --- live ---


def decided(answers: list[Answered]) -> list[tuple[Any, ...]]:
    """Return what was decided without the moment and the numbers of intents."""
    return [(a.strategy, a.time, a.action, a.outcome, a.reason, a.confidence) for a in answers]


def check_trades(live: pd.DataFrame, made: AgentReplay) -> int:
    """Fail unless closed trades are those of a replay but for the last, which its end closes; return how many."""
    told = made.trades[made.trades["exit_reason"] != "end"].reset_index(drop=True)
    columns = ["strategy", "side", "size", "entry_time", "exit_time", "entry", "exit", "r", "exit_reason", "bars"]
    pd.testing.assert_frame_equal(live[columns], told[columns], check_exact=True)
    return len(live)


@pytest.mark.slow
def test_rules_are_traded_without_a_model_and_a_restart_changes_nothing(tmp_path: Path, market: Bars):
    scene = Scene(tmp_path, market, atlas=FREE | {"strategies": "ml, mean_reversion, trend_following"})
    scene.go_to(400)
    start_agent(scene.room, "atlas", "paper-usd", None, "a person")
    scene.trade(401, 460)
    scene.close()
    scene.open()  # another process
    scene.trade(461, 520)
    first = decided(scene.decisions())
    made = replay_agents(
        scene.runtime, [EURUSD_1H], ["atlas"], start=market.index[400].to_pydatetime(),
        strategies=["mean_reversion", "trend_following"],
    )  # fmt: skip
    later = [each for each in first if each[1] >= market.index[400]]
    assert len(later) == made.reasons["count"].sum() > 5  # of what a rule is silent about there is no decision
    assert made.markets[0].bars.index[0] == market.index[400]
    assert check_trades(scene.trades(), made) > 2
    scene.close()


def test_why_it_does_not_trade_names_each_strategy(tmp_path: Path, market: Bars, monkeypatch: pytest.MonkeyPatch):
    scene = Scene(
        tmp_path, market, {"torn_ideas": "raise RuntimeError('half written')"}, atlas=FREE | {"strategies": "ml, gone"}
    )
    scene.go_to(300)
    monkeypatch.syspath_prepend(str(tmp_path))
    idle = agent_status_of(scene.runtime, scene.live, "atlas").idle
    assert any("gone cannot speak" in said and "half written" in said for said in idle)
    assert any("ml cannot speak: no model of EURUSD 1h" in said for said in idle)
    scene.close()


@pytest.mark.parametrize("change", ["gap", "corrected", "older", "behind"])
def test_whatever_happens_to_the_store_a_feed_says_what_its_backtest_says(tmp_path: Path, market: Bars, change: str):
    scene = Scene(tmp_path, market.copy())
    strategy = find_strategy("mean_reversion", threshold=1.2)
    feed = StrategyFeed(scene.runtime, strategy)
    store, bars = scene.runtime.store, scene.bars

    def hear(count: int) -> Any:
        feed.moment = (bars.index[count - 1] + HOUR).to_pydatetime()
        return feed.latest(EURUSD_1H)

    begin = 100 if change == "older" else 0
    store.upsert(EURUSD_1H, bars.iloc[begin:300])
    heard = {count: hear(count) for count in range(280, 301)}
    if change == "gap":
        store.upsert(EURUSD_1H, bars.iloc[310:340])
        known = pd.concat([bars.iloc[:300], bars.iloc[310:340]])
    elif change == "corrected":
        bars.iloc[290, :4] *= 1.002
        store.upsert(EURUSD_1H, bars.iloc[290:340])
        known = bars.iloc[:340]
    else:
        store.upsert(EURUSD_1H, bars.iloc[:340])
        known = bars.iloc[:340]
    later = {count: hear(count) for count in range(311, 341)}
    if change == "behind":  # an engine of another account asks for earlier bars
        assert {count: hear(count) for count in range(300, 290, -1)} == {n: heard[n] for n in range(300, 290, -1)}
        assert hear(340) == later[340]
    whole = said_by(scene.runtime, strategy, EURUSD_1H, store.read(EURUSD_1H))
    assert len(whole) == len(known)
    for count, signal in later.items():
        row = whole.loc[bars.index[count - 1]]
        if signal is None:
            assert row["reason"] == NO_SETUP
            continue
        assert (signal.action, signal.time) == (row["action"], bars.index[count - 1])
        assert signal.action == "HOLD" or signal.stop_loss == row["stop_loss"]
    assert {signal.action for signal in later.values() if signal is not None} - {"HOLD"}
    scene.close()


# --- what somebody's code may do ---


TORN = """
from orbiquant.strategies.rules import RuleStrategy


class Wrong:
    def __init__(self, how):
        self.how = how

    def run(self, view, out):
        new = slice(view.first, None)
        out[0], out[1], out[2] = 1.0, view.atr[new], 3 * view.atr[new]
        late = view.more and len(view.close) < 9
        if self.how == "raises" and late:
            raise ZeroDivisionError("by chance")
        if self.how == "no side" and late:
            out[0] = float("nan")
        if self.how == "no stop":
            out[1] = float("nan")
        if self.how == "far stop":
            out[1] = 1e9
        if self.how == "endless":
            out[2] = float("inf")


class Faulty(RuleStrategy):
    name = "faulty"
    how: str = "raises"

    @property
    def warmup_bars(self) -> int:
        return 20

    def rule(self):
        return Wrong(self.how)
"""


@pytest.mark.parametrize(
    ("how", "state", "said"),
    [
        ("raises", "halted", "faulty failed on EURUSD 1h: ZeroDivisionError by chance"),
        ("no side", "halted", "`side` of a rule must be +1, −1 or 0, was nan"),
        ("no stop", "running", "Stop and target cannot be placed"),
        ("far stop", "running", "Stop and target cannot be placed"),
        ("endless", "running", "Stop and target cannot be placed"),
    ],
)
def test_a_faulty_strategy_halts_its_agent_alone_or_is_denied(
    tmp_path: Path, market: Bars, monkeypatch: pytest.MonkeyPatch, how: str, state: str, said: str
):
    module = f"faulty_{how.replace(' ', '_')}"
    scene = Scene(
        tmp_path, market, {module: TORN}, atlas=FREE | {"strategies": "faulty"},
        orion=FREE | {"strategies": "mean_reversion"},
        strategies={"modules": module, "parameters": f"faulty.how={how}"},
    )  # fmt: skip
    monkeypatch.syspath_prepend(str(tmp_path))
    scene.go_to(300)
    for name in ("atlas", "orion"):
        start_agent(scene.room, name, "paper-usd", None, "a person")
    scene.trade(301, 306)
    with scene.runtime.engine.connect() as connection:
        rows = {row.name: row for row in connection.execute(select(tables.agents))}
    answers = [each.reason for each in scene.decisions() if each.strategy == "faulty"]
    assert rows["atlas"].state == state and rows["orion"].state == "running"
    assert said in (rows["atlas"].reason if state == "halted" else " ".join(answers))
    seen = scene.room.engine_of("paper-usd").standing.seen[EURUSD_1H]
    assert seen == market.index[305] + HOUR  # whoever else trades goes on
    scene.close()
    sys.modules.pop(module, None)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda bars: bars.iloc[:5], "one row a bar"),
        (lambda bars: None, "one row a bar"),
        (lambda bars: bars.assign(action="HOLD"), "were without side"),
        (lambda bars: bars[["closing"]], "KeyError"),
    ],
)
def test_a_table_that_is_no_table_of_signals_is_refused(
    tmp_path: Path, market: Bars, answer: Callable[[Bars], Any], said: str
):
    class Odd(type(find_strategy("mean_reversion"))):  # type: ignore[misc]
        def batch(self, bars: Bars, spec: Any = None) -> Any:
            return answer(bars)

    scene = Scene(tmp_path, market)
    with pytest.raises(DataError) as error:
        said_by(scene.runtime, Odd(), EURUSD_1H, market)
    assert said in error.value.message and "mean_reversion" in error.value.message
    scene.close()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1", "defines none"),
        ("raise ValueError('no')", "ValueError no"),
        ("def f(:", "SyntaxError"),
        (OWN.format(plain="ml", rule="green"), "must not be that of a shipped one"),
        (OWN.format(plain="Two Bars", rule="green"), "small letters"),
        (OWN.format(plain="same", rule="same"), "must define same once"),
    ],
)
def test_a_module_that_cannot_be_used_is_said(tmp_path: Path, text: str, said: str, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "bad_ideas.py").write_text(text)
    monkeypatch.delitem(sys.modules, "bad_ideas", raising=False)
    with pytest.raises(OptionError) as error:
        StrategyRegistry(StrategyConfig(modules="bad_ideas"), tmp_path).find("anything")
    assert said in error.value.message
    sys.modules.pop("bad_ideas", None)


def test_strategies_that_cannot_speak_are_left_out_and_told(tmp_path: Path, market: Bars):
    scene = Scene(tmp_path, market)
    found, faults = find_strategies(scene.runtime, ("ml", "mean_reversion", "altcoin_rotation", "nothing"))
    assert [*found] == ["mean_reversion"] and isinstance(found["mean_reversion"], RuleStrategy)
    assert {"nothing"} <= {*faults} <= {"altcoin_rotation", "nothing"}
    scene.close()
