"""A symbol in no table is the same thing everywhere, and whoever asks is told that it was assumed."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from structlog.testing import capture_logs

from orbiquant.cli import main
from orbiquant.domain import BAR_COLUMNS, Bars, SeriesId
from orbiquant.features.spec import check_spec, spec_of
from orbiquant.market.bars import with_series
from orbiquant.market.calendars import expected_times
from orbiquant.market.instruments import infer_kind, instrument_of, known_instruments
from orbiquant.research.files import bars_of_file
from orbiquant.research.spec import ResearchSpec, feature_spec
from orbiquant.runtime import Runtime, using
from orbiquant.settings import load_settings
from tests.tools.shared_bars import SHARED, shared_bars

Ask = Callable[..., str]


def walk(index: pd.DatetimeIndex) -> Bars:
    """Return bars of a random walk."""
    close = 100 * np.exp(np.cumsum(np.random.default_rng(3).normal(0, 1e-3, len(index))))
    bars = pd.DataFrame(dict.fromkeys(BAR_COLUMNS, close), index=index.rename("time"))
    return bars.assign(high=close * 1.001, low=close * 0.999, volume=5.0)


@pytest.mark.parametrize(
    ("symbol", "asset_class", "base", "quote", "calendar"),
    [
        ("PEPEUSDT", "crypto", "PEPE", "USDT", "crypto"),
        ("1000SATSUSDC", "crypto", "1000SATS", "USDC", "crypto"),
        ("ADABTC", "crypto", "ADA", "BTC", "crypto"),
        ("LINKETH", "crypto", "LINK", "ETH", "crypto"),
        ("C98BUSD", "crypto", "C98", "BUSD", "crypto"),
        ("EURUSDT", "crypto", "EUR", "USDT", "crypto"),
        ("BTC", "crypto", "BTC", "USD", "crypto"),
        ("ETHUSDPERP", "crypto", "ETH", "USD", "crypto"),
        ("USDSGD", "forex", "USD", "SGD", "forex"),
        ("EURPLN", "forex", "EUR", "PLN", "forex"),
        ("XPDUSD", "metal", "XPD", "USD", "metals"),
        ("XAUAUD", "metal", "XAU", "AUD", "metals"),
        ("GER40", "index", "GER40", "USD", "metals"),
        ("DE30EUR", "index", "DE30", "EUR", "metals"),
        ("NVDA", "stock", "NVDA", "USD", "us_equity"),
        ("F5", "stock", "F5", "USD", "us_equity"),
        ("AAPLUS", "stock", "AAPLUS", "USD", "us_equity"),
        ("BRKB", "stock", "BRKB", "USD", "us_equity"),
        ("GBTC", "stock", "GBTC", "USD", "us_equity"),
        ("SAMSUNG", "stock", "SAMSUNG", "USD", "us_equity"),
        ("005930KS", "stock", "005930KS", "KRW", "XKRX"),
        ("0700HK", "stock", "0700HK", "HKD", "XHKG"),
        ("7203T", "stock", "7203T", "JPY", "XTKS"),
        ("2222SR", "stock", "2222SR", "SAR", "XSAU"),
    ],
)
def test_a_form_says_what_a_symbol_is(symbol: str, asset_class: str, base: str, quote: str, calendar: str):
    assert infer_kind(symbol) == (asset_class, base, quote, calendar)
    instrument, notice = instrument_of(symbol) if symbol not in known_instruments(None) else (None, "")
    if instrument:
        assert (instrument.calendar, instrument.asset_class) == (calendar, asset_class)
        assert symbol in notice and calendar in notice and "data/instruments.csv" in notice


def test_forms_agree_with_the_table():
    others = {"ORBUSD", "SPX", "NDX"}  # an invented pair, and indices that are named like stocks
    for symbol, instrument in known_instruments(None).items():
        if symbol not in others:
            told = instrument.model_dump(include={"asset_class", "base", "quote", "calendar"})
            assert infer_kind(symbol)._asdict() == told, symbol


@pytest.mark.parametrize(
    ("symbol", "kind", "base", "quote"),
    [
        ("EURUSDPRO", "forex", "EUR", "USD"),
        ("EURUSDM", "forex", "EUR", "USD"),
        ("XAUUSDM", "metal", "XAU", "USD"),
        ("BTCTRY", "crypto", "BTC", "TRY"),
        ("DOGEBRL", "crypto", "DOGE", "BRL"),
        ("EURUSDT", "crypto", "EUR", "USDT"),
        ("EURUSDC", "crypto", "EUR", "USDC"),
    ],
)
def test_suffixes_of_brokers_and_quotes_of_coins(symbol: str, kind: str, base: str, quote: str):
    told = infer_kind(symbol)
    assert (str(told.asset_class), told.base, told.quote) == (kind, base, quote)


def test_all_of_a_long_file_of_coins_are_coins():
    path = SHARED / "USDT136_1h_long.parquet"
    if not path.exists():
        pytest.skip("the shared bars are not here")
    symbols = pd.read_parquet(path, columns=["symbol"])["symbol"].unique()
    assert len(symbols) > 100 and {str(infer_kind(symbol).asset_class) for symbol in symbols} == {"crypto"}


@pytest.mark.parametrize(
    ("hours", "calendar"), [("us_equity", "us_equity"), ("forex", "forex"), ("metals", "forex"), ("crypto", "crypto")]
)
@pytest.mark.parametrize("timeframe", ["15m", "1h"])
def test_bars_refute_hours_that_are_not_theirs(hours: str, calendar: str, timeframe: str):
    index = expected_times("2024-02-05", "2024-04-20", timeframe, hours)
    assert instrument_of("MYSERIES", index).instrument.calendar == calendar


def test_real_bars_by_a_name_of_ones_own():
    for name, calendar in (("XAUUSD_1h", "forex"), ("BTCUSDT_5m", "crypto"), ("EURUSD_15m", "forex")):
        assert instrument_of("OWN", shared_bars(name).index).instrument.calendar == calendar


def test_bars_of_a_day_or_a_week_refute_nothing_that_fits():
    for timeframe in ("1d", "1w"):
        for calendar in ("us_equity", "XKRX"):
            index = expected_times("2021-01-01", "2024-01-01", timeframe, calendar)
            assert instrument_of("005930KS" if calendar == "XKRX" else "NVDA", index).instrument.calendar == calendar


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Ask]:
    """Yield a function that runs a command line in an empty workspace and returns what it printed."""
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path))

    def typed(*words: object) -> str:
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        assert not ended.value.code
        return capsys.readouterr().out

    with using(Runtime()):
        yield typed


def test_everybody_takes_the_same(ask: Ask, tmp_path: Path):
    index = expected_times("2024-02-05", "2024-04-20", "1h", "us_equity")
    bars = walk(index)
    bars.to_csv(tmp_path / "NVDA_1h.csv")
    series = SeriesId.parse("NVDA", "1h")
    settings = load_settings()
    named = bars_of_file(tmp_path / "NVDA_1h.csv")
    assert named.instrument == instrument_of("NVDA").instrument and "NVDA is in no instrument table" in named.notices[0]
    assert spec_of(with_series(bars, series)).calendar == feature_spec(settings, series).calendar == "us_equity"
    assert ResearchSpec.from_settings(settings, series).costs == settings.costs.of("stock")
    check_spec(with_series(bars, series), spec_of(with_series(bars, series)))
    told = json.loads(ask("data", "import", tmp_path / "NVDA_1h.csv", "--json"))
    assert told["report"]["calendar"] == "us_equity" and "NVDA is in no instrument table" in told["notices"][-1]
    checked = json.loads(ask("data", "check", "NVDA", "1h", "--json"))
    assert checked["calendar"] == "us_equity" and checked["missing"] == 0 and checked["notices"] == told["notices"]
    assert "NVDA is in no instrument table" in ask("data", "check", "NVDA", "1h")


def test_a_row_of_ones_own_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path))
    rows = "symbol,name,asset_class,base,quote,tick_size,pip_size,lot_size,calendar\n"
    rows += "VODL,Vodafone,stock,VODL,GBP,1,1,1,XLON"
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data" / "instruments.csv").write_text(rows)
    instrument, notice = instrument_of("VOD.L")
    assert (instrument.calendar, notice) == ("XLON", "")


def test_it_is_logged_once():
    with capture_logs() as said:
        for _ in range(3):
            instrument_of("ONCEUSDT")
    assert [entry["log_level"] for entry in said] == ["warning"]
