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
SKIPPED = (
    *("no bar after it", "opened beyond stop", "opened near stop", "opened beyond target"),
    *("no range to trail by", "in position"),
)


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
    break_even_r: float | None = None  # a bar that comes so far in favour puts the stop at the fill
    trail_atr: float | None = None  # so many of the signal's `atr` behind the close
    targets: tuple[tuple[float, float], ...] = ()  # R and share of parts that leave early

    @property
    def planned(self) -> bool:
        """Return whether a trade may leave otherwise than at one stop, one target or a close."""
        return bool(self.break_even_r or self.trail_atr or self.targets)


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
        if position and not terms.planned and (leave := at_open(position, bar)):
            equity = close(found, position, leave, number, equity, terms)
            position = None
        order = todo.get(rows[number - 1]["time"]) if number else None
        if order:
            trade = open_trade(order, bar, number, equity, terms)
            if isinstance(trade, str) or busy:
                found.skipped[trade if isinstance(trade, str) else "in position"] += 1
            else:
                position = trade
        if position and terms.planned:
            if (equity_after := by_plan(found, position, bar, number, len(rows), equity, terms)) is not None:
                equity, position = equity_after, None
        elif position:
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
    meant = abs((order["entry_price"] if "stop_loss" in order else fill) - stop)
    if abs(bar["open"] - stop) < meant / 10 * (1 - 1e-9):
        return "opened near stop"
    if reaches(-side, fill, target):
        return "opened beyond target"
    if terms.trail_atr and math.isnan(order["atr"]):
        return "no range to trail by"
    planned = terms.risk_from == "plan" and "stop_loss" in order
    risk = abs((order["entry_price"] if planned else fill) - stop)
    size = min(equity * terms.risk / risk, terms.leverage * equity / fill)
    free = abs(bar["open"] - stop) if terms.risk_from == "fill" and "stop_loss" in order else risk
    levels = {"stop_loss": stop, "take_profit": target, "risk": risk, "gross_risk": free}
    plan = {"live_stop": stop, "left": 1.0, "parts": [], "high_water": fill}
    return {**order, **levels, **plan, "bar": number, "side": side, "open": bar["open"], "fill": fill, "size": size}


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


def by_plan(
    found: Replay, position: Row, bar: Row, number: int, count: int, equity: float, terms: Terms
) -> float | None:
    """Walk a position through a bar by its plan; return the equity when nothing of it is left, else None."""
    side, fill = position["side"], position["fill"]
    unit = abs(fill - position["stop_loss"])
    worst, best = (bar["low"], bar["high"]) if side > 0 else (bar["high"], bar["low"])
    waiting = [(fill + side * r * unit, share) for r, share in terms.targets]
    waiting = [t for t in waiting if math.isnan(position["take_profit"]) or side * (position["take_profit"] - t[0]) > 0]
    waiting = waiting[sum(part["exit_reason"] == "target" for part in position["parts"]) :]
    waiting.append((position["take_profit"], 1.0))
    for where, price in (("open", bar["open"]), ("worst", worst), ("best", best)):
        if where != "best" and reaches(side, price, position["live_stop"]):
            part_off(position, price if where == "open" else position["live_stop"], 1.0, "stop", number)
        while where != "worst" and position["left"] and reaches(-side, price, waiting[0][0]):
            level, share = waiting.pop(0)
            part_off(position, price if where == "open" else level, share if waiting else 1.0, "target", number)
    leave = by_clock(position, bar, number, count, terms)
    if leave and position["left"]:
        part_off(position, leave["price"], 1.0, leave["exit_reason"], number)
    if not position["left"]:
        return close_parts(found, position, number, equity, terms)
    position["high_water"] = side * max(side * position["high_water"], side * best)
    new = [position["live_stop"]]
    if terms.break_even_r and side * (bar["close"] - fill) > 0:
        new += [fill] if reaches(-side, position["high_water"], fill + side * terms.break_even_r * unit) else []
    if terms.trail_atr:
        new.append(bar["close"] - side * terms.trail_atr * position["atr"])
    position["live_stop"] = side * max(side * level for level in new)
    return None


def part_off(position: Row, price: float, share: float, reason: str, number: int) -> None:
    """Let a part of a position go, at most what is left of it."""
    gone = min(share, position["left"])
    if gone:
        position["parts"].append({"price": price, "share": gone, "exit_reason": reason, "exit_bar": number})
        position["left"] -= gone


def part_profit(position: Row, part: Row, terms: Terms) -> float:
    """Return what a part made, in price a whole unit, its own exit fee paid but not the entry's."""
    out = part["price"] * (1 - position["side"] * terms.slip)
    return part["share"] * (position["side"] * (out - position["fill"]) - terms.fee * out)


def close_parts(found: Replay, position: Row, number: int, equity: float, terms: Terms) -> float:
    """Book a trade whose parts have all left and return the equity after it."""
    parts, last = position["parts"], position["parts"][-1]
    assert math.isclose(sum(part["share"] for part in parts), 1)
    unit = sum(part_profit(position, part, terms) for part in parts) - terms.fee * position["fill"]
    raw = sum(part["share"] * part["price"] for part in parts)
    gross = sum(part["share"] * position["side"] * (part["price"] - position["open"]) for part in parts)
    pnl = max(position["size"] * unit, -equity)
    figures = {"exit": raw * (1 - position["side"] * terms.slip), "entry": position["fill"], "exit_bar": number}
    results = {"pnl": pnl, "r": unit / position["risk"], "r_gross": gross / position["gross_risk"]}
    found.trades.append(position | figures | results | {"exit_reason": last["exit_reason"]})
    return equity + pnl


def open_profit(position: Row | None, bar: Row, terms: Terms) -> float:
    """Return what a position is worth at a bar's close, the entry's fee paid."""
    if position is None:
        return 0.0
    move = position["left"] * position["side"] * (bar["close"] - position["fill"])
    banked = sum(part_profit(position, part, terms) for part in position["parts"])
    return position["size"] * (move + banked - terms.fee * position["fill"])
