"""Settings, files, logging and the shared nouns: every override, every refusal, and what a reader is told."""

import hashlib
import json
import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from orbiquant.core import (
    DataError,
    FixedClock,
    MissingLibrary,
    NotFoundError,
    OrbiError,
    SettingsError,
    SystemClock,
    asset,
    atomic_write,
    configure_logging,
    endpoint,
    get_logger,
    mask_secrets,
    require_library,
    tool,
)
from orbiquant.domain import Action, Costs, Instrument, Phase, Signal, Timeframe, normalise_symbol
from orbiquant.market.instruments import find_instrument, known_instruments, read_instruments
from orbiquant.orders import Intent, Order, Side
from orbiquant.settings import Settings, load_settings
from tests.tools.programs import run_program


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty workspace, with no setting in the environment."""
    for name in [name for name in os.environ if name.upper().startswith("ORBIQUANT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path))
    return tmp_path


def refusal(error: type[Exception] = SettingsError, **overrides: Any) -> str:
    """Return what loading the settings complains of."""
    with pytest.raises(error) as refused:
        load_settings(**overrides)
    return str(refused.value)


# --- settings: where they come from ---


def test_a_file_that_cannot_be_opened_is_not_taken_for_an_empty_one(home: Path):
    (home / "settings.ini").mkdir()
    assert "settings.ini cannot be read as settings: Is a directory" in refusal()


def test_a_policy_that_is_none_is_refused_with_its_place(home: Path):
    (home / "settings.ini").write_text("[signals]\npolicy = primry\n")
    assert "settings.ini [signals] policy: must be one of primary, base" in refusal()


def test_each_source_overrides_the_one_before(home: Path, monkeypatch: pytest.MonkeyPatch):
    assert load_settings().models.folds == 5
    (home / "settings.ini").write_text("[models]\nfolds = 6\nrounds = 60\nseed = 66\n")
    assert load_settings().models.folds == 6
    (home / ".env").write_text("ORBIQUANT_MODELS_FOLDS=8\nORBIQUANT_MODELS_ROUNDS=80\n")
    assert load_settings().models.folds == 8
    monkeypatch.setenv("ORBIQUANT_MODELS_FOLDS", "9")
    assert load_settings().models.folds == 9
    assert load_settings(models={"folds": 3}).models.folds == 3
    merged = load_settings().models
    assert (merged.folds, merged.rounds, merged.seed, merged.max_depth) == (9, 80, 66, 4)


def test_every_packaged_setting_can_be_overridden_from_every_source(home: Path, monkeypatch: pytest.MonkeyPatch):
    packaged = load_settings()
    assert packaged.signals.min_confidence >= 0.6
    (home / "settings.ini").write_text(asset("settings.ini").read_text())
    assert load_settings() == packaged
    for section, keys in packaged.model_dump(mode="json").items():
        for key, value in keys.items():
            text = ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
            monkeypatch.setenv(f"ORBIQUANT_{section}_{key}".upper(), text)
    assert load_settings() == packaged


def test_the_packaged_file_says_what_the_sections_say_by_themselves():
    packaged = load_settings()
    for name, section in Settings.model_fields.items():
        said, kind = getattr(packaged, name), section.annotation
        needed = {key: getattr(said, key) for key, each in kind.model_fields.items() if each.is_required()}
        differ = ("strategies", "cool_down_bars", "policy", "min_confidence", "timeframe")  # from agent to agent
        own = {key: getattr(said, key) for key in differ} if needed else {}
        assert said == kind(**needed, **own), name


@pytest.mark.parametrize("source", ["settings.ini", ".env", "environment"])
def test_lists_are_written_with_commas_everywhere(source: str, home: Path, monkeypatch: pytest.MonkeyPatch):
    written = {
        ("models", "quantiles"): "0.2, 0.8",
        ("market", "symbols"): "SPX,NDX",
        ("costs", "forex"): "1, 2,3",
    }
    for (section, key), value in written.items():
        name = f"ORBIQUANT_{section}_{key}".upper()
        if source == "environment":
            monkeypatch.setenv(name, value)
        else:
            line = f"[{section}]\n{key} = {value}\n" if source == "settings.ini" else f'{name}="{value}"\n'
            with (home / source).open("a") as file:
                file.write(line)
    merged = load_settings()
    assert merged.models.quantiles == (0.2, 0.8)
    assert merged.market.symbols == ("SPX", "NDX")
    assert merged.costs.forex == (1.0, 2.0, 3.0)
    assert merged.costs.crypto == (10.0, 1.0, 0.2)


def test_paths_count_from_the_workspace(home: Path):
    merged = load_settings()
    assert merged.path(merged.workspace.models_dir) == home / "data" / "models"
    assert merged.path("/elsewhere/x") == Path("/elsewhere/x")


def test_settings_are_frozen(home: Path):
    merged = load_settings()
    with pytest.raises(ValidationError):
        merged.models.folds = 1  # type: ignore[misc]


# --- settings: what is refused, and how ---


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[modles]\nfolds = 3", ("[modles]", "unknown section", "'models'")),
        ("[models]\nfoldss = 3", ("[models] foldss", "unknown key", "'folds'")),
        ("[models]\nzzzzzz = 3", ("[models] zzzzzz", "unknown key")),
        ("[models]\nfolds = many", ("[models] folds", "a whole number", "'many'")),
        ("[models]\nfolds = 0", ("[models] folds", "greater than or equal to 1", "'0'")),
        ("[models]\nquantiles = 0.1, 1.7", ("[models] quantiles", "less than 1", "'1.7'")),
        ("[costs]\nforex = 1, -2, 3", ("[costs] forex", "greater than or equal to 0", "'-2'")),
        ("[sessions]\nasia = 20:00-24:00", ("[sessions] asia", "HH:MM-HH:MM", "'20:00-24:00'")),
        ("[signals]\nmin_confidence = 0.59", ("[signals] min_confidence", "0.6", "'0.59'")),
        ("[market]\ntimeframes = 5m, 7m", ("[market] timeframes", "'5m'", "'7m'")),
        ("folds = 3", ("cannot be read", "line 1 stands before any [section]")),
        ("[models]\nfolds = 1\nfolds = 2", ("cannot be read", "line 3 repeats")),
        ("[models]\n\n[models]\nfolds = 2", ("cannot be read", "line 3 repeats")),
    ],
)
def test_a_bad_file_names_itself_section_key_and_value(text: str, said: tuple[str, ...], home: Path):
    (home / "settings.ini").write_text(text)
    message = refusal()
    assert all(part in message for part in (str(home / "settings.ini"), *said)), message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("polygon_api_key = hunter2\n", 1),
        ("[providers]\npolygon_api_key hunter2\n", 2),
        ("[providers]\n\npolygon_api_key\nsql_url = hunter2\npolygon_api_key hunter2\n", 3),
        ("[providers]\npolygon_api_key = hunter2\npolygon_api_key = hunter2\n", 3),
        ("[providers]\npolygon_api_key = hunter2\n[providers]\n", 3),
    ],
)
def test_a_line_that_cannot_be_read_is_numbered_and_not_quoted(text: str, line: int, home: Path):
    (home / "settings.ini").write_text(text)
    with pytest.raises(SettingsError, match=f"settings.ini cannot be read as settings: line {line} ") as refused:
        load_settings()
    error = refused.value
    assert error.__suppress_context__ and "hunter2" not in f"{error!r} {error} {error.__cause__!r}"


@pytest.mark.parametrize(
    ("name", "text"), [("settings.ini", "[models]\nfolds = 3\n"), (".env", "ORBIQUANT_MODELS_FOLDS=3\n")]
)
def test_a_byte_order_mark_is_no_part_of_a_file(name: str, text: str, home: Path):
    (home / name).write_text(text, encoding="utf-8-sig")
    assert load_settings().models.folds == 3


def test_a_default_section_is_no_section(home: Path):
    (home / "settings.ini").write_text("[DEFAULT]\nfolds = 3\n")
    assert "[DEFAULT]" in refusal()


def test_a_file_of_other_bytes_is_refused(home: Path):
    (home / "settings.ini").write_bytes(b"[models]\nfolds = \xff\xfe\n")
    assert "cannot be read" in refusal()


@pytest.mark.parametrize("source", [".env", "environment"])
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ORBIQUANT_MODLES_FOLDS", "3", ("unknown section", "'models'")),
        ("ORBIQUANT_MODELS_FOLDSS", "3", ("[models] foldss", "unknown key", "'folds'")),
        ("ORBIQUANT_MODELS_FOLDS", "many", ("[models] folds", "a whole number", "'many'")),
        ("ORBIQUANT_MODELS_LEARNING_RATE", "2", ("[models] learning_rate", "less than or equal to 1", "'2'")),
    ],
)
def test_a_bad_variable_names_itself(
    source: str, name: str, value: str, said: tuple[str, ...], home: Path, monkeypatch: pytest.MonkeyPatch
):
    if source == "environment":
        monkeypatch.setenv(name, value)
    else:
        (home / ".env").write_text(f"{name}={value}\n")
    origin = "environment variable" if source == "environment" else str(home / ".env")
    message = refusal()
    assert all(part in message for part in (f"{origin} {name}", *said)), message


def test_the_stronger_source_is_blamed(home: Path, monkeypatch: pytest.MonkeyPatch):
    (home / "settings.ini").write_text("[models]\nfolds = 4\n")
    (home / ".env").write_text("ORBIQUANT_MODELS_FOLDS=0\n")
    assert str(home / ".env") in refusal()
    monkeypatch.setenv("ORBIQUANT_MODELS_FOLDS", "-1")
    assert "environment variable ORBIQUANT_MODELS_FOLDS" in refusal()


def test_all_bad_values_are_named_at_once(home: Path):
    (home / "settings.ini").write_text("[models]\nfolds = 0\n[backtest]\nrisk_per_trade = 0.5\n")
    message = refusal()
    assert "[models] folds" in message and "[backtest] risk_per_trade" in message


def test_a_dotenv_shared_with_other_programs_is_no_error(home: Path):
    (home / ".env").write_text("DATABASE_PASSWORD=x\nORBIQUANT_MODELS_FOLDS=3\n")
    assert load_settings().models.folds == 3


# --- files ---

WRITER = """
import hashlib, itertools, pathlib, sys
from orbiquant.core import atomic_write
for n in itertools.count():
    body = f"{n} " * 40_000
    atomic_write(pathlib.Path(sys.argv[1]), hashlib.sha256(body.encode()).hexdigest() + body)
"""


def is_whole(content: bytes) -> bool:
    """Return whether a file is one whole version of what the writer writes."""
    return content[:64].decode() == hashlib.sha256(content[64:]).hexdigest()


@pytest.mark.parametrize("seconds", [0.05, 0.13, 0.37])
def test_a_killed_writer_leaves_a_whole_file(seconds: float, tmp_path: Path):
    target = tmp_path / "made" / "file.txt"
    with run_program([sys.executable, "-c", WRITER, str(target)]) as writer:
        while not target.exists():
            assert writer.poll() is None
            time.sleep(0.005)
        until, seen = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            assert is_whole(target.read_bytes())
            seen += 1
        writer.send_signal(signal.SIGKILL)
    assert is_whole(target.read_bytes())
    assert seen > 5
    assert len(list(target.parent.iterdir())) <= 2


def test_a_failed_write_changes_nothing(tmp_path: Path):
    target = atomic_write(tmp_path / "a.txt", "old")
    with pytest.raises(UnicodeEncodeError):
        atomic_write(target, "\ud800")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        atomic_write(tmp_path / "folder", "new")
    assert target.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "folder"]


def test_an_asset_that_is_not_shipped_is_named():
    with pytest.raises(NotFoundError, match=r"no/such\.txt"):
        asset("no", "such.txt")


# --- clock ---


def test_a_fixed_clock_moves_only_when_moved():
    clock = FixedClock(datetime(2024, 3, 1, 12, tzinfo=timezone(timedelta(hours=2))))
    assert clock.now() == clock.now() == datetime(2024, 3, 1, 10, tzinfo=UTC)
    clock.advance(timedelta(minutes=5))
    assert clock.now() == datetime(2024, 3, 1, 10, 5, tzinfo=UTC)
    assert clock.now().tzinfo is UTC
    with pytest.raises(DataError, match="time zone"):
        FixedClock(datetime(2024, 3, 1))
    assert SystemClock().now().tzinfo is UTC


# --- logging ---


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """Put the logging of the other tests back."""
    before = structlog.get_config()
    yield
    configure_logging("AUTO")
    structlog.configure(**before)


def test_logs_are_json_lines_on_standard_error_without_secrets(
    capfd: pytest.CaptureFixture[str], logging_as_before: None
):
    configure_logging("INFO", json_lines=True)
    log = get_logger("test").bind(session_token="s3cret")
    log.info("asked", api_key="s3cret", Authorization="Bearer s3cret", DB_PASSWORD="s3cret", symbol="EURUSD", rows=3)
    log.debug("not said")
    try:
        raise DataError("`x` must be 1, was 2")
    except DataError:
        log.exception("failed", apiKey="s3cret")
    logging.getLogger("library").error("of a library")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("of a library, too", stacklevel=1)
    said = capfd.readouterr()
    assert said.out == "" and "s3cret" not in said.err
    first, second, *foreign = map(json.loads, said.err.splitlines())
    assert [entry["level"] for entry in foreign] == ["error", "warning"] and foreign[0]["event"] == "of a library"
    assert all(entry["timestamp"] for entry in foreign)
    assert (first["event"], first["level"], first["module"]) == ("asked", "info", "test")
    assert (first["symbol"], first["rows"], first["api_key"]) == ("EURUSD", 3, "***")
    assert datetime.fromisoformat(first["timestamp"]).tzinfo == UTC
    assert "`x` must be 1, was 2" in second["exception"]


@given(st.sampled_from(["token", "TOKEN", "api_key", "ApiKey", "client_secret", "Password", "credentials"]), st.text())
def test_masking_keeps_every_name_and_no_secret(name: str, value: str):
    event = {"event": "e", name: value}
    assert mask_secrets(None, "info", event) == {"event": "e", name: "***"}
    assert event[name] == value


# --- decorators ---


def test_decorators_return_the_function_itself():
    def plain(symbol: str) -> str:
        "Return it."
        return symbol

    assert endpoint("GET", "/x/{symbol}", scope="public")(plain) is plain
    assert tool(plan="pro", effect="trade", aliases=("x",))(plain) is plain
    assert plain("a") == "a"
    marked: Any = plain
    assert (marked.__orbiquant_endpoint__.path, marked.__orbiquant_endpoint__.scope) == ("/x/{symbol}", "public")
    assert (marked.__orbiquant_tool__.plan, marked.__orbiquant_tool__.effect) == ("pro", "trade")
    with pytest.raises(OrbiError, match="`path` must begin with '/', was 'x'"):
        endpoint("GET", "x")
    with pytest.raises(OrbiError, match="`method` must be one of GET, POST, PUT, PATCH, DELETE, was 'FETCH'"):
        endpoint("FETCH", "/x")  # type: ignore[arg-type]


# --- the shared nouns ---

LONG = {
    "symbol": "eur/usd",
    "timeframe": "1h",
    "time": datetime(2024, 3, 1, tzinfo=UTC),
    "action": "LONG",
    "confidence": 0.6,
    "entry_price": 1.1,
    "stop_loss": 1.09,
    "take_profit": 1.12,
    "risk_reward": 2.0,
    "amd_phase": "distribution",
    "horizon": "24h",
    "reasoning": [],
    "features": [],
    "model_version": "v",
}


def test_a_sound_signal_is_kept_exactly():
    made = Signal.model_validate(LONG)
    assert (made.symbol, made.timeframe, made.action) == ("EURUSD", Timeframe.H1, Action.LONG)
    assert Signal.model_validate_json(made.model_dump_json()) == made
    short = LONG | {"action": "SHORT", "stop_loss": 1.12, "take_profit": 1.09}
    assert Signal.model_validate(short).action is Action.SHORT
    hold = LONG | {"action": "HOLD", "confidence": 0.1, "stop_loss": None, "take_profit": None, "risk_reward": None}
    assert Signal.model_validate(hold | {"amd_phase": "manipulation"}).amd_phase is Phase.MANIPULATION


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"confidence": 0.599}, "must be HOLD below 0.60"),
        ({"confidence": 1.01}, "less than or equal to 1"),
        ({"confidence": float("nan")}, "confidence"),
        ({"amd_phase": "manipulation"}, "must be HOLD in manipulation"),
        ({"stop_loss": 1.1}, "stop < entry < target"),
        ({"take_profit": 1.05}, "stop < entry < target"),
        ({"action": "SHORT"}, "target < entry < stop"),
        ({"stop_loss": None}, "needs a `stop_loss`"),
        ({"entry_price": float("inf")}, "entry_price"),
        ({"entry_price": 0}, "entry_price"),
        ({"time": datetime(2024, 3, 1)}, "timezone"),
        ({"timeframe": "7m"}, "timeframe"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_an_unsound_signal_is_refused(change: dict[str, Any], said: str):
    with pytest.raises(ValidationError, match=said):
        Signal.model_validate(LONG | change)


ORDER = {"client_order_id": "a-1", "symbol": "BTC/USDT", "side": "BUY", "quantity": "0.1"} | {
    "bracket": {"stop_loss": "90", "take_profit": "120"}
}


def test_an_order_is_exact_and_names_its_levels():
    made = Order.model_validate(ORDER)
    assert (made.symbol, made.side, made.quantity) == ("BTCUSDT", Side.BUY, Decimal("0.1"))
    assert made.bracket is not None and made.bracket.stop_loss == 90
    limit = Order.model_validate(ORDER | {"type": "limit", "limit_price": "100"})
    assert limit.bracket == made.bracket


def test_what_opens_is_covered_by_a_stop_of_its_own_or_by_a_baskets():
    wants = {
        **{"id": "atlas-1", "account": "paper", "agent": "atlas", "strategy": "ml", "symbol": "BTCUSDT"},
        **{"timeframe": "1h", "time": datetime(2024, 1, 2, tzinfo=UTC), "purpose": "open", "side": "BUY"},
        **{"entry_price": "100"},
    }
    with pytest.raises(ValidationError, match="no `basket` covers it"):
        Intent.model_validate(wants)
    assert Intent.model_validate(wants | {"basket": "grid-1"}).bracket.stop_loss is None
    assert Intent.model_validate(wants | {"purpose": "close"}).basket is None
    with pytest.raises(ValidationError, match="stop < entry < target"):
        Intent.model_validate(wants | {"bracket": {"stop_loss": "110"}})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"reduce_only": True}, "belongs to an order that opens"),
        ({"type": "limit"}, "needs `limit_price`"),
        ({"trigger_price": "100"}, "has no `trigger_price`"),
        ({"quantity": "0"}, "greater than 0"),
        ({"quantity": "Infinity"}, "finite"),
        ({"quantity": "NaN"}, "finite"),
        ({"client_order_id": "has space"}, "client_order_id"),
        ({"client_order_id": "x" * 37}, "client_order_id"),
        ({"type": "limit", "limit_price": "80"}, "stop < entry < target"),
        ({"side": "SELL", "type": "limit", "limit_price": "100"}, "target < entry < stop"),
        ({"side": "HOLD"}, "side"),
    ],
)
def test_an_unsound_order_is_refused(change: dict[str, Any], said: str):
    with pytest.raises(ValidationError, match=said):
        Order.model_validate(ORDER | change)


@pytest.mark.parametrize("spelling", ["BTCUSDT", "btc/usdt", "btc-usdt", "BTC_USDT", " btc usdt ", "btc.usdt"])
def test_a_symbol_has_one_spelling(spelling: str):
    assert normalise_symbol(spelling) == "BTCUSDT"
    assert find_instrument(spelling).symbol == "BTCUSDT"


def test_a_missing_library_names_its_extra_and_a_broken_one_speaks_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "broken_library.py").write_text("import what_it_needs")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("no_such_library", "no_such_library.part"):
        with pytest.raises(MissingLibrary, match=r"is not installed: pip install 'orbiquant\[deep\]'") as refused:
            require_library(name, "deep")
        assert (refused.value.code, refused.value.details) == ("LIBRARY_MISSING", {"module": name, "extra": "deep"})
    with pytest.raises(ModuleNotFoundError, match="what_it_needs"):
        require_library("broken_library", "deep")


@given(st.text(max_size=30))
def test_a_symbol_is_normal_or_refused(text: str):
    try:
        name = normalise_symbol(text)
    except DataError as error:
        assert repr(text) in str(error)
    else:
        assert name.isascii() and name.isalnum() and name == name.upper() == normalise_symbol(name)


def test_costs_of_a_round_trip():
    costs = Costs(fee_bps=10, slippage_bps=1, spread_bps=2)
    assert costs.in_r(0.01) == pytest.approx(2 * (10 + 1 + 1) / 100)
    assert Costs().in_r(0.01) == 0
    with pytest.raises(ValidationError):
        Costs(fee_bps=-1)


@given(st.floats(0, 50), st.floats(0, 50), st.floats(0, 50), st.floats(1e-4, 0.2), st.sampled_from([1, -1]))
def test_in_r_is_what_two_market_orders_lose(fee: float, slippage: float, spread: float, stop: float, side: int):
    costs = Costs(fee_bps=fee, slippage_bps=slippage, spread_bps=spread)
    price = 100.0
    paid = price * (1 + side * costs.slippage)
    got = price * (1 - side * costs.slippage)
    lost = side * (paid - got) + costs.fee * (paid + got)
    assert lost / (price * stop) == pytest.approx(costs.in_r(stop), rel=1e-9, abs=1e-9)


def test_an_unknown_symbol_gets_the_nearest_name(home: Path):
    with pytest.raises(NotFoundError, match=r"'EURUSDT'.*did you mean 'EURUSD'.*data/instruments\.csv"):
        find_instrument("eur/usdt")


ROW = "symbol,name,asset_class,base,quote,tick_size,pip_size,lot_size,calendar\n{}\n"


def test_the_workspace_adds_and_replaces_instruments(home: Path):
    shipped = find_instrument("EURUSD")
    rows = "ger40,DAX,index,GER40,EUR,0.5,1,1,us_equity\nEURUSD,Mine,forex,EUR,USD,0.0001,0.0001,1000,forex"
    atomic_write(home / "data" / "instruments.csv", ROW.format(rows))
    own, added = find_instrument("EUR/USD"), find_instrument("GER40")
    atomic_write(home / "data" / "instruments.csv", ROW.format(rows.replace("Mine", "Later")))
    assert find_instrument("EURUSD").name == "Later", "a running kernel sees a table that was changed"
    assert (own.name, own.lot_size, own.decimals) == ("Mine", Decimal(1000), 4) and own != shipped
    assert (added.symbol, added.decimals, added.pips(3.0)) == ("GER40", 1, 3.0)
    assert find_instrument("GBPUSD") == known_instruments(None)["GBPUSD"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("XAUUSD,Gold,metal,XAU,USD,0,0.1,100,forex", "tick_size"),
        ("XAUUSD,Gold,rock,XAU,USD,0.01,0.1,100,forex", "asset_class"),
        ("X?,Gold,metal,XAU,USD,0.01,0.1,100,forex", "`symbol` must be"),
        ("XAUUSD,Gold,metal,XAU,USD,0.01,0.1,100", "calendar"),
    ],
)
def test_a_bad_instrument_row_names_file_and_line(row: str, said: str, home: Path):
    table = atomic_write(
        home / "data" / "instruments.csv", ROW.format(f"SPX,Index,index,SPX,USD,0.01,1,1,us_equity\n{row}")
    )
    with pytest.raises(DataError) as refused:
        find_instrument("XAUUSD")
    assert f"{table} line 3" in str(refused.value) and said in str(refused.value)


def test_every_shipped_instrument_is_sound():
    shipped = read_instruments(asset("instruments.csv"))
    assert len(shipped) >= 20
    assert all(isinstance(each, Instrument) and each.tick_size <= each.pip_size for each in shipped.values())


def test_nothing_is_put_in_the_place_of_a_device_or_a_pipe(tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(DataError, match="must be a file"):
        atomic_write(pipe, "x")
    assert pipe.is_fifo() and [*tmp_path.iterdir()] == [pipe]


def test_the_names_of_other_systems_are_understood_and_ours_win(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path))
    (tmp_path / ".env").write_text("DATABASE_URL=postgres://me:secret@db/quant\nREDIS_URL=redis://cache:6379\n")
    monkeypatch.setenv("OLLAMA_URL", "http://ollama:11434")
    monkeypatch.setenv("LLM_MODEL", "qwen3:8b")
    found = load_settings()
    assert (found.workspace.database_url, found.redis.url) == ("postgresql://me:secret@db/quant", "redis://cache:6379")
    assert (found.llm.provider, found.llm.model) == ("openai", "qwen3:8b")
    assert found.llm.base_url == "http://ollama:11434/v1"
    monkeypatch.setenv("ORBIQUANT_LLM_PROVIDER", "router")
    monkeypatch.setenv("ORBIQUANT_WORKSPACE_DATABASE_URL", "sqlite:///mine.db")
    found = load_settings()
    assert (found.llm.provider, found.workspace.database_url) == ("router", "sqlite:///mine.db")
    monkeypatch.setenv("REDIS_URL", "cache:6379")
    with pytest.raises(SettingsError, match=r"environment variable REDIS_URL \[redis\] url"):
        load_settings()
