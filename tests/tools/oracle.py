"""A slow second opinion on backtests: a plain loop over bars and, where there are any, over the finer bars inside them.

It imports nothing of the library and shares no trick with it: one bar after the other, one position, no arrays. With
`fine` bars, each bar's stop and target are looked for minute by minute, so that a bar holding both is settled by what
came first instead of by assumption.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

Row = dict[str, Any]
SKIPPED = ("no bar after it", "opened beyond stop", "opened beyond target", "in position")


@dataclass
class Terms:
    """What a trade is made under: fee and slip are fractions of the price, one side."""

    fee: float = 0.0
    slip: float = 0.0  # slippage plus half the spread
    limit: int | None = None  # bars a trade may last, the entry's counted
    risk_from: str = "fill"  # or "plan"
    risk: float = 0.01  # share of equity lost at the stop
    equity: float = 10_000.0
    leverage: float = 30.0
    minute_gaps: bool = False  # fill at a finer bar's open when that is beyond the level, not at the level


@dataclass
class Replay:
    """What came of it."""

    trades: list[Row] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SKIPPED, 0))
    worth: list[float] = field(default_factory=list)  # of the account, at each bar's close


def replay(bars: pd.DataFrame, signals: pd.DataFrame, terms: Terms, fine: pd.DataFrame | None = None) -> Replay:
    """Return the trades of `signals` on `bars`, settled by the `fine` bars inside each bar when they are given."""
    rows = bars.rename_axis("time").reset_index().to_dict("records")
    inside = split(rows, fine)
    todo = {time: row for time, row in signals.to_dict("index").items() if row["action"] != "HOLD"}
    found, position, equity = Replay(), None, terms.equity
    for number, bar in enumerate(rows):
        busy = position is not None
        if position and (leave := at_open(position, bar)):
            equity = close(found, position, leave, number, equity, terms)
            position = None
        order = todo.get(rows[number - 1]["time"]) if number else None
        if order:
            trade = open_trade(order, bar, number, equity, terms)
            if isinstance(trade, str) or busy:
                found.skipped[trade if isinstance(trade, str) else "in position"] += 1
            else:
                position = trade
        if position:
            leave = within(position, bar, inside.get(number), terms) or by_clock(
                position, bar, number, len(rows), terms
            )
            if leave:
                equity = close(found, position, leave, number, equity, terms)
                position = None
        found.worth.append(max(equity + open_profit(position, bar, terms), 0))
    if rows and rows[-1]["time"] in todo:
        found.skipped["no bar after it"] += 1
    return found


def split(rows: list[Row], fine: pd.DataFrame | None) -> dict[int, list[Row]]:
    """Return the finer bars inside each bar, by the bar's number."""
    inside: dict[int, list[Row]] = {}
    number = 0
    for small in [] if fine is None else fine.rename_axis("time").reset_index().to_dict("records"):
        while number + 1 < len(rows) and rows[number + 1]["time"] <= small["time"]:
            number += 1
        inside.setdefault(number, []).append(small)
    return inside


def open_trade(order: Row, bar: Row, number: int, equity: float, terms: Terms) -> Row | str:
    """Return the position an order opens on a bar, or why it does not."""
    side = 1 if order["action"] == "LONG" else -1
    fill = bar["open"] * (1 + side * terms.slip)
    stop = order["stop_loss"] if "stop_loss" in order else fill - side * order["stop_distance"]
    if "target_distance" in order:
        target = fill + side * order["target_distance"]
    else:
        target = order.get("take_profit", float("nan"))
    if reaches(side, bar["open"], stop):
        return "opened beyond stop"
    if reaches(-side, fill, target):
        return "opened beyond target"
    planned = terms.risk_from == "plan" and "stop_loss" in order
    risk = abs((order["entry_price"] if planned else fill) - stop)
    size = min(equity * terms.risk / risk, terms.leverage * equity / fill)
    free = abs(bar["open"] - stop) if terms.risk_from == "fill" and "stop_loss" in order else risk
    levels = {"stop_loss": stop, "take_profit": target, "risk": risk, "gross_risk": free}
    return {**order, **levels, "bar": number, "side": side, "open": bar["open"], "fill": fill, "size": size}


def reaches(side: int, price: float, level: float) -> bool:
    """Return whether a price has come to a level, from above (+1) or below (-1); fourteen equal digits are there."""
    return side * (price - level) <= 0 or math.isclose(price, level, rel_tol=1e-14)


def hit(position: Row, bar: Row) -> tuple[bool, bool]:
    """Return whether a bar touches the stop, and the target."""
    side = position["side"]
    worst, best = (bar["low"], bar["high"]) if side > 0 else (bar["high"], bar["low"])
    return reaches(side, worst, position["stop_loss"]), reaches(-side, best, position["take_profit"])


def at_open(position: Row, bar: Row) -> Row | None:
    """Return how a position leaves at a later bar's open, if it does."""
    stopped, reached = hit(position, {"low": bar["open"], "high": bar["open"]})
    if stopped or reached:
        return {"price": bar["open"], "exit_reason": "stop" if stopped else "target"}
    return None


def within(position: Row, bar: Row, minutes: list[Row] | None, terms: Terms) -> Row | None:
    """Return how a position leaves inside a bar, if it does; `ambiguous` says that the bar alone cannot tell."""
    stopped, reached = hit(position, bar)
    if not (stopped or reached):
        return None
    for order, minute in enumerate(minutes or []):
        early, late = hit(position, minute)
        if early or late:
            reason = "stop" if early else "target"
            price = position["stop_loss" if early else "take_profit"]
            if terms.minute_gaps and order and any(hit(position, {"low": minute["open"], "high": minute["open"]})):
                price = minute["open"]
            doubt = {"ambiguous": stopped and reached, "unresolved": early and late}
            return {"price": price, "exit_reason": reason} | doubt
    reason = "stop" if stopped else "target"
    price = position["stop_loss" if stopped else "take_profit"]
    return {"price": price, "exit_reason": reason, "ambiguous": stopped and reached, "unresolved": stopped and reached}


def by_clock(position: Row, bar: Row, number: int, count: int, terms: Terms) -> Row | None:
    """Return how a position leaves at a bar's close, if its time is up."""
    if terms.limit and number == position["bar"] + terms.limit - 1:
        return {"price": bar["close"], "exit_reason": "time"}
    return {"price": bar["close"], "exit_reason": "end"} if number == count - 1 else None


def close(found: Replay, position: Row, leave: Row, number: int, equity: float, terms: Terms) -> float:
    """Book a trade and return the equity after it."""
    side, fill = position["side"], position["fill"]
    out = leave["price"] * (1 - side * terms.slip)
    unit = side * (out - fill) - terms.fee * (out + fill)
    pnl = max(position["size"] * unit, -equity)
    figures = {"exit": out, "entry": fill, "exit_bar": number, "pnl": pnl, "r": unit / position["risk"]}
    gross = {"r_gross": side * (leave["price"] - position["open"]) / position["gross_risk"]}
    found.trades.append({"ambiguous": False, "unresolved": False} | position | leave | figures | gross)
    return equity + pnl


def open_profit(position: Row | None, bar: Row, terms: Terms) -> float:
    """Return what a position is worth at a bar's close, the entry's fee paid."""
    if position is None:
        return 0.0
    move = position["side"] * (bar["close"] - position["fill"])
    return position["size"] * (move - terms.fee * position["fill"])
