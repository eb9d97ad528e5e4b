"""Strategies by name at the command line: one that is not shipped passes sweep, walk-forward and audit unchanged."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orbiquant.cli import main
from orbiquant.domain import SeriesId
from orbiquant.runtime import Runtime, current, using
from tests.test_walk_forward import walk

Ask = Callable[..., tuple[int, str, str]]
COIN_1H = SeriesId.parse("COIN", "1h")
OWN = '''
import numpy as np
from typing import Annotated
from pydantic import Field
from orbiquant.strategies.rules import RuleStrategy


class Step:
    def __init__(self, every, gain):
        self.every, self.gain, self.seen = every, gain, 0

    def run(self, view, out):
        new, rows = slice(view.first, None), out.shape[1]
        at = (np.arange(self.seen, self.seen + rows) % self.every) == 0
        self.seen += rows
        out[0] = np.where(at, np.sign(view.close[new] - view.open[new]), 0.0)
        out[1], out[2] = 2 * view.atr[new], self.gain * view.atr[new]


class Every(RuleStrategy):
    """Goes with every so many bars."""

    name = "every"
    every: Annotated[int, Field(ge=2, le=500)] = 6
    gain: Annotated[float, Field(gt=0, le=50)] = 3.0
    warmup_bars = property(lambda self: 15)
    max_holding_bars = property(lambda self: 12)

    def rule(self):
        return Step(self.every, self.gain)


class Ahead(Every):
    """Knows the next close in its batch."""

    name = "ahead"

    def batch(self, bars, spec=None):
        said = super().batch(bars, spec)
        right = said["side"] * (bars["close"].shift(-1) - bars["close"]).fillna(0.0) > 0
        return said.assign(action=said["action"].where(right, "HOLD"))


class Otherwise(Every):
    """Begins to count anew where it is followed."""

    name = "otherwise"

    def follow(self, history, spec=None):
        return super().follow(history.iloc[-100:], spec)


class Nothing(Every):
    """Says no side."""

    name = "nothing"

    def rule(self):
        class Gap(Step):
            def run(self, view, out):
                super().run(view, out)
                out[0, -1] = np.nan

        return Gap(self.every, self.gain)
'''


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Ask]:
    """Yield a function that runs a command line in a workspace with a module of strategies and a file of bars."""
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "tried_strategies.py").write_text(OWN)
    (tmp_path / "settings.ini").write_text("[strategies]\nmodules = tried_strategies\n")
    walk(5, 3000).to_parquet(tmp_path / "COIN_1h.parquet")

    def typed(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([*words, "--bars", str(tmp_path / "COIN_1h.parquet")])
        return int(ended.value.code or 0), *capsys.readouterr()

    with using(Runtime()):
        yield typed


PARAMS = ("--param", "every=5,6,7", "--param", "gain=2:4:1")


def test_a_workspace_strategy_is_swept_and_counted(ask):
    code, out, err = ask("sweep", "--strategy", "every", *PARAMS, "--json")
    assert code == 0, err
    said = json.loads(out)
    assert said["combinations"] == 9 == current().trials.count(COIN_1H) and said["confirmed_by_vectorbt"]
    assert said["signals"] == "every" and {row["every"] for row in said["best"]} == {5, 6, 7}
    assert json.loads(ask("sweep", "--strategy", "every", *PARAMS, "--json")[1])["best"] == said["best"]
    assert current().trials.count(COIN_1H) == 9
    again = json.loads(ask("backtest", "--strategy", "every", "--param", "every=5", "--param", "gain=2", "--json")[1])
    assert current().trials.count(COIN_1H) == 9 == again["metrics"]["trials"]  # the same look at the same data
    row = next(row for row in said["best"] if (row["every"], row["gain"]) == (5, 2))
    assert row["trades"] == again["trades"] and row["expectancy_r"] == pytest.approx(again["metrics"]["expectancy_r"])
    assert [each["beside"] for each in again["baselines"]["rows"]] == ["strategy", "random entries", "buy and hold"]


def test_it_is_walked_forward(ask, tmp_path):
    words = ("sweep", "--strategy", "every", *PARAMS, "--walk-forward", "--stretch", "20d", "--min-trades", "20")
    code, out, err = ask(*words, "--save", str(tmp_path / "out.csv"), "--json")
    assert code == 0, err
    said = json.loads(out)["walk_forward"]
    assert said["headline"]["overfitting"]["trials"] == 10 == current().trials.count(COIN_1H)
    assert said["plan"]["stretch"] == "20d" and sum(row["trades"] for row in said["choices"]) > 30
    assert "out of sample" in said["verdict"] and (tmp_path / "out.csv").read_text().startswith("entry_time")
    told = ask(*words)[1]
    assert "out of sample" in told and "best in hindsight" in told and current().trials.count(COIN_1H) == 10


def test_exit_plans_and_levels_are_swept_too(ask):
    words = ("sweep", "--strategy", "every", "--param", "every=5,7", "--trail-atr", "none,2", "--json")
    said = json.loads(ask(*words)[1])
    assert said["combinations"] == 4 and {row["exits"] for row in said["best"]} == {"fixed", "trail_atr=2"}
    levels = json.loads(ask("sweep", "--strategy", "every", "--stop-atr", "1,2", "--risk-reward", "1,2", "--json")[1])
    assert levels["combinations"] == 4 and {row["max_holding_bars"] for row in levels["best"]} == {12}


@pytest.mark.slow
def test_it_passes_every_audit(ask):
    code, out, err = ask("audit", "prefix-replay", "--strategy", "every", "--param", "every=7", "--json")
    assert code == 0 and json.loads(out)["verdict"] == "pass", err
    words = ("--seeds", "1", "--rows", "3000", "--markets", "6", "--json")
    code, out, err = ask("audit", "null-market", "--strategy", "every", *words)
    said = json.loads(out)
    assert code == 0 and said["verdict"] == "pass" and said["policies"][0]["policy"] == "every", err
    code, out, err = ask("audit", "surrogates", "--strategy", "every", "--count", "3", "--json")
    assert code == 0 and json.loads(out)["claim"] == "every", err
    code, out, err = ask("audit", "delays", "--strategy", "every", "--most", "2", "--json")
    assert code == 0 and len(json.loads(out)["delays"]) == 3, err
    assert current().trials.count(COIN_1H) == 1  # surrogates and delays looked at the same trades


@pytest.mark.parametrize(
    ("name", "told"), [("ahead", "ahead looks ahead: `action` at 2024-"), ("otherwise", "otherwise steps otherwise: `")]
)
def test_a_fault_is_named_with_column_and_row(ask, name, told):
    code, out, _ = ask("audit", "prefix-replay", "--strategy", name, "--json")
    said = json.loads(out)
    assert code == 1 and said["verdict"] == "fail" and said["why"].startswith(told)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("sweep", "--strategy", "evry", "--param", "every=5"), "did you mean 'every'?"),
        (("sweep", "--strategy", "every", "--param", "evry=5"), "has no parameter `evry`, did you mean 'every'?"),
        (("sweep", "--strategy", "every", "--param", "every=5,1"), "must be greater than or equal to 2, was 1"),
        (("sweep", "--strategy", "every", "--param", "every"), "--param must be NAME=VALUES"),
        (("sweep", "--strategy", "every", "--param", "every=9:1:1"), "steps must be FIRST:LAST:STEP"),
        (("sweep", "--strategy", "nothing", "--param", "every=5"), "`side` of a rule must be +1, −1 or 0, was nan"),
        (("sweep", "--param", "every=5"), "--param needs the --strategy"),
        (("sweep", "--strategy", "every", "--policy", "base"), "--policy does not go with --strategy"),
        (("sweep", "--strategy", "every", "--param", "every=5", "--stop-atr", "1"), "does not go with --param"),
        (("sweep", "--strategy", "every", "--stretch", "9d"), "--stretch goes with --walk-forward"),
        (("sweep", "--strategy", "every", "--walk-forward", "--window", "x"), "--window must be as 90d for days"),
        (("backtest", "--strategy", "every", "--param", "every=5,6"), "must be one value here, was 2"),
        (("backtest", "--strategy", "every", "--param", "gain=99"), "must be less than or equal to 50, was 99"),
        (("audit", "delays", "--strategy", "nothing"), "`side` of a rule must be +1, −1 or 0, was nan"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(ask, words, told):
    code, _, err = ask(*words)
    said = " ".join(err.replace("│", " ").split())
    assert code != 0 and told in said and "Traceback" not in err and current().trials.count(COIN_1H) == 0
