"""The risk gate: never above a limit that is computed again in fractions, and a reason for everything it refuses."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbiquant.core import DataError
from orbiquant.domain import Costs, Instrument, Timeframe
from orbiquant.market.instruments import find_instrument
from orbiquant.orders import Account, Bracket, Capabilities, Intent, Position, Purpose, Side
from orbiquant.settings import Settings, load_settings
from orbiquant.trading.breaches import breaches, shortfalls
from orbiquant.trading.config import AGENTS, AgentProfile, RiskConfig
from orbiquant.trading.risk import RiskGate
from orbiquant.trading.sizing import VenueFilters, calculate_position_size
from orbiquant.trading.verdicts import Approved, Circumstances, Denied, Resized, RiskReason, RiskVerdict

NOON, HOUR = datetime(2024, 1, 2, 12, tzinfo=UTC), timedelta(hours=1)
SPOT = Costs(fee_bps=10, slippage_bps=1, spread_bps=0.2)
R = RiskReason


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Let the shipped settings speak, whatever workspace the tests are run in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORBIQUANT_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@cache
def shipped_settings() -> Settings:
    """Return the settings, read once."""
    return load_settings()


def profile(name: str = "atlas", **changes: Any) -> AgentProfile:
    """Return a shipped profile, changed."""
    shipped: AgentProfile = getattr(shipped_settings(), name)
    return shipped if not changes else AgentProfile.model_validate(shipped.model_dump() | changes)


def opening(symbol: str = "BTCUSDT", side: str = "BUY", entry: Any = 60_000, stop: Any = 58_500, target: Any = 63_000, **more: Any) -> Intent:  # fmt: skip  # noqa: E501
    """Return an intent that opens, decided on the bar that closed at noon."""
    facts = {
        "id": "x-1", "account": "paper", "agent": "atlas", "strategy": "ml", "symbol": symbol, "timeframe": "1h",
        "time": NOON - HOUR, "purpose": "open", "side": side, "entry_price": entry,
        "bracket": {"stop_loss": stop, "take_profit": target},
    }  # fmt: skip
    return Intent.model_validate(facts | more)


def around(symbol: str = "BTCUSDT", price: Any = 60_000, **more: Any) -> Circumstances:
    """Return quiet circumstances."""
    instrument = find_instrument(symbol)
    usual: dict[str, Any] = {
        "instrument": instrument, "now": NOON, "price": Decimal(price), "price_time": NOON,
        "peak_equity": Decimal(10_000), "day_equity": Decimal(10_000), "capabilities": Capabilities(short=True),
        "filters": VenueFilters.of(instrument), "costs": SPOT,
    }  # fmt: skip
    return Circumstances(**usual | more)


def owning(equity: Any = 10_000, **more: Any) -> Account:
    """Return an account in dollars."""
    account = Account(owner="atlas", currency="USDT", balance=10_000, equity=10_000, **more)
    return account.model_copy(update={"equity": Decimal(equity)})


def holding(symbol: str, quantity: Any, price: Any, stop: Any = None) -> Position:
    """Return a position of Atlas."""
    bracket = Bracket(stop_loss=stop)
    return Position(
        owner="atlas", symbol=symbol, quantity=quantity, average_price=price, bracket=bracket, opened_at=NOON
    )


def ask(intent: Intent | None = None, known: Circumstances | None = None, *positions: Position, account: Account | None = None, agent: AgentProfile | None = None, limits: RiskConfig | None = None) -> RiskVerdict:  # fmt: skip  # noqa: E501
    """Return the gate's verdict."""
    gate = RiskGate(limits or RiskConfig(), agent or profile())
    return gate.review(intent or opening(), account or owning(), positions, known or around())


# --- the oracle: fractions, and the words of product.md §6 ---


def part(value: Any) -> Fraction:
    """Return a number as a fraction."""
    return Fraction(str(value))


def loss(side: int, entry: Any, stop: Any, costs: Costs) -> Fraction:
    """Return what a unit loses between two fills with their fees."""
    fee, slip = part(costs.fee_bps) / 10_000, (part(costs.slippage_bps) + part(costs.spread_bps) / 2) / 10_000
    first, last = part(entry) * (1 + side * slip), part(stop) * (1 - side * slip)
    return side * (first - last) + fee * (first + last)


def held_loss(position: Position, costs: Costs) -> Fraction:
    """Return what a position loses at its stop; its price is a fill already."""
    units, paid, side = abs(part(position.quantity)), part(position.average_price), 1 if position.quantity > 0 else -1
    if position.bracket.stop_loss is None:
        return units * paid
    fee, slip = part(costs.fee_bps) / 10_000, (part(costs.slippage_bps) + part(costs.spread_bps) / 2) / 10_000
    last = part(position.bracket.stop_loss) * (1 - side * slip)
    return max(Fraction(0), units * (side * (paid - last) + fee * (paid + last)))


def held_fall(position: Position, known: Circumstances) -> Fraction:
    """Return what equity loses when a position goes from the price now to its stop."""
    paid, symbol = position.average_price, position.symbol
    now = part(known.price if symbol == "BTCUSDT" else known.prices.get(symbol, paid))
    units, side = abs(part(position.quantity)), 1 if position.quantity > 0 else -1
    if position.bracket.stop_loss is None:
        return units * now
    costs = known.costs
    slip = (part(costs.slippage_bps) + part(costs.spread_bps) / 2) / 10_000
    last = part(position.bracket.stop_loss) * (1 - side * slip)
    return max(Fraction(0), units * (side * (now - last) + part(costs.fee_bps) / 10_000 * last))


LEVERAGE = {"BTCUSDT": 1, "ETHUSDT": 1, "SOLUSDT": 1, "EURUSD": 30}
money = st.integers(1, 10**9).map(lambda cents: Decimal(cents) / 100)
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "EURUSD")


@st.composite
def positions(draw: st.DrawFn) -> list[Position]:
    """Draw what Atlas holds beside BTCUSDT, or of it, with or without a stop."""
    found = []
    for _ in range(draw(st.integers(0, 4))):
        symbol, side = draw(st.sampled_from(SYMBOLS)), draw(st.sampled_from((1, -1)))
        price = Decimal(draw(st.integers(100, 100_000)))
        tenths = draw(st.none() | st.integers(1, 99))
        stop = tenths and price * (1000 - side * tenths) / 1000
        quantity = side * Decimal(draw(st.integers(1, 10**6))) / 10**6
        found.append(holding(symbol, quantity, price, stop))
    return found


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    """Draw everything that a verdict depends on."""
    entry, side = Decimal(draw(st.integers(100, 10**7))) / 100, draw(st.sampled_from((1, -1)))
    distance = entry * Decimal(draw(st.integers(1, 400))) / 1000
    costs = draw(st.sampled_from((SPOT, Costs(), Costs(fee_bps=37.5, slippage_bps=12.25))))
    pairs = [frozenset((a, b)) for a in SYMBOLS for b in SYMBOLS if a < b]
    correlations = {pair: draw(st.floats(-1, 1)) for pair in pairs if draw(st.booleans())}
    step = draw(st.sampled_from(("0.00001", "0.003", "1")))
    equity = draw(st.integers(10**4, 10**7).map(lambda cents: Decimal(cents) / 100))
    known = around(
        price=entry * Decimal(draw(st.sampled_from(("0.9999", "1", "1.0001")))), costs=costs, correlations=correlations,
        peak_equity=equity * draw(st.sampled_from((1, Decimal("1.02"), Decimal("1.049"), 2))),
        day_equity=equity * draw(st.sampled_from((1, Decimal("1.01"), Decimal("1.029"), Decimal("0.9")))),
        filters=VenueFilters(Decimal(step), min_quantity=Decimal(step)),
        other_open_risk=draw(st.sampled_from((Decimal(0), equity / 20))),
    )  # fmt: skip
    quantity = draw(st.none() | st.integers(1, 10**7).map(lambda units: Decimal(units) / 10**5))
    intent = opening(
        side="BUY" if side > 0 else "SELL", entry=entry, stop=entry - side * distance,
        target=entry + side * 2 * distance if side > 0 or entry > 2 * distance else None, quantity=quantity,
    )  # fmt: skip
    agent = profile(draw(st.sampled_from(AGENTS)))
    return {"intent": intent, "known": known, "held": draw(positions()), "equity": equity, "agent": agent}


def verdict_of(case: dict[str, Any], equity: Decimal | None = None) -> RiskVerdict:
    """Return what the gate says."""
    account = owning(case["equity"] if equity is None else equity)
    known = replace(case["known"], reward_to_risk=Decimal(0))
    return ask(case["intent"], known, *case["held"], account=account, agent=case["agent"])


@settings(max_examples=300, deadline=None)
@given(case=cases())
def test_no_limit_is_passed_however_it_is_computed(case: dict[str, Any]):
    verdict, intent, known, agent = verdict_of(case), case["intent"], case["known"], case["agent"]
    if isinstance(verdict, Denied):
        assert verdict.said
        return
    side, units, equity = intent.side.sign, part(verdict.quantity), part(case["equity"])
    worst = max(intent.entry_price, known.price) if side > 0 else min(intent.entry_price, known.price)
    new = units * loss(side, worst, intent.bracket.stop_loss, known.costs)
    old = {id(p): held_loss(p, known.costs) for p in case["held"]}
    same = sum(old[id(p)] for p in case["held"] if p.symbol == "BTCUSDT")
    assert units > 0 and (units / part(known.filters.quantity_step)).denominator == 1
    assert part(verdict.risk) >= new, "it says no less than may be lost"
    assert new <= part(agent.risk_per_trade) * equity
    assert same + new <= part(agent.max_position_loss) * equity
    assert sum(old.values()) + new <= part(agent.max_drawdown) / 2 * equity
    assert sum(old.values()) + part(known.other_open_risk) + new <= equity / 10
    left = equity - sum(held_fall(p, known) for p in case["held"]) - new
    assert left >= part(known.peak_equity) * (1 - part(agent.max_drawdown))
    assert left >= part(known.day_equity) * (1 - part(agent.daily_loss))
    bet = Fraction(0)
    for p in case["held"]:
        pair = frozenset((p.symbol, "BTCUSDT"))
        moves = 1.0 if len(pair) == 1 else known.correlations.get(pair, 1.0)
        if abs(moves) >= 0.7:
            bet += old[id(p)] * side * (1 if p.quantity > 0 else -1) * (1 if moves > 0 else -1)
    assert max(bet, 0) + new <= Fraction(5, 2) * part(agent.risk_per_trade) * equity
    bound = sum(
        abs(part(p.quantity)) * part(known.price if p.symbol == "BTCUSDT" else p.average_price) / LEVERAGE[p.symbol]
        for p in case["held"]
    )
    assert bound + units * part(max(intent.entry_price, known.price)) <= equity
    assert len(case["held"]) < agent.max_positions
    assert not any(p.symbol == "BTCUSDT" and (p.quantity > 0) != (side > 0) for p in case["held"])
    if isinstance(verdict, Resized):
        assert units < part(verdict.wanted)
    elif intent.quantity is None:
        one_more = new / units * (units + part(known.filters.quantity_step))
        assert one_more > part(agent.risk_per_trade) * equity, "what is approved uses what may be risked"
    else:
        assert units == part(intent.quantity)


@settings(max_examples=150, deadline=None)
@given(case=cases(), smaller=st.integers(1, 999))
def test_less_equity_never_gives_a_larger_position(case: dict[str, Any], smaller: int):
    def size(verdict: RiskVerdict) -> Decimal:
        return Decimal(0) if isinstance(verdict, Denied) else verdict.quantity

    assert size(verdict_of(case, case["equity"] * smaller / 1000)) <= size(verdict_of(case))


@settings(max_examples=150, deadline=None)
@given(case=cases(), asked=st.none() | st.integers(1, 10**9).map(lambda units: Decimal(units) / 10**6))
def test_what_closes_never_exceeds_what_is_held(case: dict[str, Any], asked: Decimal | None):
    changes = {"purpose": Purpose.CLOSE, "quantity": asked, "bracket": Bracket()}
    closing = case["intent"].model_copy(update=changes)
    verdict = verdict_of(case | {"intent": closing}, Decimal("NaN"))
    held = sum(-p.quantity * closing.side.sign for p in case["held"] if p.symbol == "BTCUSDT")
    if isinstance(verdict, Denied):
        assert held < case["known"].filters.quantity_step or (asked or held) < case["known"].filters.quantity_step
        return
    assert 0 < verdict.quantity <= min(held, asked or held)


# --- the rules one by one ---


def test_at_full_risk_atlas_holds_two_positions_and_a_half():
    first = ask(opening())
    assert isinstance(first, Approved) and Decimal("99.9") < first.risk <= 100
    two = [holding("ETHUSDT", "0.58", 3000, "2833"), holding("SOLUSDT", "6.1", 100, "83.9")]
    spent = sum(held_loss(each, SPOT) for each in two)
    assert 198 < spent < 201, "two full risks"
    third = ask(opening(), None, *two)
    assert isinstance(third, Resized) and third.reason is R.OPEN_RISK
    assert Decimal(48) < third.risk <= 250 - Decimal(float(spent)) + Decimal("1e-9")
    assert "open risk" in third.said and third.wanted > third.quantity
    full = [*two, holding("ETHUSDT", "0.18", 3000, "2833")]
    assert ask(opening(), None, *full).reason is R.MAX_POSITIONS
    assert ask(opening(), None, *full, agent=profile(max_positions=9)).reason in (R.OPEN_RISK, R.CORRELATED_RISK)


def test_what_others_risk_may_have_more_digits_than_an_amount():
    known = around(other_open_risk=Decimal(1) / 3 * Decimal("1e-9"))
    assert isinstance(ask(opening(), known), Approved)
    assert ask(opening(), around(other_open_risk=Decimal("NaN"))).reason is R.NO_AMOUNT


def test_an_open_gain_that_may_run_back_is_part_of_the_drawdown():
    held = holding("ETHUSDT", "1", 2000, "1960")
    risen = around(prices={"ETHUSDT": Decimal(2440)}, peak_equity=Decimal(10_440))  # 440 gained, 480 above its stop
    verdict = ask(opening(), risen, held, account=owning(10_440), limits=RiskConfig(correlation=1))
    assert isinstance(verdict, Resized) and verdict.reason is R.MAX_DRAWDOWN
    assert verdict.risk <= Decimal(10_440) * Decimal("0.05") - 480 + Decimal("1e-9")
    assert isinstance(ask(opening(), around(peak_equity=Decimal(10_440)), held, account=owning(10_440)), Approved)


def test_one_symbol_may_lose_only_so_much_however_often_it_is_added_to():
    held = [holding("BTCUSDT", "0.1", 60_000, 58_500)]
    added = ask(opening(), None, *held, agent=profile(max_position_loss="0.0175"))
    assert isinstance(added, Resized) and added.reason is R.POSITION_LOSS
    assert added.risk <= 175 - Decimal(float(held_loss(held[0], SPOT))) + Decimal("1e-9")


@pytest.mark.parametrize(
    ("reason", "intent", "known"),
    [
        (R.STOP_MISPLACED, {"stop": 58_500}, {"price": 58_400}),
        (R.TARGET_MISPLACED, {}, {"price": 63_000}),
        (R.REWARD_TO_RISK, {"target": 62_900}, {}),
        (R.NO_TARGET, {"target": None}, {}),
        (R.NO_STOP, {"stop": None, "basket": "grid-1"}, {}),
        (R.NO_SHORT, {"side": "SELL", "stop": 61_500, "target": 57_000}, {"capabilities": Capabilities(short=False)}),
        (R.FROM_THE_FUTURE, {"time": NOON}, {}),
        (R.FROM_THE_FUTURE, {}, {"price_time": NOON + HOUR}),
        (R.STALE, {}, {"price_time": NOON - 3 * HOUR}),
        (R.STALE, {"time": NOON - 5 * HOUR}, {}),
        (R.COOL_DOWN, {}, {"last_loss_at": NOON - 3 * HOUR}),
        (R.MAX_DRAWDOWN, {}, {"peak_equity": Decimal("10526.4")}),
        (R.DAILY_LOSS, {}, {"day_equity": Decimal("10310")}),
        (R.ACCOUNT_RISK, {}, {"other_open_risk": Decimal(1000)}),
        (R.VENUE_PRICE, {}, {"filters": VenueFilters(Decimal("1e-5"), lowest_price=Decimal(59_000))}),
        (R.VENUE_PRICE, {"stop": "58500.005"}, {"filters": VenueFilters(Decimal("1e-5"), tick_size=Decimal("0.01"))}),
        (R.VENUE_VALUE, {"quantity": "0.00101"}, {"filters": VenueFilters(Decimal("1e-5"), min_notional=Decimal(60))}),
        (R.VENUE_QUANTITY, {}, {"filters": VenueFilters(Decimal("1e-5"), min_quantity=Decimal(1))}),
        (R.QUANTITY_ZERO, {}, {"filters": VenueFilters(Decimal(1))}),
    ],
)
def test_every_rule_denies_with_its_reason_and_a_sentence(reason: R, intent: dict[str, Any], known: dict[str, Any]):
    verdict = ask(opening(**intent), around(**known))
    assert isinstance(verdict, Denied) and verdict.reason is reason, verdict
    assert 10 < len(verdict.said) < 200 and ("None" not in verdict.said or "basket" in verdict.said)


@pytest.mark.parametrize("field", ["equity", "price", "peak_equity", "day_equity", "entry_price", "quantity"])
@pytest.mark.parametrize("value", ["NaN", "sNaN", "Infinity", "-1", "0", "1e30", "1e-19"])
def test_a_figure_that_is_none_is_denied_by_its_name(field: str, value: str):
    bad, intent, account, known = Decimal(value), opening(), owning(), around()
    if field == "equity":
        account = account.model_copy(update={field: bad})
    elif field in ("entry_price", "quantity"):
        intent = intent.model_copy(update={field: bad})
    else:
        known = replace(known, **{field: bad})
    verdict = ask(intent, known, account=account)
    assert isinstance(verdict, Denied) and verdict.reason is R.NO_AMOUNT and f"`{field}`" in verdict.said


def test_positions_and_prices_that_are_no_numbers_are_denied_too():
    rotten = holding("ETHUSDT", 1, 100, 90).model_copy(update={"quantity": Decimal("NaN")})
    assert "ETHUSDT" in ask(None, None, rotten).said
    verdict = ask(None, around(prices={"EURUSD": Decimal("NaN")}))
    assert verdict.reason is R.NO_AMOUNT and "EURUSD" in verdict.said


def test_more_digits_than_the_venue_has_are_rounded_down_and_told():
    verdict = ask(opening(quantity="0.0123456789"))
    assert isinstance(verdict, Resized) and verdict.quantity == Decimal("0.01234")
    assert verdict.reason is R.VENUE_QUANTITY and "0.00001" in verdict.said


def test_a_basket_covers_its_legs_and_is_one_position():
    leg = opening(stop=None, target=None, basket="grid-1")
    known = around(basket_stop=Decimal(57_000), reward_to_risk=Decimal(0))
    first = ask(leg, known)
    assert isinstance(first, Approved) and first.risk <= 100
    others = [holding("BTCUSDT", "0.001", 60_000, 57_000).model_copy(update={"basket": "grid-1"})] * 3
    assert not isinstance(ask(leg, known, *others), Denied), "a leg of a basket that is held takes no new place"
    assert ask(leg, replace(known, basket_stop=Decimal(61_000))).reason is R.STOP_MISPLACED


def test_what_moves_together_is_one_bet_and_the_other_way_counts_against():
    nova = profile("nova", cool_down_bars=0)
    held = [holding("ETHUSDT", "0.55", 3000, "2500"), holding("SOLUSDT", "10", 100, "80")]
    together = ask(opening(stop=57_000, target=66_000), None, *held, agent=nova)
    assert isinstance(together, Resized) and together.reason is R.CORRELATED_RISK
    apart = {frozenset(("BTCUSDT", symbol)): 0.2 for symbol in ("ETHUSDT", "SOLUSDT")}
    assert isinstance(ask(opening(stop=57_000, target=66_000), around(correlations=apart), *held, agent=nova), Approved)
    against = dict.fromkeys(apart, -0.9)
    hedged = ask(opening(stop=57_000, target=66_000), around(correlations=against), *held, agent=nova)
    assert isinstance(hedged, Approved)


def test_what_is_held_the_other_way_is_closed_first():
    short = holding("BTCUSDT", "-0.01", 60_000, 61_000)
    assert ask(None, None, short).reason is R.OPPOSITE_HELD
    closing = opening().model_copy(update={"purpose": Purpose.CLOSE})
    assert ask(closing, None, short) == Approved(Decimal("0.01"), Decimal(0), R.CLOSES, "what closes passes")


def test_closing_passes_whatever_stands_against_it():
    held = holding("BTCUSDT", "0.123", 60_000)
    lost = around(peak_equity=Decimal(10**6), price_time=NOON - 99 * HOUR, last_loss_at=NOON)
    closing = opening().model_copy(update={"purpose": Purpose.CLOSE, "side": Side.SELL})
    assert isinstance(ask(closing, lost, held, account=owning("-5")), Approved)


def test_a_yen_is_no_dollar():
    entry, stop = Decimal(150), Decimal("148.5")
    intent = opening("USDJPY", entry=entry, stop=stop, target=Decimal(153))
    known, yen_lost = around("USDJPY", price=150, costs=Costs()), Fraction(3, 2)
    pounds = Account(owner="atlas", currency="GBP", balance=10_000, equity=10_000)
    verdict = ask(intent, known, account=pounds)
    assert isinstance(verdict, Denied) and verdict.reason is R.NO_RATE and "GBP" in verdict.said
    for currency in ("USD", "USDT"):
        verdict = ask(intent, known, account=pounds.model_copy(update={"currency": currency}))
        assert isinstance(verdict, Approved)
        for units, within in ((verdict.quantity, True), (verdict.quantity + 1000, False)):
            assert (part(units) * yen_lost / part(stop) <= 100) is within, "converted where it would be lost"


def test_the_market_was_closed_and_nothing_is_stale():
    friday, sunday = datetime(2024, 1, 5, 22, tzinfo=UTC), datetime(2024, 1, 7, 23, 30, tzinfo=UTC)
    intent = opening("EURUSD", entry="1.1", stop="1.095", target="1.11", time=friday - HOUR)
    known = around("EURUSD", price="1.1", now=sunday, price_time=friday)
    assert isinstance(ask(intent, known), Approved | Resized)
    assert ask(intent, replace(known, now=sunday + 2 * HOUR)).reason is R.STALE


def test_the_gate_is_a_function_of_what_it_is_given(monkeypatch: pytest.MonkeyPatch):
    before = ask()
    monkeypatch.setattr("builtins.open", lambda *a, **k: pytest.fail("it reads"))
    gate, intent, account, known = RiskGate(RiskConfig(), profile()), opening(), owning(), around()
    assert gate.review(intent, account, [], known) == before == gate.review(intent, account, [], known)


# --- sizes ---


def test_a_size_is_what_the_gate_would_say():
    size = calculate_position_size(find_instrument("BTCUSDT"), 10_000, 60_000, 58_500, 1, SPOT)
    verdict = ask()
    assert isinstance(verdict, Approved) and size.units == verdict.quantity and size.risk_amount == verdict.risk
    assert size.warnings == () and size.pips == 1500 and size.lots == size.units


@pytest.mark.parametrize("name", ["equity", "entry_price", "stop_loss", "risk_percent"])
@pytest.mark.parametrize("value", [float("nan"), "-1", 0, "1e30", "0.0000000000000000001", "much", None, True])
def test_a_size_of_nonsense_names_the_parameter(name: str, value: Any):
    given = {"equity": 10_000, "entry_price": 60_000, "stop_loss": 58_500, "risk_percent": 1} | {name: value}
    with pytest.raises(DataError, match=f"`{name}`"):
        calculate_position_size(find_instrument("BTCUSDT"), **given)


def test_a_size_says_what_a_person_should_know():
    euro = find_instrument("EURUSD")
    dear = calculate_position_size(euro, 10_000, "1.1", "1.0999", risk_percent=5, costs=SPOT, leverage=30)
    assert any("costs are" in each for each in dear.warnings) and any("5 % of equity" in each for each in dear.warnings)
    tiny = calculate_position_size(euro, 5, "1.1", "1.05")
    assert tiny.units == 0 and any("least" in each for each in tiny.warnings)
    short = calculate_position_size(euro, 10_000, "1.1", "1.105", leverage=30)
    assert short.units == 20_000 and short.lots == Decimal("0.2") and short.risk_percent == 1
    with pytest.raises(DataError, match="`stop_loss` must differ"):
        calculate_position_size(euro, 10_000, "1.1", "1.1")


# --- profiles and breaches ---


@pytest.mark.parametrize(
    ("name", "drawdown", "size", "positions", "risk", "month", "wins"),
    [
        ("atlas", "0.05", "0.02", 3, "0.01", ("0.03", "0.05"), "0.60"),
        ("orion", "0.10", "0.03", 5, "0.015", ("0.05", "0.10"), "0.55"),
        ("nova", "0.20", "0.05", 10, "0.02", ("0.10",), "0.50"),
    ],
)
def test_the_profiles_are_those_of_the_product(name: str, drawdown: str, size: str, positions: int, risk: str, month: tuple[str, ...], wins: str):  # fmt: skip  # noqa: E501
    agent = profile(name)
    assert (agent.max_drawdown, agent.max_position_loss, agent.risk_per_trade) == tuple(map(Decimal, (drawdown, size, risk)))  # fmt: skip  # noqa: E501
    assert agent.max_positions == positions and agent.target_month == tuple(map(Decimal, month))
    assert agent.min_win_rate == Decimal(wins) and agent.min_reward_to_risk == 2
    assert agent.broker == "paper" and not agent.live and agent.entry_policy().min_confidence >= 0.6


def test_a_drawdown_warns_at_four_fifths_and_halts_where_nothing_fits_before_the_limit():
    def levels(equity: Any, peak: Any = 10_000, day: Any = 10_000) -> list[tuple[R, str]]:
        found = breaches(owning(equity), profile(daily_loss="0.05"), RiskConfig(), Decimal(peak), Decimal(day))
        return [(each.reason, each.level) for each in found]

    assert levels("9600.01") == [] and levels(9600, day=9600) == [(R.MAX_DRAWDOWN, "warn")]
    assert levels(9500, day=9500) == levels(9505, day=9505) == [(R.MAX_DRAWDOWN, "halt")]
    assert levels("9505.01", day=9510) == [(R.MAX_DRAWDOWN, "warn")]
    assert levels(9500) == [(R.MAX_DRAWDOWN, "halt"), (R.DAILY_LOSS, "halt")]
    for nonsense in ("NaN", "0", "-3"):
        assert levels(nonsense)[0][1] == "halt", "an equity that is none is no reason to go on"
    assert [each.level for each in breaches(owning(), profile(), RiskConfig(), Decimal(1), Decimal(1), ["BTCUSDT"])] == ["halt"]  # fmt: skip  # noqa: E501


def test_a_missed_target_is_told_and_changes_no_size():
    agent = profile()
    missed = shortfalls(agent, RiskConfig(), Decimal("-0.04"), Decimal("0.2"), trades=100)
    assert {each.level for each in missed} == {"warn"} and len(missed) == 2
    assert ask(agent=agent) == ask(agent=profile()), "the gate does not even know of it"


def test_timeframes_of_the_cool_down_are_the_intents():
    intent = opening(timeframe=Timeframe.M5, time=NOON - timedelta(minutes=5))
    known = around(last_loss_at=NOON - timedelta(minutes=19))
    assert ask(intent, known).reason is R.COOL_DOWN
    assert isinstance(ask(intent, replace(known, last_loss_at=NOON - timedelta(minutes=20))), Approved | Resized)


def test_a_coin_is_traded_in_fractions():
    coin: Instrument = find_instrument("BTCUSDT")
    assert coin.quantity_step == Decimal("0.00001") and find_instrument("EURUSD").quantity_step == 1000
