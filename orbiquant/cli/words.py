"""Figures as people read them: words with units, few digits, and what an abbreviation means."""

import re
from collections.abc import Mapping
from math import isfinite
from typing import Any


_PERCENT, _R, _RATIO, _COUNT = ".1%", "+.2f", ".2f", ",.0f"
FIGURE_WORDS: Mapping[
    str, tuple[str, str]
] = {  # name of a figure → its words with their unit, and how its value is written
    "trades": ("trades", _COUNT),
    "win_rate": ("trades won", _PERCENT),
    "expectancy_r": ("mean net, R", _R),
    "mean_r": ("mean net, R", _R),
    "standard_error_r": ("± error, R", _RATIO),
    "t_statistic": ("mean / error", _RATIO),
    "sqn": ("mean / error, of 100 trades at most (SQN)", _RATIO),
    "total_r": ("total net, R", _R),
    "profit_factor": ("gains / losses", _RATIO),
    "payoff": ("mean gain / mean loss", _RATIO),
    "max_drawdown_r": ("deepest fall, R", _RATIO),
    "sharpe_per_trade": ("Sharpe ratio, a trade", _RATIO),
    "skew": ("skew", _RATIO),
    "kurtosis": ("kurtosis (3 is normal)", _RATIO),
    "gross_expectancy_r": ("mean gross, R", _R),
    "gross_total_r": ("total gross, R", _R),
    "cost_r": ("costs a trade, R", _RATIO),
    "total_cost_r": ("costs in all, R", _RATIO),
    "total_return": ("return, account", _PERCENT),
    "max_drawdown": ("deepest fall, account", _PERCENT),
    "yearly_return": ("return a year", _PERCENT),
    "volatility": ("volatility a year", _PERCENT),
    "sharpe": ("Sharpe ratio", _RATIO),
    "sortino": ("Sortino ratio, a year", _RATIO),
    "calmar": ("return a year / deepest fall", _RATIO),
    "initial_equity": ("account at first, its currency", ",.2f"),
    "final_equity": ("account at last, its currency", ",.2f"),
    "lowest_equity": ("lowest account, of the first", _PERCENT),
    "days": ("days", _COUNT),
    "exposure": ("time in the market", _PERCENT),
    "average_bars": ("bars held, mean", ".1f"),
    "trades_a_month": ("trades a month", ".1f"),
    "skipped_signals": ("signals skipped", _COUNT),
    "effective_trials": ("trials that differ", ".1f"),
    "expected_best": ("best Sharpe ratio of luck, a trade", _RATIO),
    "deflated_sharpe": ("chance that it is no luck (deflated Sharpe)", _PERCENT),
    "risk_per_trade": ("account lost at the stop", _PERCENT),
    "max_leverage": ("leverage at most", _COUNT),
    "risk_from": ("one R from", ""),
    "p_value": ("p-value", ".3f"),
    "min_confidence": ("confidence at least", _RATIO),
    "stop_atr": ("stop, ATR", _RATIO),
    "risk_reward": ("target / stop", _RATIO),
    "max_holding_bars": ("bars held at most", _COUNT),
    "pbo": ("chance that the best is overfitted (PBO)", _PERCENT),
    "slope": ("slope of out-of-sample over in-sample", _RATIO),
    "loss": ("chance of a loss out of sample", _PERCENT),
    "variants": ("combinations compared", _COUNT),
    "halves": ("halvings compared", _COUNT),
    "recorded_at": ("recorded, UTC", ""),
}
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
