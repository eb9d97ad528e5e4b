"""Every face of the copilot attacked at once, on one database: orders are what their user approved, no more or less."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from orbiquant.runtime import using
from tests.tools.attack import OWNER, RIVAL, Face, Ground, Placed
from tests.tools.attack_faces import (
    YES,
    LoopFace,
    MagicFace,
    RestFace,
    WidgetFace,
    open_kernel,
    open_service,
)
from tests.tools.attack_kinds import Attacker, Typist, approve, outcome_of, same_order
from tests.tools.attack_outside import McpFace, TelegramFace, TerminalFace, open_mcp, open_telegram


class Siege:
    """A ground whose faces are open, and who attacks them."""

    def __init__(self, folder: Path, bars: int, seed: int, stack: ExitStack) -> None:
        self.ground = ground = Ground(folder, bars, seed)
        stack.callback(ground.runtime.engine.dispose)
        stack.enter_context(using(ground.runtime))
        with ThreadPoolExecutor() as pool:  # programs take a while to begin
            begun = [pool.submit(each, ground) for each in (open_service, open_kernel, TerminalFace)]
        service, kernel, terminal = (each.result() for each in begun)
        self.service, self.kernel, self.terminal = stack.enter_context(service), stack.enter_context(kernel), terminal
        stack.callback(lambda: self.terminal.close())
        address, fake = stack.enter_context(open_mcp(ground)), stack.enter_context(open_telegram(ground))
        self.loop, self.widget = LoopFace(ground), WidgetFace(ground, self.kernel)
        self.magics = MagicFace(ground, self.kernel)
        self.rest, self.stream = (RestFace(ground, self.service, stream=each) for each in (False, True))
        self.telegram, self.mcp = TelegramFace(ground, fake), McpFace(ground, self.service, address, self.rest)
        self.anywhere: list[Face] = [self.loop, self.rest, self.stream, self.widget]  # decide whatever was asked where
        self.faces: list[Face] = [*self.anywhere, self.telegram, self.mcp, self.terminal, self.magics]
        self.hands: dict[Face, Face] = {self.mcp: self.rest, self.magics: self.widget}  # which decide nothing
        self.rival = RestFace(ground, self.service, RIVAL)
        self.attackers = [
            (Typist if face is self.terminal else Attacker)(ground, face, self.rival, self.rest, seed + n)
            for n, face in enumerate(self.faces)
        ]

    def approve(self, face: Face, times: int = 1) -> None:
        """Ask at a face, and approve at it and at every face that can decide on what was asked there."""
        approve(
            self.ground, face, [each for each in dict.fromkeys((*self.anywhere, face)) if each not in self.hands], times
        )

    def run(self, attempts: int, orders: int, halfway: Callable[[], None] = lambda: None) -> None:
        """Do so many attempts in an order drawn by chance, with the genuine approvals between them."""
        tries = [(each, kind) for each in self.attackers for kind in (*each.kinds, "forged")]
        genuine = range(len(self.ground.approved), orders)  # each of which is replayed at once
        left = attempts - sum(self.ground.attempts.values()) - len(genuine)
        acts = [*genuine, *(tries[n % len(tries)] for n in range(left))]
        self.ground.chance.shuffle(acts)
        for place, act in enumerate(acts):
            if place == len(acts) // 2:
                halfway()
            if isinstance(act, tuple):
                act[0].attempt(act[1])
            else:
                face = self.faces[act % len(self.faces)]
                approve(self.ground, face, [self.hands.get(face, face)])

    def restart(self) -> None:
        """Kill what runs apart, as the power does, and begin it again."""
        self.service.kill()
        self.kernel.kill()
        self.service.start()
        self.kernel.start()
        self.widget.comms.clear()

    def check(self, orders: int) -> None:
        """Hold the tables against what was approved, and what was heard against whose it was."""
        print(f"\n{self.ground.table()}\n{len(self.ground.placed)} approved, {self.ground.oracle.count()} orders")
        assert not self.ground.broken and not self.ground.leaks
        assert self.ground.oracle.verdict(self.ground.placed) == []
        assert self.ground.oracle.count() == len(self.ground.placed) == orders
        assert sum(self.ground.orders.values()) == 0


@pytest.fixture(scope="module")
def siege(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siege]:
    with ExitStack() as stack:
        yield Siege(tmp_path_factory.mktemp("siege"), 60, 7, stack)


@pytest.mark.slow
def test_a_hundred_attempts_at_every_face(siege: Siege):
    for face in (siege.rest, siege.telegram):
        siege.approve(face)
    approve(siege.ground, siege.rival, [siege.rival], times=2)
    siege.run(attempts=110, orders=10)
    assert [each.user for each in siege.ground.placed].count(RIVAL) == 1
    siege.check(10)


# --- two users ---


def test_nothing_of_another_user_is_shown_stopped_or_gone_on_with(siege: Siege):
    ground, mine = siege.ground, "shared-name"
    ids: dict[str, list[str]] = {}
    for face in (
        RestFace(ground, siege.service, OWNER, stream=True),
        RestFace(ground, siege.service, RIVAL, stream=True),
    ):
        words, _ = ground.order_words(face.user)
        heard = face.say(mine, f"My secret is {ground.canary[face.user]}")
        ids[face.user] = [line[4:] for line in heard.raw.splitlines() if line.startswith("id: ")]
        assert ids[face.user] and ground.listen(face, face.say(mine, words)).tickets
    with siege.service.client(RIVAL) as eva, siege.service.client(OWNER) as me:
        own = me.get(f"/api/v1/chat/{mine}").text
        assert ground.canary[OWNER] in own and ground.canary[RIVAL] not in own
        theirs = eva.get(f"/api/v1/chat/{mine}").text
        assert ground.canary[RIVAL] in theirs and ground.canary[OWNER] not in theirs
        for last in (ids[OWNER][0], ids[OWNER][0].rpartition("-")[0] + "-0", f"{ids[OWNER][0]}\u00a0"):
            for asked in ({"params": {"last_event_id": last}}, {"headers": {"Last-Event-ID": last.encode()}}):
                answer = eva.get(f"/api/v1/chat/{mine}/stream", **asked)
                assert answer.status_code in (204, 404, 410, 422) and ground.canary[OWNER] not in answer.text
        for method, path in (
            ("GET", f"/api/v1/chat/{mine}?user_id={OWNER}"), ("GET", f"/api/v1/chat/{mine}/stream?user_id={OWNER}"),
            ("POST", f"/api/v1/chat/{mine}/stop?user_id={OWNER}"), ("DELETE", f"/api/v1/context/{OWNER}/{mine}"),
        ):  # fmt: skip
            assert eva.request(method, path).status_code == 403
        lone = "of-one-alone"
        siege.rest.say(lone, f"My secret is {ground.canary[OWNER]}")
        for path in (f"/api/v1/chat/{lone}", f"/api/v1/chat/{lone}/stream"):
            assert ground.canary[OWNER] not in (answer := eva.get(path)).text
            assert answer.status_code in (204, 404) or answer.json()["messages"] == []
        assert eva.post(f"/api/v1/chat/{lone}/stop").json()["status"] == "idle"
    assert not ground.leaks


# --- what breaks ---


def press_and_kill(siege: Siege, face: Face, kill: Callable[[], None]) -> None:
    """Approve at a face whose program is killed meanwhile; whoever comes next, anywhere, finds one order."""
    ground, talk = siege.ground, face.begin()
    id_, order = ground.propose(face, talk)

    def press() -> None:
        with suppress(Exception):  # nobody answers any more
            face.decide(talk, id_, YES)

    thread = threading.Thread(target=press, daemon=True)
    thread.start()
    time.sleep(ground.chance.uniform(0, 0.12))
    kill()
    settle_after(siege, face, talk, id_, order)


def settle_after(siege: Siege, face: Face, talk: str, id_: str, order: Placed) -> None:
    """Approve at another face what a dead program may have begun, and count it."""
    for _ in range(2):
        heard = siege.loop.decide(talk, id_, YES)
        assert heard.ticket["state"] == "executed", heard
    siege.ground.settle(face, talk, id_, order, outcome_of(siege.ground, id_))


@pytest.mark.slow
def test_a_program_killed_in_mid_approval_leaves_one_order(siege: Siege):
    press_and_kill(siege, siege.rest, siege.service.kill)
    press_and_kill(siege, siege.widget, siege.kernel.kill)
    siege.service.start()
    siege.kernel.start()
    siege.widget.comms.clear()
    for path, body in siege.rest.sent:  # captured before the kill
        siege.ground.listen(siege.rest, siege.rest.post(path, body))
    old = siege.ground.approved[-1]
    assert same_order(siege.widget.decide(old.talk, old.id, YES).ticket["outcome"], old.outcome)
    assert not siege.rest.say(old.talk, "what is the price of EURUSD?").code
    siege.check(len(siege.ground.approved))


def test_a_page_that_is_loaded_again_or_whose_comm_closes_finds_its_ticket(siege: Siege):
    ground, widget, talk = siege.ground, siege.widget, siege.widget.begin()
    id_, order = ground.propose(widget, talk)
    shown = widget.hello(talk).ticket
    assert (shown["id"], shown["state"]) == (id_, "pending")
    siege.kernel.exchange(widget.comm(talk), [("comm_close", {})], lambda told: True, patience_s=0.3, must=False)
    widget.comms.clear()  # the page opens another
    assert widget.hello(talk).ticket["state"] == "pending" and ground.oracle.count() == len(ground.placed)
    done = widget.decide(talk, id_, YES).ticket
    ground.settle(widget, talk, id_, order, done["outcome"])
    again = widget.hello(talk).ticket
    assert again["state"] == "executed" and same_order(again["outcome"], done["outcome"])
    siege.check(len(ground.approved))


@pytest.mark.parametrize("size", [8_001, 100_000, 1_200_000])
def test_a_composer_full_of_text_is_refused_and_the_chat_goes_on(siege: Siege, size: int):
    ground = siege.ground
    for face in siege.anywhere:
        talk = face.begin()
        heard = face.say(talk, "buy 0.01 lots of EURUSD, stop 1.05, target 1.2. " + "ñ" * size)
        assert heard.code and not heard.tickets, (face.name, heard.raw[:300])
        assert not (again := face.say(talk, "price of EURUSD?")).code and "placed, approved" in again.raw
    assert ground.oracle.count() == len(ground.placed)


# --- the whole ---


def race(siege: Siege, rounds: int) -> None:
    """Let every attacker try at the same time as all others."""

    def work(each: Attacker) -> None:
        for _ in range(rounds):
            for kind in ("words", "spelling", "typing", "replayed"):
                each.kinds[kind]()
                each.look()
                siege.ground.attempts[each.face.name, "at once"] += 1

    before = siege.ground.oracle.count()
    with ThreadPoolExecutor(len(siege.attackers)) as pool:
        for done in [pool.submit(work, each) for each in siege.attackers]:
            done.result()
    siege.ground.orders["all faces", "at once"] += siege.ground.oracle.count() - before


@pytest.mark.slow
def test_a_thousand_attempts_at_every_face_and_fifty_approvals_are_fifty_orders(tmp_path: Path):
    with ExitStack() as stack:
        siege = Siege(tmp_path, 80, 15, stack)
        for face in siege.faces:
            if face is not siege.mcp:  # its tickets are approved by other keys than the one that proposed
                siege.approve(face)
        siege.approve(siege.rest, times=2)  # eight hands
        approve(siege.ground, siege.rival, [siege.rival], times=8)
        race(siege, 3)

        def halfway() -> None:
            siege.restart()
            for path, body in siege.rest.sent[:20]:
                siege.ground.listen(siege.rest, siege.rest.post(path, body))
                siege.ground.attempts["rest", "restarted"] += 1

        began = time.monotonic()
        siege.run(attempts=980, orders=50, halfway=halfway)
        print(f"{time.monotonic() - began:.0f} s")
        assert sum(siege.ground.attempts.values()) >= 1_000
        siege.check(50)
