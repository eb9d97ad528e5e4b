"""Measures the gate of numbers: how many inventions get through, how many honest answers are touched.

`python -m tests.tools.measure_answers held-out "developed on" "second texts" "fresh texts"` prints the table on the
seed that was never looked at while the gate was developed; without `held-out`, on the other one.
"""

import re
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import process_time

from orbiquant.copilot.numbers import bare_text
from orbiquant.copilot.origins import NumberOrigins
from orbiquant.copilot.sentences import check_answer
from tests.tools.answer_texts import DEVELOPED, FRESH, HELD_OUT, Language
from tests.tools.answers import World, honest, invented, make_world, tool_results

SEED, HELD_OUT_SEED = 20261128, 7_041_776  # developed on; never looked at while developing


@dataclass
class Measured:
    """What came of a set of answers."""

    answers: int = 0
    touched: int = 0  # of honest answers
    lies: int = 0
    through: int = 0  # of lies
    replaced: int = 0  # of lies, by the tools' own figure
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)
    by_kind: Counter[str] = field(default_factory=Counter)


def origins_of(world: World) -> NumberOrigins:
    """Return what a world's tools and user said."""
    return NumberOrigins(tool_results(world), world.said)


def measure(seed: int, count: int = 500, bank: Mapping[Language, list[str]] = DEVELOPED) -> Measured:
    """Return both errors over `count` honest and `count` invented answers."""
    found = Measured()
    for number in range(count):
        world = make_world(seed + number, ("en", "es")[number % 2])
        origins, answer = origins_of(world), honest(world, bank)
        begun = process_time()
        _, changes = check_answer(answer, origins, world.language)
        found.seconds += process_time() - begun
        found.answers += 1
        if changes:
            found.touched += 1
            found.faults.append(f"honest: {changes[0].figures} in {changes[0].before!r}")
        world = make_world(seed + 1_000_000 + number, ("en", "es")[number % 2])
        lie, shown, kind = invented(world, bank)
        said, changes = check_answer(lie, origins_of(world), world.language)
        found.lies += 1
        found.by_kind[kind] += 1
        found.replaced += any(change.kind == "replaced" for change in changes)
        if re.search(rf"(?<![\d.,]){re.escape(shown)}(?!\d)", bare_text(said)):
            found.through += 1
            found.faults.append(f"{kind}: {shown} in {lie!r}")
    return found


def table(found: dict[str, Measured]) -> str:
    """Return the figures as Markdown."""
    lines = ["| set | honest | touched | inventions | through | ms an honest answer |", "|---|---|---|---|---|---|"]
    for name, each in found.items():
        share = f"{each.touched} ({each.touched / each.answers:.1%})"
        cost = f"{1000 * each.seconds / each.answers:.1f}"
        lines.append(f"| {name} | {each.answers} | {share} | {each.lies} | {each.through} | {cost} |")
    return "\n".join(lines)


BANKS = {"developed on": DEVELOPED, "second texts": HELD_OUT, "fresh texts": FRESH}


if __name__ == "__main__":
    seed = HELD_OUT_SEED if "held-out" in sys.argv else SEED
    got = {name: measure(seed, bank=bank) for name, bank in BANKS.items() if name in sys.argv[1:] or len(sys.argv) == 1}
    print(table(got), *(fault for each in got.values() for fault in each.faults[:20]), sep="\n")
