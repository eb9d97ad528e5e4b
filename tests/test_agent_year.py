"""The report of an agent's year: one run on the bars that are shipped, by rules alone, as a page and as figures."""

from pathlib import Path

import pandas as pd
import pytest

from orbiquant.desk.study import store_sample
from orbiquant.reports import find_report, run_report


def test_the_report_takes_an_agent_and_markets_that_are_stored():
    report = find_report("agent_year")
    assert report.needs_bars and [each.name for each in report.parameters] == [
        "agent", "symbols", "timeframe", "start", "end",
    ]  # fmt: skip
    assert report.check({"agent": "nova", "symbols": "BTCUSDT, ETHUSDT"})["symbols"] == ["BTCUSDT", "ETHUSDT"]


@pytest.mark.slow
def test_a_run_on_the_shipped_bars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path))
    store_sample("EURUSD", "1h")
    run = run_report("agent_year", {"agent": "orion", "start": "2017-02-01", "end": "2017-04-01"}, timeout_s=600)
    assert run.status == "succeeded", run.error
    made, page = run.metrics, run.html.read_text()
    assert made["agent"] == "orion" and {"breakout", "trend_following"} <= {*made["strategies"]}
    assert [*made["months"]] == ["2017-02", "2017-03"] and made["trades"] > 5
    whole = (1 + pd.Series(made["months"])).prod() - 1
    assert whole == pytest.approx(made["total_return"], abs=1e-9)
    assert made["outcomes"]["taken"] + made["outcomes"].get("resized", 0) >= made["trades"]
    assert "buy and hold" in page and "Months beside the target" in page and (run.html.parent / "trades.csv").exists()
