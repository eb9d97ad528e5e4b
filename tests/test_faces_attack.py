"""Every face of the copilot attacked at once, on one database: orders are what their user approved, no more or less."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from orbiquant.runtime import using
from tests.tools.attack import OWNER, RIVAL, Face, Ground
from tests.tools.attack_faces import LoopFace, RestFace, WidgetFace, open_kernel, open_service
from tests.tools.attack_kinds import Attacker, Typist, approve
from tests.tools.attack_outside import McpFace, TelegramFace, TerminalFace, open_mcp, open_telegram


class Siege:
    """A ground whose faces are open, and who attacks them."""

    def __init__(self, folder: Path, bars: int, seed: int, stack: ExitStack) -> None:
        self.ground = ground = Ground(folder, bars, seed)
        stack.callback(ground.runtime.engine.dispose)
        stack.enter_context(using(ground.runtime))
        self.service, self.kernel = stack.enter_context(open_service(ground)), stack.enter_context(open_kernel(ground))
        address, fake = stack.enter_context(open_mcp(ground)), stack.enter_context(open_telegram(ground))
        self.loop, self.widget = LoopFace(ground), WidgetFace(ground, self.kernel)
        self.rest, self.stream = (RestFace(ground, self.service, stream=each) for each in (False, True))
        self.telegram, self.mcp = TelegramFace(ground, fake), McpFace(ground, self.service, address, self.rest)
        self.terminal = TerminalFace(ground)
        stack.callback(self.terminal.close)
        self.anywhere: list[Face] = [self.loop, self.rest, self.stream, self.widget]  # decide whatever was asked where
        self.faces: list[Face] = [*self.anywhere, self.telegram, self.mcp, self.terminal]
        rival = RestFace(ground, self.service, RIVAL)
        self.attackers = [
            (Typist if face is self.terminal else Attacker)(
                ground, face, rival, self.rest if face is self.mcp else face, seed + n
            )
            for n, face in enumerate(self.faces)
        ]

    def approve(self, face: Face, times: int = 1) -> None:
        """Ask at a face, and approve at it and at every face that can decide on what was asked there."""
        approve(self.ground, face, [each for each in (*self.anywhere, face) if each is not self.mcp], times)

    def run(self, attempts: int, orders: int) -> None:
        """Do so many attempts in an order drawn by chance, with the genuine approvals between them."""
        tries = [(each, kind) for each in self.attackers for kind in each.kinds]
        genuine = range(len(self.ground.approved), orders)  # each of which is replayed at once
        left = attempts - len(genuine) - sum(self.ground.attempts.values())
        acts = [*genuine, *(tries[n % len(tries)] for n in range(left))]
        self.ground.chance.shuffle(acts)
        for act in acts:
            if isinstance(act, tuple):
                act[0].attempt(act[1])
            else:
                face = self.faces[act % len(self.faces)]
                approve(self.ground, face, [self.rest if face is self.mcp else face])

    def check(self, orders: int) -> None:
        """Hold the tables against what was approved, and what was heard against whose it was."""
        print(f"\n{self.ground.table()}\n{len(self.ground.placed)} approved, {self.ground.oracle.count()} orders")
        assert self.ground.oracle.verdict(self.ground.placed) == []
        assert self.ground.oracle.count() == len(self.ground.placed) == orders
        assert not self.ground.leaks and sum(self.ground.orders.values()) == 0


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as held:
        yield held


def test_a_hundred_attempts_at_every_face(tmp_path: Path, stack: ExitStack):
    siege = Siege(tmp_path, 20, 7, stack)
    for face in (siege.rest, siege.widget, siege.telegram):
        siege.approve(face)
    siege.run(attempts=120, orders=10)
    assert {OWNER} == {each.user for each in siege.ground.placed}
    siege.check(10)
