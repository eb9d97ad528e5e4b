"""Every face of the copilot attacked at once, on one database: orders are what their user approved, no more or less."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from orbiquant.runtime import using
from tests.tools.attack import OWNER, RIVAL, Face, Ground
from tests.tools.attack_faces import LoopFace, RestFace, WidgetFace, open_kernel, open_service
from tests.tools.attack_kinds import Attacker, approve


class Siege:
    """A ground whose faces are open, and who attacks them."""

    def __init__(self, folder: Path, bars: int, seed: int, stack: ExitStack) -> None:
        self.ground = Ground(folder, bars, seed)
        stack.enter_context(using(self.ground.runtime))
        self.service = stack.enter_context(open_service(self.ground))
        self.kernel = stack.enter_context(open_kernel(self.ground))
        rest, stream = RestFace(self.ground, self.service), RestFace(self.ground, self.service, stream=True)
        self.faces: list[Face] = [LoopFace(self.ground), rest, stream, WidgetFace(self.ground, self.kernel)]
        self.rival = RestFace(self.ground, self.service, RIVAL)
        self.attackers = [Attacker(self.ground, face, self.rival, seed + n) for n, face in enumerate(self.faces)]
        stack.callback(self.ground.runtime.engine.dispose)

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
                approve(self.ground, face := self.faces[act % len(self.faces)], [face])

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
    approve(siege.ground, siege.faces[1], siege.faces)
    approve(siege.ground, siege.faces[3], siege.faces, times=2)
    siege.run(attempts=110, orders=10)
    assert {OWNER} == {each.user for each in siege.ground.placed}
    siege.check(10)
