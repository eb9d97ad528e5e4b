"""What every remote source promises, whatever its provider's server or table does."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from contracts.market_data import MarketDataContract
from orbiquant.core import DataError, FixedClock, OptionError, SettingsError
from orbiquant.domain import Bars, SeriesId, Timeframe
from orbiquant.market.bars import check_bars
from orbiquant.market.pulls import RemoteData, pull
from orbiquant.market.remote import PULLING, RemoteSource
from orbiquant.market.store import DeltaBarStore
from tests.tools.fake_providers import FakeProvider, cut, reply
from tests.tools.programs import run_program

LATER = datetime(2024, 3, 11, 12, tzinfo=UTC)  # days after the last bar
LIMIT_2S, BAN_2S = reply(429, Retry_After="2"), reply(418, Retry_After="2")
QUICK = replace(PULLING, attempts=4, first_pause_s=0.01, max_pause_s=60)


class RemoteSourceContract(MarketDataContract):
    """
    Subclasses give three fixtures besides the name of a series and its `timeframe`.

    `rows` are what the provider has, bars of the timeframe `base`; `serve(rows, honest=True)` puts others in their
    place; `open_source(clock=…, repair=…, page=…)` opens a source. `expected` are the bars of the contract's timeframe
    that the rows make up, where that is another one.
    """

    base = "1h"

    @pytest.fixture
    def expected(self, rows: Bars) -> Bars:
        """Return the bars that the rows make up."""
        return rows

    @pytest.fixture
    def source(self, open_source: Callable[..., RemoteSource]) -> RemoteSource:
        """Return a source that asks long after the last bar."""
        return open_source()

    def test_it_is_remote_data(self, source: RemoteSource):
        assert isinstance(source, RemoteData) and source.span(self.series.timeframe) >= timedelta(days=1)

    def test_everything_comes_as_it_was(self, source: RemoteSource, expected: Bars):
        pd.testing.assert_frame_equal(source.bars(self.series), expected, check_freq=False)
        assert source.begins(self.series) <= expected.index[0]

    @pytest.mark.parametrize("over", [-1, 0, 1])
    @pytest.mark.parametrize("pages", [1, 2])
    def test_edges_of_pages(self, over: int, pages: int, open_source: Callable[..., RemoteSource], expected: Bars):
        source = open_source(page=20)
        start, end = expected.index[20], expected.index[20 + 20 * pages + over]
        bars = source.bars(self.series, start, end)
        pd.testing.assert_frame_equal(bars, expected.loc[start : end - timedelta(seconds=1)], check_freq=False)

    def test_a_long_gap_is_not_the_end(
        self, open_source: Callable[..., RemoteSource], serve: Callable[..., None], rows: Bars, expected: Bars
    ):
        gap = (expected.index[30], expected.index[90])
        serve(rows[(rows.index < gap[0]) | (rows.index >= gap[1])])
        bars = open_source(page=20).bars(self.series)
        left = expected[(expected.index < gap[0]) | (expected.index >= gap[1])]
        pd.testing.assert_frame_equal(bars, left, check_freq=False)
        inside = open_source(page=20).bars(self.series, gap[0], gap[1])
        assert inside.empty, "a window with nothing in it is empty, not an unknown symbol"

    @pytest.mark.parametrize("seconds", [-1, 0])
    def test_a_bar_counts_when_it_has_closed(
        self, seconds: int, open_source: Callable[..., RemoteSource], expected: Bars
    ):
        close = expected.index[50] + Timeframe.parse(self.timeframe).delta
        clock = FixedClock((close + timedelta(seconds=seconds)).to_pydatetime())
        bars = open_source(clock=clock).bars(self.series)
        assert bars.index[-1] == expected.index[50 + seconds]

    def test_a_lie_of_duplicates_and_disorder_is_put_right(
        self, source: RemoteSource, serve: Callable[..., None], rows: Bars, expected: Bars
    ):
        serve(pd.concat([rows[len(rows) // 2 :], rows[: len(rows) // 2], rows[20:40]]))
        bars = source.bars(self.series, expected.index[0])
        pd.testing.assert_frame_equal(bars, expected, check_freq=False)

    def test_the_forming_bar_sent_twice_is_not_taken(
        self, open_source: Callable[..., RemoteSource], serve: Callable[..., None], rows: Bars, expected: Bars
    ):
        forming = rows[-1:].assign(volume=1.0)
        serve(pd.concat([rows[:-1], forming, forming]))
        clock = FixedClock((expected.index[-1] + timedelta(minutes=30)).to_pydatetime())
        bars = open_source(clock=clock).bars(self.series)
        pd.testing.assert_frame_equal(bars, expected[:-1], check_freq=False)

    def test_impossible_rows_are_refused_or_repaired_by_name(
        self, open_source: Callable[..., RemoteSource], serve: Callable[..., None], rows: Bars, expected: Bars
    ):
        broken = rows.copy()
        broken.iloc[70, 1] = broken.iloc[70, 2] * 0.99
        serve(broken)
        with pytest.raises(DataError, match=r"(?s)1 × impossible .* drop_impossible") as refused:
            open_source().bars(self.series)
        assert refused.value.message.startswith(f"{open_source().provider} {self.symbol} sent bars that cannot be")
        bars = open_source(repair=["drop_impossible"]).bars(self.series)
        assert check_bars(bars, self.timeframe).equals(bars) and len(expected) - 1 <= len(bars) <= len(expected)
        with pytest.raises(OptionError, match="`rule` must be one of"):
            open_source(repair=["polish"])

    def test_a_hole_is_reported_by_the_pull(
        self, source: RemoteSource, serve: Callable[..., None], rows: Bars, expected: Bars, tmp_path: Path
    ):
        hole = (expected.index[30], expected.index[33])
        serve(rows[(rows.index < hole[0]) | (rows.index >= hole[1])])
        result = pull(DeltaBarStore(tmp_path), source, self.series, clock=source.clock)
        assert result.report is not None and result.report.missing == 3 and result.report.longest_gap.bars == 3

    def test_a_pull_is_idempotent_and_goes_on(
        self, open_source: Callable[..., RemoteSource], expected: Bars, tmp_path: Path
    ):
        store, clock = DeltaBarStore(tmp_path), FixedClock(LATER)
        half = expected.index[len(expected) // 2]
        first = pull(store, open_source(), self.series, end=half, clock=clock, chunk_bars=60)
        second = pull(store, open_source(), self.series, clock=clock, chunk_bars=60)
        assert (first.rows_added, second.rows_added) == (len(expected) // 2, len(expected) - len(expected) // 2)
        pd.testing.assert_frame_equal(store.read(self.series), expected, check_freq=False)
        third = pull(store, open_source(), self.series, expected.index[0], clock=clock)
        assert (third.rows_added, third.version) == (0, second.version)


class HttpSourceContract(RemoteSourceContract):
    """What a source over HTTP promises besides. Subclasses give a running `provider` instead of `rows` and `serve`."""

    @pytest.fixture
    def waited(self) -> list[float]:
        """Return the pauses that were made."""
        return []

    @pytest.fixture
    def rows(self, provider: FakeProvider) -> Bars:
        """Return what the server has."""
        return provider.rows

    @pytest.fixture
    def serve(self, provider: FakeProvider) -> Callable[..., None]:
        """Return a function that gives the server other rows."""

        def put(rows: Bars, honest: bool = True) -> None:
            provider.rows, provider.honest = rows, honest

        return put

    @pytest.mark.parametrize(
        "fault",
        [LIMIT_2S, reply(429), BAN_2S, reply(500), reply(502), reply(503), cut],
        ids=["429 for 2 s", "429", "418 for 2 s", "500", "502", "503", "cut"],
    )
    def test_a_fault_that_passes_is_waited_for(
        self, fault: Any, provider: FakeProvider, source: RemoteSource, expected: Bars, waited: list[float]
    ):
        source.bars(self.series, expected.index[3], expected.index[5])
        waited.clear()
        provider.faults.extend([fault, fault])
        window = (expected.index[0], expected.index[100])
        pd.testing.assert_frame_equal(source.bars(self.series, *window), expected[:100], check_freq=False)
        pauses = [pause for pause in waited if pause]
        assert len(pauses) >= 2
        if fault in (LIMIT_2S, BAN_2S):
            assert all(pause >= 2 for pause in pauses[:2])

    @pytest.mark.parametrize(
        ("faults", "said"),
        [
            ([reply(503)] * 9, "did not answer in 4 attempts"),
            ([cut] * 9, "did not answer in 4 attempts"),
            ([reply(429, Retry_After="7200")], r"asks for a pause of 7200 s.*run the same line again"),
        ],
        ids=["503 for good", "cut for good", "two hours"],
    )
    def test_a_fault_that_stays_is_an_error(
        self, faults: list[Any], said: str, provider: FakeProvider, source: RemoteSource, expected: Bars
    ):
        source.bars(self.series, expected.index[3], expected.index[5])
        provider.faults.extend(faults)
        with pytest.raises(DataError, match=said) as refused:
            source.bars(self.series, expected.index[0], expected.index[100])
        assert source.provider in refused.value.message

    bodies = (
        b'{"results": [1, 2',
        b"<html>Attention Required!</html>",
        b"[[1, 2], 3]",
        b'{"bars": 7, "results": "x"}',
        b"null",
    )

    @pytest.mark.parametrize("body", bodies, ids=lambda body: body.decode()[:12])
    def test_nonsense_is_an_error_not_a_traceback(
        self, body: bytes, provider: FakeProvider, source: RemoteSource, expected: Bars
    ):
        source.bars(self.series, expected.index[3], expected.index[5])
        provider.faults.extend([reply(200, body)] * 9)
        with pytest.raises(DataError) as refused:
            source.bars(self.series, expected.index[0], expected.index[100])
        assert source.provider in refused.value.message and len(refused.value.message) < 1200

    def test_a_server_that_is_not_there_is_an_error(
        self, provider: FakeProvider, open_source: Callable[..., RemoteSource]
    ):
        provider.url = "http://127.0.0.1:9"
        with pytest.raises(DataError, match="did not answer in 4 attempts"):
            open_source().bars(self.series)


class KeyContract:
    """What a source promises that needs a key: nobody but its provider hears of it."""

    secrets: tuple[str, ...] = ()

    def test_keys_stay_secret(
        self,
        provider: FakeProvider,
        open_source: Callable[..., RemoteSource],
        expected: Bars,
        capsys: pytest.CaptureFixture[str],
        caplog: pytest.LogCaptureFixture,
    ):
        source = open_source()
        echo = " ".join(self.secrets).encode()
        told = [repr(source), repr(vars(source)), repr(vars(getattr(source, "_client", source)))]
        for fault in (reply(400, echo), reply(401, echo), reply(403, echo), reply(200, echo), reply(503, echo)):
            provider.faults.extend([fault] * 9)
            with pytest.raises((DataError, SettingsError)) as refused:
                source.bars(self.series, expected.index[0], expected.index[9])
            provider.faults.clear()
            chain = [refused.value, refused.value.__cause__, refused.value.__context__]
            told += [f"{error!r} {error} {vars(error) if error else ''}" for error in chain]
        provider.requests.clear()
        source.bars(self.series, expected.index[0], expected.index[9])
        told += [f"{asked.path} {asked.query}" for asked in provider.requests]
        said = capsys.readouterr()
        told += [said.out, said.err, caplog.text]
        assert all(secret not in text for secret in self.secrets for text in told)
        sent = str([asked.headers for asked in provider.requests])
        assert all(secret in sent for secret in self.secrets)


class WindowContract:
    """What a source promises whose server may ignore the window it was asked for."""

    def test_bars_outside_the_window_are_left_out(
        self, source: RemoteSource, serve: Callable[..., None], expected: Bars
    ):
        serve(expected, honest=False)
        bars = source.bars(self.series, expected.index[60], expected.index[90])
        pd.testing.assert_frame_equal(bars, expected[60:90], check_freq=False)


SCRIPT = """
import sys
from orbiquant.core import configure_logging
from orbiquant.domain import SeriesId
from orbiquant.market.pulls import pull
from orbiquant.market.store import DeltaBarStore
{imports}
configure_logging("ERROR")
def told(done, steps, what):
    print(done, flush=True)
series = SeriesId.parse("{symbol}", "{timeframe}")
pull(DeltaBarStore(sys.argv[1]), {source}, series, progress=told, chunk_bars={chunk}, clock=CLOCK)
"""


class KillContract:
    """
    A pull that is killed with -9 is finished by the next.

    Subclasses give a fixture `recipe`: imports, with a `CLOCK`, and an expression, that make the source elsewhere.
    """

    chunk_bars = 6

    @property
    def series(self) -> SeriesId:
        """Return which bars are pulled."""
        return SeriesId.parse(self.symbol, self.timeframe)

    def test_a_killed_pull_is_finished_by_the_next(self, open_source: Any, expected: Bars, tmp_path: Path, recipe: Any):
        imports, made = recipe
        script = SCRIPT.format(
            imports=imports, source=made, symbol=self.symbol, timeframe=self.timeframe, chunk=self.chunk_bars
        )
        environment = {"PYTHONPATH": f"{Path(__file__).parents[1]}:{Path(__file__).parents[2]}"}
        with run_program(
            [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
        ) as child:
            assert child.stdout is not None
            assert [child.stdout.readline() for _ in range(3)] == ["1\n", "2\n", "3\n"]
            child.kill()
            child.wait(timeout=20)
        assert child.returncode == -9
        store = DeltaBarStore(tmp_path)
        held = store.read(self.series)
        assert 0 < len(held) < len(expected) and held.equals(expected.loc[held.index[0] : held.index[-1]])
        source = open_source()
        pull(store, source, self.series, expected.index[0], clock=source.clock, chunk_bars=100)
        pd.testing.assert_frame_equal(store.read(self.series), expected, check_freq=False)
