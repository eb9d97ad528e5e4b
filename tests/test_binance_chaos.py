"""Two fifths of all orders and events go wrong: nothing is doubled or unprotected, books and venue end as one."""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from orbiquant.core import BrokerError, OrbiError
from orbiquant.trading.lookout import look_at_venue
from tests.fake_binance.running import RunningBinance, running_binance
from tests.tools.binance_desk import BinanceDesk, wait_until

RATE = 0.4  # of requests that name an order, and of events
SETTLED_S = 1.5  # in the place of 16: the venue of the tests is late by half a second, not by ten


@pytest.fixture(scope="module")
def venue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBinance]:
    with running_binance(tmp_path_factory.mktemp("binance")) as running:
        yield running


def settled(desk: BinanceDesk) -> bool:
    """Look, and say whether nothing is open any more."""
    try:
        if desk.broker.due():
            look_at_venue(desk.engine)
    except OrbiError:
        return False
    waiting = desk.engine.sender.waiting.values()
    return not waiting and not desk.engine.watch.doubtful and not desk.broker.due()


def live(desk: BinanceDesk, hours: int, chance: Random) -> None:
    """Let hours close, some with a signal, while the price wanders and everything may go wrong."""
    price = 60_000.0
    for _ in range(hours):
        price *= 1 + chance.gauss(0, 0.006)
        desk.venue.price("BTCUSDT", round(price, 2))
        desk.broker.woken.set()
        desk.feed.say(chance.choice(["LONG", "LONG", "SHORT"]), round(price, 2))
        with suppress(BrokerError):  # as whoever stays at an account does: said, and tried again
            desk.hour(round(price, 2))
        wait_until(lambda: settled(desk), 4)
        if desk.record().state == "halted":
            raise AssertionError(desk.record().reason)


def orders_by_id(venue: RunningBinance) -> Counter[str]:
    """Return how often the venue took an order of each id since it began anew."""
    records = venue.log()
    begin = max(at for at, record in enumerate(records) if record.get("deed") == "reset")
    numbers = {
        (each["clientOrderId"], each["orderId"]) for each in records[begin:]
        if each["kind"] == "order" and each["clientOrderId"].endswith(("-ent", "-clo"))
    }  # fmt: skip
    return Counter(id_ for id_, _ in numbers)


@pytest.mark.parametrize(
    "seed, hours", [(1, 8), *(pytest.param(seed, 60, marks=pytest.mark.slow) for seed in range(2, 8))]
)
def test_a_faulty_wire_doubles_nothing_and_loses_nothing(venue: RunningBinance, tmp_path: Path, seed: int, hours: int):
    venue.control("reset")
    desk = BinanceDesk(venue, tmp_path, timeout_s=1)
    desk.broker.settled_s = SETTLED_S
    desk.broker.transport.most_weight = 10**9  # an hour takes a second here
    venue.control("limits", weight_limit=10**9, orders_limit=10**6)
    venue.control("fault", rate=RATE, seed=seed)
    try:
        live(desk, hours, Random(seed))
    finally:
        venue.control("faults/clear")
    assert wait_until(lambda: settled(desk), 10)
    counts = orders_by_id(venue)
    faults = Counter(record["fault"] for record in venue.log("fault"))
    print(f"{len(counts)} orders, {sum(faults.values())} faults: {dict(faults)}")
    assert counts and set(counts.values()) == {1} and desk.agrees() and desk.engine.books.ledger.check() == []
    held = desk.engine.books.positions()
    assert len(desk.resting()) == 2 * len(held), "what is held is protected, what is not held is not"
    assert not any(state in ("new", "unknown") for _, state in desk.orders())
    desk.close()
