"""Figures as people read them: words with units, few digits, and what an abbreviation means."""

import re
from collections.abc import Mapping
from math import isfinite
from typing import Any

from orbiquant.cards import FIGURE_WORDS

MEANINGS: Mapping[str, str] = {  # abbreviation → what it means, in words a line can hold
    "R": "R: what is lost at the stop; a net R has paid the costs",
    "bp": "bp: basis point, 0.01 %",
    "ATR": "ATR: average true range of a bar",
    "AMD": "AMD: accumulation, manipulation, distribution",
    "CRPS": "CRPS: error of a whole forecast distribution",
}


def legend(
    printed: str,  # what a person sees
) -> str:
    "Return a line that says what the abbreviations in a text mean; '' where there are none."
    return "; ".join(said for word, said in MEANINGS.items() if re.search(rf"(?<![\w/.]){word}(?![\w²])", printed))


def words_of(
    name: str,  # of a figure, a fact or a column
) -> str:
    "Return a name in words, with the unit where it has one."
    return FIGURE_WORDS[name][0] if name in FIGURE_WORDS else name.replace("_", " ")


def write_number(
    value: float,  # finite or not
    form: str = "",  # as `format` takes it; "": six digits that count
) -> str:
    "Return a number without exponent, −0 or NaN."
    if not isfinite(value):
        return "–" if value != value else "∞" if value > 0 else "−∞"
    if form:
        return f"{value + 0.0:{form}}".replace("%", " %")
    written = f"{value + 0.0:.6g}"
    if "e" not in written:
        return written
    return f"{value:,.0f}" if abs(value) >= 1 else f"{value:.12f}".rstrip("0").rstrip(".").replace("-0", "0") or "0"


def write_figure(
    name: str,  # of the figure, for its form
    value: Any,  # a number or not
) -> Any:
    "Return a known figure's number as it is written; anything else as it is."
    form = FIGURE_WORDS[name][1] if name in FIGURE_WORDS else ""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return write_number(float(value), form) if form and number else value
