"""`orbiquant agent …` as it is typed: who trades, why not, a replay, and a run that ends cleanly."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pandas as pd
import pytest
import test_cli
from sqlalchemy import event
from test_cli import ORBIQUANT, Ask

from orbiquant.core import FixedClock, configure_logging
from orbiquant.desk import series as desk_series
from orbiquant.desk.agents import room_of
from orbiquant.domain import Action, Bars, SeriesId, Signals
from orbiquant.leases import acquire_lease
from orbiquant.market.synthetic import synthetic_market
from orbiquant.persistence import engine, writing
from orbiquant.research.room import TradingRoom, Turn, start_agent
from orbiquant.research.staying import stay
from orbiquant.runtime import Runtime, current, using
from orbiquant.settings import load_settings
from orbiquant.trading.decisions import Answered, Reply
from orbiquant.trading.engine import LEASE
from orbiquant.trading.replay import TableFeed
from tests.tools.desk import random_signals

ask = test_cli.ask  # the fixture
MODELS = Path(__file__).parent / "fixtures" / "models"
BTCUSDT, EURUSD = SeriesId.parse("BTCUSDT", "1h"), SeriesId.parse("EURUSD", "1h")


def test_agents_of_an_empty_workspace(ask: Ask):
    told = ask("agent", "list")
    assert told.code == 0 and all(name in told.out for name in ("atlas", "orion", "nova", "never started"))
    assert [each["status"] for each in ask("agent", "list", "--json").json] == ["created"] * 3
    status = ask("agent", "status", "atlas")
    assert "0.00% of at most 5%" in status.out and "the store holds no 1h bars of BTCUSDT" in status.out
    assert "Nothing was decided yet" in ask("agent", "journal").out
    assert ask("agent", "journal", "nova", "--json").json == []


def test_bars_in_another_currency_than_the_accounts_are_told_as_such(ask: Ask, monkeypatch: pytest.MonkeyPatch):
    assert ask("agent", "start", "nova").code == 0, "its account is paper-usdt from now on"
    assert ask("data", "pull", "sample", "EURUSD", "1h").code == 0
    monkeypatch.setenv("ORBIQUANT_NOVA_PAIRS", "EURUSD")
    monkeypatch.setenv("ORBIQUANT_NOVA_TIMEFRAME", "1h")
    with using(Runtime()):
        told = ask("agent", "status", "nova").out
    assert "EURUSD is priced in USD: paper-usdt trades what is priced in USDT" in told and "holds no" not in told


def test_an_agent_lives(ask: Ask):
    started = ask("agent", "start", "Atlas", "--equity", "2500.5")
    assert started.code == 0 and "atlas is running, with 2500.5 USDT more." in started.out
    assert "no process trades paper-usdt" in started.out
    again = ask("agent", "start", "atlas", "--equity", "2500.5")
    assert again.out.startswith("atlas is running.")
    assert ask("agent", "status", "atlas", "--json").json["status"]["equity"] == 2500.5
    said = [ask("agent", word, "atlas").out.splitlines()[0] for word in ("pause", "resume", "stop")]
    assert [line.split(":")[0] for line in said] == ["atlas is paused", "atlas is running", "atlas is stopped"]
    assert ask("agent", "run", "--once").code == 0


def test_a_stop_on_a_busy_database_says_so_soon_and_names_the_way_round(ask: Ask):
    assert ask("agent", "start", "atlas").code == 0
    other = engine(current().settings.workspace.database_url)
    with writing(other):
        begin = time.monotonic()
        told = ask("agent", "stop", "atlas")
        took = time.monotonic() - begin
    other.dispose()
    assert told.code == 1 and "another process writes to the database" in " ".join(told.err.split())
    assert "orbiquant kill --agent atlas" in " ".join(told.err.split()) and took < 10, took
    assert "atlas is stopped" in ask("agent", "stop", "atlas").out


def test_a_journal_fits_a_narrow_screen():
    from rich.console import Console

    from orbiquant.cli.agents import journal_table

    now = pd.Timestamp("2026-03-02 12:00", tz="UTC").to_pydatetime()
    long = "confidence 0.61 is below 0.65, and so on, and so on, until no screen is wide enough for it any more"
    line = Answered(
        "atlas",
        "altcoin_rotation",
        "1000SHIBUSDT",
        BTCUSDT.timeframe,
        now,
        now,
        Action.SHORT,
        Reply.FILTERED,
        long,
        0.6,
    )
    screen = Console(width=80)
    with screen.capture() as held:
        screen.print(journal_table([line]))
    assert max(map(len, held.get().splitlines())) <= 80 and "filtered" in held.get()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("start", "atlos"), "did you mean 'atlas'"),
        (("pause", "atlas"), "no agent is called 'atlas'"),
        (("start", "atlas", "--equity", "0"), "must be an amount above 0"),
        (("start", "atlas", "--equity", "nan"), "must be an amount above 0"),
        (("start", "atlas", "--equity", "1e30"), "must be an amount above 0"),
        (("start", "atlas", "--equity", "0.123456789"), "up to 8 decimals"),
        (("journal", "atlas", "--outcome", "won"), "won"),
        (("replay", "EURUSD"), "pairs of SYMBOL TIMEFRAME"),
        (("replay", "EURUSD", "2h"), "timeframe"),
        (("replay", "EURUSD", "1h", "--agent", "zorro"), "agent"),
        (("replay", "EURUSD", "1h", "--strategy", "ml"), "model"),
        (("replay", "EURUSD", "1h"), "EURUSD 1h"),
        (("replay", "EURUSD", "1h", "--strategy", "mean_revision"), "did you mean 'mean_reversion'"),
        (("replay", "EURUSD", "1h", "BTCUSDT", "1h"), "one currency"),
    ],
)
def test_what_cannot_be_is_one_line(ask: Ask, words: tuple[str, ...], said: str):
    answer = ask("agent", *words)
    assert answer.code in (1, 2) and said in " ".join(answer.err.split()), answer.err
    assert "Traceback" not in answer.err


def test_a_replay_prints_its_data_costs_and_seed(ask: Ask, tmp_path: Path):
    shutil.copytree(MODELS, tmp_path / "data" / "models")
    current().store.upsert(EURUSD, synthetic_market(2600, "1h", seed=11).bars)
    told = ask("agent", "replay", "EURUSD", "1h", "--agent", "orion", "--out", str(tmp_path / "out"))
    assert told.code == 0, told.err
    for word in (
        "1,072 bars 2024-03-28 to 2024-05-30",
        "seed 7",
        "fee 0.2 bp",
        "out of fold",
        "orion breakout",
        "win rate",
    ):
        assert word in told.out, word
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("trades.csv", "equity.csv", "decisions.csv", "figures.csv", "equity.html")
    }
    words = ("--agent", "orion", "--strategy", "ml", "--from", "2024-05-01", "--json")
    made = ask("agent", "replay", "EURUSD", "1h", *words).json
    assert made["markets"][0]["first"].startswith("2024-05-01") and made["figures"]["orion"]["final_equity"] == 10_000
    assert sum(each["count"] for each in made["decisions"]) == made["steps"] == made["markets"][0]["bars"]


# --- a run ---


class Desk:
    """Atlas on bars that close when a test says so, on signals made by chance."""

    def __init__(self, folder: Path, bars: Bars) -> None:
        places = {"store_uri": f"{folder}/store", "models_dir": f"{folder}/models", "data_dir": str(folder)}
        own: dict[str, Any] = {"pairs": "BTCUSDT", "policy": "base", "min_reward_to_risk": 1, "min_confidence": 0.6}
        own["strategies"] = "ml"
        settings = load_settings(workspace=places | {"database_url": f"sqlite:///{folder}/o.db"}, atlas=own)
        self.bars, self.at = bars, 300
        self.clock = FixedClock((bars.index[self.at - 1] + timedelta(hours=1, seconds=3)).to_pydatetime())
        self.runtime = Runtime(settings, self.clock)
        self.runtime.store.upsert(BTCUSDT, bars.iloc[: self.at])
        self.room = TradingRoom(self.runtime, desk_series.live_of(self.runtime))

    def speak(self, signals: Signals) -> None:
        """Let the feed say these signals at the moments that the engine goes through."""
        room, table = self.room, TableFeed({BTCUSDT: signals}, FixedClock(self.clock.now()))

        class Feed:
            moment = None

            def latest(self, series: SeriesId) -> Any:
                table.clock = FixedClock(self.moment)
                return table.latest(series)

            def atr(self, series: SeriesId) -> float | None:
                return None

        room.feeds["ml"] = Feed()

    def close(self, count: int) -> None:
        """Let bars close while nobody looks."""
        self.runtime.store.upsert(BTCUSDT, self.bars.iloc[self.at : self.at + count])
        self.at += count
        self.clock.advance(timedelta(hours=count))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    configure_logging("ERROR")
    bars = synthetic_market(400, "1h", seed=3).bars
    bars[["open", "high", "low", "close"]] *= 40_000
    made = Desk(tmp_path, bars)
    made.speak(random_signals(bars, 3, share=1.0, stop=0.01))
    start_agent(made.room, "atlas", "paper-usdt", None, "a person")
    yield made
    made.runtime.engine.dispose()


def test_bars_after_a_pause_are_gone_through_one_by_one_and_what_is_stale_is_denied(desk: Desk):
    before = len(desk.room.engine_of("paper-usdt").journal.last("atlas"))
    assert before == 1  # a start looks at the newest closed bar
    desk.close(10)
    turn = desk.room.turn("paper-usdt")
    decisions = desk.room.engine_of("paper-usdt").journal.last("atlas")
    assert turn.bars == 10 and len(decisions) == 11
    taken = (Reply.TAKEN, Reply.RESIZED)
    newest, stale, first = decisions[:2], decisions[2:-1], decisions[-1]
    assert not any(each.outcome in taken for each in stale)
    assert any("stale" in each.reason for each in stale) or first.outcome in taken
    assert not any("stale" in each.reason for each in newest)
    assert [each.time for each in decisions] == sorted((each.time for each in decisions), reverse=True)
    assert desk.room.turn("paper-usdt").told == "paper-usdt: nothing new"


def test_a_second_process_says_who_trades(desk: Desk):
    other = "elsewhere:1:abcd"
    acquire_lease(desk.runtime.engine, "engine:paper-usdt", other, LEASE, desk.clock)
    turn = desk.room.turn("paper-usdt")
    assert turn.bars == 0 and other in turn.told and "another process" in turn.told
    desk.clock.advance(LEASE + timedelta(seconds=1))
    assert not desk.room.turn("paper-usdt").said


def test_a_run_says_that_a_database_cannot_be_written_and_goes_on_when_it_can(desk: Desk):
    stop, said, read_only = Event(), [], [True]

    def hear(connection: Any, *rest: Any) -> None:
        connection.execute(f"PRAGMA query_only={int(bool(read_only))}").close()

    def tell(turn: Turn) -> None:
        said.append(turn)
        read_only.clear()
        if turn.bars:
            stop.set()

    event.listen(desk.runtime.engine, "checkout", hear)
    desk.close(3)
    stay(desk.room, stop, tell, poll_s=0.01)
    assert said[0].said == "nothing is traded until this works again: attempt to write a readonly database"
    assert said[-1].bars == 3 and not said[-1].said and len(said) == 2


def test_what_was_traded_is_there_after_a_new_start(desk: Desk):
    for _ in range(60):
        desk.close(1)
        desk.room.turn("paper-usdt")
    engine = desk.room.engine_of("paper-usdt")
    trades, equity = engine.books.trades("atlas"), engine.standing.equity_of("atlas")
    assert trades and all(trade.side == "BUY" for trade in trades)
    again = TradingRoom(desk.runtime, desk_series.live_of(desk.runtime))
    again.feeds["ml"] = desk.room.feeds["ml"]
    with again.at("paper-usdt") as fresh:
        assert fresh.books.trades("atlas") == trades and fresh.standing.equity_of("atlas") == equity
        assert not fresh.standing.beyond_books()


def test_a_run_ends_with_ctrl_c_and_its_agents_go_on_later(tmp_path: Path):
    home = {**os.environ, "ORBIQUANT_HOME": str(tmp_path)}
    subprocess.run([*ORBIQUANT, "agent", "start", "nova"], env=home, check=True, capture_output=True, timeout=60)
    command = [*ORBIQUANT, "agent", "run", "--poll", "0.2"]
    run = subprocess.Popen(command, env=home, stderr=subprocess.PIPE, text=True)
    try:
        assert run.stderr is not None and "Trading paper-usdt" in run.stderr.readline()
        assert run.stderr.readline().startswith("Note: pairs left out"), "what happens is told when it happens"
        second = subprocess.Popen(command, env=home, stderr=subprocess.PIPE, text=True)
        assert second.stderr is not None
        lines = [second.stderr.readline(), second.stderr.readline()]
        second.send_signal(signal.SIGINT)
        assert f":{run.pid}:" in lines[1] and "is traded by another process" in lines[1]
        assert second.wait(timeout=20) == 0
        second.stderr.close()
        listed = subprocess.run([*ORBIQUANT, "agent", "list", "--json"], env=home, capture_output=True, timeout=60)
        nova = next(each for each in json.loads(listed.stdout) if each["name"] == "nova")
        assert nova["status"] == "running" and f":{run.pid}:" in nova["engine"]
    finally:
        run.send_signal(signal.SIGINT)
    assert run.wait(timeout=20) == 0
    with run.stderr:
        assert "nothing was opened since the interrupt" in run.stderr.read()


def test_one_room_for_everybody_who_asks(desk: Desk):
    assert room_of(desk.runtime) is room_of(desk.runtime)
