"""Bars and signals of a seed: what a victim trades on, what the venue fills at, what the judge counts with."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

SYMBOLS = ("BTCUSDT", "ETHUSDT", "XRPUSDT")
AGENTS = {"atlas": "ml", "orion": "trend_following", "nova": "breakout"}  # name: strategy
BEGIN, STEP = datetime(2024, 1, 2, tzinfo=UTC), timedelta(minutes=5)
CASH = "1000000"  # of each agent at first
LIMITS = {
    "risk_per_trade": "0.01",
    "max_position_loss": "0.02",
    "max_positions": 2,
    "max_drawdown": "0.5",
    "daily_loss": "0.4",
    "open_risk_share": "0.5",
}


def make_market(seed: int, bars: int) -> dict[str, Any]:
    """Return bars by symbol and signals by strategy and symbol; the same for the same seed."""
    chance = Random(f"market {seed}")
    made: dict[str, list[list[Any]]] = {}
    for symbol, price in zip(SYMBOLS, (40_000.0, 2_500.0, 100.0), strict=True):
        rows = []
        for number in range(bars):
            end = price * (1 + chance.gauss(0, 0.003))
            high = max(price, end) * (1 + abs(chance.gauss(0, 0.001)))
            low = min(price, end) * (1 - abs(chance.gauss(0, 0.001)))
            values = [round(value, 2) for value in (price, high, low, end)]
            rows.append([(BEGIN + number * STEP).isoformat(), *values, 1000.0])
            price = values[3]
        made[symbol] = rows
    return {"seed": seed, "bars": made, "signals": {name: _signals(made, chance) for name in AGENTS.values()}}


def _signals(bars: dict[str, list[list[Any]]], chance: Random) -> dict[str, list[dict[str, Any]]]:
    """Return one signal a bar: a third of them want to trade."""
    found: dict[str, list[dict[str, Any]]] = {}
    for symbol, rows in bars.items():
        found[symbol] = []
        for time, *_, close, _volume in rows:
            sign, distance = chance.choice((1, -1)), close * chance.uniform(0.002, 0.006)
            signal = {"time": time, "action": "HOLD", "entry_price": close, "horizon": chance.choice(("10m", "30m"))}
            if chance.random() < 0.35:
                signal["action"] = "LONG" if sign > 0 else "SHORT"
            signal["stop_loss"] = round(close - sign * distance, 2)
            signal["take_profit"] = round(close + 2.5 * sign * distance, 2)
            found[symbol].append(signal)
    return found


def keep_market(market: dict[str, Any], folder: Path) -> None:
    """Write a market where the judge finds it."""
    (folder / "market.json").write_text(json.dumps(market))
    (folder / "limits.json").write_text(json.dumps(LIMITS | {"cash": CASH}))
