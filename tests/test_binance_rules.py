"""What is refused before it is sent, and who may trade money at all."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from orbiquant.core import BrokerRejected, BrokerUnavailable, NotConfigured, OptionError, SettingsError
from orbiquant.orders import Bracket, Order, OrderState
from orbiquant.persistence import engine, migrate
from orbiquant.research.agents import check_live, confirmation_of, read_standing
from orbiquant.runtime import Runtime
from orbiquant.settings import load_settings
from orbiquant.trading.brokers.binance.broker import BinanceBroker
from orbiquant.trading.brokers.binance.config import BinanceConfig
from orbiquant.trading.brokers.binance.errors import CLOCK, VenueRefused, read_fault
from orbiquant.trading.brokers.binance.transport import Transport
from orbiquant.trading.pages import Pages
from tests.fake_binance.running import RunningBinance, running_binance
from tests.test_binance_faults import BRACKET, entry, heard
from tests.tools.binance_desk import ACCOUNT, config_of, open_broker, usual_terms

D = Decimal


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBinance]:
    with running_binance(tmp_path_factory.mktemp("binance")) as venue:
        yield venue


@pytest.fixture
def venue(running: RunningBinance) -> RunningBinance:
    running.control("reset")
    running.control("faults/clear")
    return running


@pytest.fixture
def broker(venue: RunningBinance) -> Iterator[BinanceBroker]:
    made = open_broker(venue)
    yield made
    made.close()


REFUSED = {
    "too small": ({"quantity": D("0.000009")}, {}, "`quantity` must be at least 0.00001"),
    "worth too little": ({"quantity": D("0.00005")}, {}, "worth 5 USDT or more, at `entry`"),
    "stop worth too little": ({"quantity": D("0.001")}, {"min_notional": "59.8"}, "at `stop_loss`"),
    "too large": ({"quantity": D("200")}, {}, "at most 100"),
    "limit far away": ({"type": "limit", "limit_price": D("59400.01")}, {"far_down": "0.995"}, "`limit_price` must"),
    "stop far away": ({}, {"far_down": "0.995"}, "`stop_loss` must lie in 59700"),
    "target far away": ({}, {"far_up": "1.01"}, "`take_profit` must lie in"),
    "cancel only": ({}, {"status": "CANCEL_ONLY"}, "must be TRADING for an order, was CANCEL_ONLY"),
    "break": ({}, {"status": "BREAK"}, "was BREAK"),
    "short": ({"side": "SELL", "bracket": None}, {}, "cannot be sold short"),
    "a plan": ({"bracket": BRACKET.model_copy(update={"exits": "trail_atr=2"})}, {}, "`exits` must be fixed"),
    "no market": ({"symbol": "NOSUCHUSDT"}, {}, "no spot market NOSUCHUSDT"),
    "a stop order": ({"type": "stop", "trigger_price": D(60_500)}, {}, "a stop order is not taken"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_the_venue_would_refuse_is_not_sent(venue: RunningBinance, broker: BinanceBroker, what: str):
    changes, rules, said = REFUSED[what]
    if rules:
        venue.control("symbol", symbol="BTCUSDT", **rules)
    try:
        with pytest.raises(BrokerRejected, match=said):
            broker.submit(entry(**changes))
        assert not [each for each in heard(venue) if each["method"] == "POST"]
    finally:
        usual = {"min_notional": "5", "far_down": "0.2", "far_up": "5", "status": "TRADING"}
        venue.control("symbol", symbol="BTCUSDT", **usual)


def test_steps_are_the_venue_s_own(venue: RunningBinance, broker: BinanceBroker):
    venue.control("symbol", symbol="SOLUSDT", tick="0.05", step="0.25", min_quantity="0.25")
    bracket = Bracket(stop_loss=D("148.512"), take_profit=D("153.987"))
    order = Order(client_order_id="nova-1-ent", symbol="SOLUSDT", side="BUY", quantity=D("1.7"), bracket=bracket)
    assert broker.submit(order).state is OrderState.SUBMITTED
    legs = {each["type"]: each for each in venue.control("state")["accounts"][venue.key]["open"]}
    assert D(legs["STOP_LOSS"]["stopPrice"]) == D("148.55") and D(legs["LIMIT_MAKER"]["price"]) == D("153.95")
    assert D(legs["STOP_LOSS"]["origQty"]) == D("1.25"), "what is left of 1.5 after the fee, in whole lots"
    known = broker.terms("SOLUSDT")
    assert known.filters is not None and known.filters.quantity_step == known.instrument.quantity_step == D("0.25")


def test_a_stop_with_a_limit_where_the_market_has_no_other(venue: RunningBinance, broker: BinanceBroker):
    venue.control("symbol", symbol="ETHUSDT", types=["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS_LIMIT"])
    bracket = Bracket(stop_loss=D("2970"), take_profit=D("3060"))
    order = Order(client_order_id="nova-2-ent", symbol="ETHUSDT", side="BUY", quantity=D("0.1"), bracket=bracket)
    broker.submit(order)
    legs = {each["type"]: each for each in venue.control("state")["accounts"][venue.key]["open"]}
    stop = legs["STOP_LOSS_LIMIT"]
    assert D(stop["stopPrice"]) == 2970 and D(stop["price"]) == D("2910.6")


# --- keys, and money ---


def mainnet(venue: RunningBinance, live: bool = True) -> BinanceBroker:
    config = config_of(venue, environment="mainnet")
    return BinanceBroker(Transport(config), ACCOUNT, "USDT", usual_terms, live)


def test_a_key_that_may_withdraw_is_refused(venue: RunningBinance, tmp_path: Path):
    from datetime import UTC, datetime

    for rights, said in (({"can_withdraw": True}, "may withdraw"), ({"can_trade": False}, "may not trade")):
        venue.control("account", **{"can_withdraw": False, "can_trade": True} | rights)
        made = mainnet(venue)
        with pytest.raises(BrokerRejected, match=said):
            made.begin(datetime.now(UTC))
        made.close()
    venue.control("account", can_withdraw=False, can_trade=True)


def test_money_needs_the_settings_word(venue: RunningBinance):
    made = mainnet(venue, live=False)
    with pytest.raises(BrokerRejected, match=r"`\[trading\] live` must be on"):
        made.submit(entry())
    assert not [each for each in heard(venue) if each["method"] == "POST"]
    made.close()


def test_without_keys_it_says_which():
    made = BinanceBroker(Transport(BinanceConfig()), ACCOUNT, "USDT", usual_terms)
    with pytest.raises(NotConfigured, match="BINANCE_API_KEY and BINANCE_API_SECRET"):
        made.holdings()
    with pytest.raises(BrokerRejected, match="BINANCE_API_KEY"):
        made.submit(entry())


def test_keys_are_sent_over_no_open_wire():
    for name in ("rest_url", "stream_url"):
        with pytest.raises(ValidationError, match="must begin with https"):
            BinanceConfig.model_validate({name: "http://exchange.example.org/api/v3"})


def test_three_things_are_needed_for_money(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path))
    agent = {"atlas": {"broker": "binance"}}
    assert confirmation_of(load_settings(**agent), "atlas") == ""
    check_live(load_settings(**agent), "atlas", "")
    money: dict[str, Any] = agent | {"binance": {"environment": "mainnet"}}
    with pytest.raises(OptionError) as refused:
        check_live(load_settings(**money), "atlas", "yes")
    assert all(word in str(refused.value) for word in ("[trading] live", "[atlas] live", "'trade live atlas'"))
    allowed = money | {"trading": {"live": "on"}, "atlas": {"broker": "binance", "live": "on"}}
    with pytest.raises(OptionError, match="must be typed"):
        check_live(load_settings(**allowed), "atlas", "trade live orion")
    check_live(load_settings(**allowed), "atlas", "trade live atlas")
    assert confirmation_of(load_settings(**allowed), "orion") == "", "it trades on paper"
    moved: dict[str, Any] = {"binance": {"environment": "mainnet"}, "trading": {"live": "on"}}
    assert load_settings(**moved).atlas.broker == "paper", "and its books are at the venue since"
    with pytest.raises(OptionError, match=r"\[atlas\] live` must be on, 'trade live atlas' must be typed"):
        check_live(load_settings(**moved), "atlas", "", "binance-usdt")


@pytest.mark.parametrize(
    ("url", "money"),
    [("https://api.binance.com/api/v3", True), ("https://proxy.example.org/api/v3", True), ("", False),
     ("https://testnet.binance.vision/api/v3", False), ("https://demo-api.binance.com/api/v3", False),
     ("http://127.0.0.1:8899/api/v3", False)],
)  # fmt: skip
def test_an_address_of_ones_own_counts_as_money_unless_it_is_known_to_be_a_play(url: str, money: bool):
    config = BinanceConfig.model_validate({"environment": "testnet", "rest_url": url})
    assert config.real_money is money and config.place.startswith("at testnet")


def test_a_clock_that_does_not_meet_is_no_key_that_is_refused():
    assert isinstance(read_fault(VenueRefused(CLOCK, "outside of the recvWindow")), BrokerUnavailable)
    assert isinstance(read_fault(VenueRefused(-2015, "Invalid API-key")), BrokerRejected)


def test_keys_come_from_the_environment_and_never_from_a_shared_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path))
    assert load_settings().binance.environment == "demo" and not load_settings().binance.real_money
    (tmp_path / ".env").write_text("BINANCE_API_KEY=from-dotenv\nBINANCE_API_SECRET=hush-hush\nBINANCE_TESTNET=true\n")
    found = load_settings().binance
    assert found.environment == "testnet" and found.api_key.get_secret_value() == "from-dotenv"
    assert "hush" not in repr(load_settings()) and "from-dotenv" not in str(found)
    monkeypatch.setenv("BINANCE_API_KEY", "from-environment")
    assert load_settings().binance.api_key.get_secret_value() == "from-environment"
    monkeypatch.setenv("ORBIQUANT_BINANCE_API_KEY", "ours")
    monkeypatch.setenv("ORBIQUANT_BINANCE_ENVIRONMENT", "demo")
    found = load_settings().binance
    assert found.api_key.get_secret_value() == "ours" and found.environment == "demo"
    (tmp_path / "settings.ini").write_text("[binance]\napi_secret = hush-hush\n")
    with pytest.raises(SettingsError, match=r"BINANCE_API_SECRET in the environment or in \.env") as refused:
        load_settings()
    assert "hush" not in str(refused.value)
    (tmp_path / "settings.ini").write_text("")
    monkeypatch.setenv("BINANCE_TESTNET", "perhaps")
    with pytest.raises(SettingsError, match="BINANCE_TESTNET must be true or false"):
        load_settings()


def test_an_account_at_binance_is_read_without_asking_the_venue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path))
    runtime = Runtime(load_settings(workspace={"database_url": f"sqlite:///{tmp_path / 'a.db'}"}))
    standing = read_standing(runtime, "binance-usdt")
    assert standing.currency == "USDT" and isinstance(standing.broker, BinanceBroker)
    assert standing.account_of("atlas").equity == 0 and standing.terms("BTCUSDT").instrument.base == "BTC"
    with pytest.raises(OptionError, match="must begin with paper-, binance- or mt4-"):
        runtime.broker("kraken-usdt", Pages(engine(f"sqlite:///{tmp_path / 'b.db'}")))
    migrate(runtime.engine)
    runtime.engine.dispose()


def test_an_entry_whose_stop_would_find_no_room_is_not_sent(venue: RunningBinance, broker: BinanceBroker):
    venue.control("symbol", symbol="BTCUSDT", max_algo_orders=1)
    try:
        broker.submit(entry())
        with pytest.raises(BrokerRejected, match="at most 1 stops may rest on BTCUSDT, 1 do"):
            broker.submit(entry(2))
    finally:
        venue.control("symbol", symbol="BTCUSDT", max_algo_orders=5)
