"""Bars, signals and investors of a seed: what a victim trades on, what the venue fills at, what judges count with."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

PRICES = {"BTCUSDT": 40_000.0, "ETHUSDT": 2_500.0, "XRPUSDT": 100.0}  # at first, by symbol
AGENTS = {"atlas": "ml", "orion": "trend_following", "nova": "breakout"}  # name: strategy
STEP = timedelta(minutes=5)
SHARE = 0.35  # of the signals that want to trade
MONTHS = (datetime(2024, 2, 1, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC))  # each ends in the midst of some bars
PRODUCTS = {  # by agent
    "atlas": {"id": "atlas-conservative", "distribution": "pay_out"},
    "orion": {"id": "orion-moderate", "distribution": "reinvest"},
    "nova": {"id": "nova-aggressive", "distribution": "pay_out"},
}
TERMS = {"currency": "USDT", "performance_fee": "0.2", "minimum_deposit": "10", "cent": "0.01"}
INVESTORS = ("ana", "ben", "eva")  # of each product
QUIET = 6  # bars at the end in which nobody asks for anything
CASH = "1000000"  # of each agent at first
LIMITS = {
    "risk_per_trade": "0.01",
    "max_position_loss": "0.02",
    "max_positions": 2,
    "max_drawdown": "0.5",
    "daily_loss": "0.4",
    "open_risk_share": "0.5",
}


def opens_of(bars: int) -> list[datetime]:
    """Return when bars open: around two ends of a month, and nothing between them."""
    first = bars // 2
    halves = ((MONTHS[0], first), (MONTHS[1], bars - first))
    return [end + (number - count // 2) * STEP for end, count in halves for number in range(count)]


def prices_of(count: int) -> dict[str, float]:
    """Return so many symbols with their first prices: the usual ones, and coins of no name behind them."""
    coins = {f"COIN{number}USDT": 50.0 + number for number in range(count - len(PRICES))}
    return dict([*PRICES.items(), *coins.items()][:count])


def make_market(seed: int, bars: int, symbols: int = len(PRICES), share: float = SHARE) -> dict[str, Any]:
    """Return bars and signals by symbol, and what investors want; the same for the same seed."""
    chance, opens = Random(f"market {seed}"), opens_of(bars)
    made: dict[str, list[list[Any]]] = {}
    for symbol, price in prices_of(symbols).items():
        rows = []
        for number in range(bars):
            end = price * (1 + chance.gauss(0, 0.003))
            high = max(price, end) * (1 + abs(chance.gauss(0, 0.001)))
            low = min(price, end) * (1 - abs(chance.gauss(0, 0.001)))
            values = [round(value, 2) for value in (price, high, low, end)]
            rows.append([opens[number].isoformat(), *values, 1000.0])
            price = values[3]
        made[symbol] = rows
    signals = {name: _signals(made, chance, share) for name in AGENTS.values()}
    return {"seed": seed, "bars": made, "signals": signals, "flows": make_flows(seed, bars)}


def make_flows(seed: int, bars: int) -> list[dict[str, Any]]:
    """Return deposits and withdrawals, with the number of the bar after which each is asked for."""
    chance, found = Random(f"flows {seed}"), []
    for number in range(max(1, bars - QUIET)):
        for agent, product in PRODUCTS.items():
            if number and chance.random() > 0.25:  # everybody is there from the first bar on
                continue
            for name in INVESTORS if number == 0 else (chance.choice(INVESTORS),):
                kind = "deposit" if number == 0 or chance.random() < 0.4 else "withdrawal"
                cents = chance.randrange(10_00, 40_000_00) if kind == "deposit" else chance.randrange(1, 15_000_00)
                amount = None if kind == "withdrawal" and chance.random() < 0.15 else f"{cents / 100:.2f}"
                about = {"id": f"{kind}:{agent}:{number}:{name}", "account_id": f"inv-{agent}-{name}"}
                found.append({"number": number, "kind": kind, "amount": amount, "product": product["id"]} | about)
    return found


def _signals(bars: dict[str, list[list[Any]]], chance: Random, share: float) -> dict[str, list[dict[str, Any]]]:
    """Return one signal a bar: a share of them want to trade."""
    found: dict[str, list[dict[str, Any]]] = {}
    for symbol, rows in bars.items():
        found[symbol] = []
        for time, *_, close, _volume in rows:
            sign, distance = chance.choice((1, -1)), close * chance.uniform(0.002, 0.006)
            signal = {"time": time, "action": "HOLD", "entry_price": close, "horizon": chance.choice(("10m", "30m"))}
            if chance.random() < share:
                signal["action"] = "LONG" if sign > 0 else "SHORT"
            signal["stop_loss"] = round(close - sign * distance, 2)
            signal["take_profit"] = round(close + 2.5 * sign * distance, 2)
            found[symbol].append(signal)
    return found


def keep_market(market: dict[str, Any], folder: Path, **limits: Any) -> None:
    """Write a market where the judge finds it, and what agents may do there beside the usual."""
    (folder / "market.json").write_text(json.dumps(market))
    (folder / "limits.json").write_text(json.dumps(LIMITS | {"cash": CASH} | limits))
    terms = {each["id"]: TERMS | each | {"agent": agent} for agent, each in PRODUCTS.items()}
    (folder / "products.json").write_text(json.dumps(terms))
