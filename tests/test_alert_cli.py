"""`orbiquant alert …` as it is typed, and bars that come by `data follow` or by a job."""

import pytest
import test_cli
from test_cli import Ask

from orbiquant.domain import SeriesId
from orbiquant.market.synthetic import synthetic_market
from orbiquant.runtime import current

ask = test_cli.ask  # the fixture
EURUSD = SeriesId.parse("EURUSD", "1h")


def test_an_alert_from_setting_it_to_removing_it(ask: Ask):
    bars = synthetic_market(300, "1h", seed=3).bars
    current().store.upsert(EURUSD, bars.iloc[:200])
    price = float(bars["close"].iloc[199])
    told = ask("alert", "add", "EUR/USD", "above", f"{price * 1.0001:.5f}", "--message", "time to look")
    assert told.code == 0 and "judged when bars of 1h close" in " ".join(told.out.split()), told.err
    far = ask("alert", "add", "EURUSD", "above", "0.5", "--json").json
    assert far["status"] == "active" and "it is there already" in far["message"]
    assert [each["symbol"] for each in ask("alert", "list", "--json").json] == ["EURUSD"] * 2
    ran = ask("jobs", "run", "alerts.judge")
    assert ran.code == 0 and "0 fired" in ran.out, "bars from before it was set do not count"
    gone = ask("alert", "remove", far["alert_id"][:6])
    assert gone.out.strip() == "EURUSD above 0.5 is removed."
    assert len(ask("alert", "list", "--status", "active", "--json").json) == 1
    assert "agents.step" in ask("jobs", "run", "agents.stepp").err, "the worker knows the engine's step too"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add", "XAUUSD", "above", "2000"), "no XAUUSD"),
        (("add", "EURUSD", "over", "2000"), "over"),
        (("add", "EURUSD", "above", "0"), "must be an amount above 0"),
        (("add", "EURUSD", "above", "nan"), "must be an amount above 0"),
        (("add", "EURUSD", "above", "1", "--message", "x" * 501), "at most 500 letters"),
        (("remove", "nothing"), "there is no alert"),
        (("list", "--status", "gone"), "gone"),
    ],
)
def test_what_cannot_be_is_one_line(ask: Ask, words: tuple[str, ...], said: str):
    answer = ask("alert", *words)
    assert answer.code in (1, 2) and said in " ".join(answer.err.split()), answer.err
    assert "Traceback" not in answer.err
