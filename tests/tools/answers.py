"""Answers of a copilot, honest and invented, over real results of this product, to measure the gate of numbers on.

A world is a moment of the packaged EURUSD bars: its price, indicators, levels, signal, backtest and account are
computed by the product's own functions. For other magnitudes the same bars are also read as USDJPY (× 140) and
BTCUSDT (× 40,000). `honest` writes an answer whose every number comes from that world; `invented` puts one number
into such an answer that does not. Everything follows from a seed.
"""

import json
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import pandas as pd

from orbiquant.domain import Bars, Costs, SeriesId
from orbiquant.features.indicators import adx, atr, bollinger, ema, macd, rsi, sma
from tests.tools.answer_texts import INVENTED

Language = Literal["en", "es"]
SCALES = {"EURUSD": (1.0, 5), "USDJPY": (140.0, 3), "BTCUSDT": (40_000.0, 1)}  # times the bars, decimals of a price


@cache
def sample_bars() -> Bars:
    """Return the packaged bars."""
    from orbiquant.market.sources import SampleSource

    return SampleSource().bars(SeriesId.parse("EURUSD", "1h"))


@cache
def backtest_figures(strategy: str, begin: int) -> dict[str, Any]:
    """Return what a strategy makes of 3,000 sample bars, in the form of the tool."""
    from orbiquant.backtest.baselines import backtest_strategy
    from orbiquant.backtest.simulate import summarise
    from orbiquant.strategies.registry import find_strategy

    bars = sample_bars().iloc[begin : begin + 3_000]
    told = summarise(backtest_strategy(find_strategy(strategy), bars, Costs(spread_bps=1.0)))
    return {
        "policy": strategy, "trades": int(told["trades"]), "net_r": told["total_r"],
        "expectancy_r": told["expectancy_r"],
        "standard_error_r": told["standard_error_r"], "cost_r": told["cost_r"], "win_rate": told["win_rate"],
        "profit_factor": told["profit_factor"], "max_drawdown_r": told["max_drawdown_r"],
    }  # fmt: skip


@dataclass
class World:
    """What tools said at a moment, and how this answer writes it."""

    rng: random.Random
    language: Language
    symbol: str
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    words: dict[str, str] = field(default_factory=dict)

    def number(self, value: float, decimals: int, sign: bool = False) -> str:
        """Return a number as somebody writes it in this language."""
        text = f"{value:{'+' if sign else ''},.{decimals}f}"
        if self.language == "es" and self.comma:
            return text.translate(str.maketrans(",.", ".,"))
        return text if self.language == "en" and self.rng.random() < 0.8 else text.replace(",", "")

    @property
    def comma(self) -> bool:
        """Say whether this writer sets decimals off by a comma."""
        return self.__dict__.setdefault("_comma", self.rng.random() < 0.6)


def make_world(seed: int, language: Language) -> World:
    """Return the world of a seed."""
    rng = random.Random(seed)
    symbol = rng.choices(list(SCALES), (6, 2, 2))[0]
    world = World(rng, language, symbol)
    times, decimals = SCALES[symbol]
    bars = sample_bars()
    at = rng.randrange(400, len(bars) - 1)
    seen = (bars.iloc[at - 399 : at + 1][["open", "high", "low", "close"]] * times).round(decimals)
    seen["volume"] = bars["volume"].iloc[at - 399 : at + 1]
    _ask_market(world, seen, decimals)
    _ask_account(world, seen, _ask_signal(world, seen, decimals))
    _ask_news(world, seen)
    _write_down(world, decimals)
    return world


def _ask_market(world: World, bars: pd.DataFrame, decimals: int) -> None:
    from orbiquant.features.ict import ict_context, key_levels
    from orbiquant.features.phases import detect_phases

    symbol, rng, close, day = world.symbol, world.rng, bars["close"], bars.iloc[-24:]
    last, unit = float(close.iloc[-1]), float(atr(bars).iloc[-1])
    lines, bands = macd(bars), bollinger(bars)
    before = float(day["open"].iloc[0])
    world.results["get_price"] = {
        "symbol": symbol, "price": last, "change24h": round(last - before, decimals),
        "change_percent": 100 * (last / before - 1), "high24h": float(day["high"].max()),
        "low24h": float(day["low"].min()), "volume": float(day["volume"].sum()), "timestamp": str(bars.index[-1]),
    }  # fmt: skip
    three = [float(lines.iloc[-1, n]) for n in range(3)]
    upper, middle, lower = (float(bands[name].iloc[-1]) for name in ("upper", "middle", "lower"))
    world.results["get_indicators"] = {
        "symbol": symbol, "timeframe": "1h", "RSI": {"value": float(rsi(bars).iloc[-1]), "interpretation": "neutral"},
        "MACD": dict(zip(("value", "signal", "histogram"), three, strict=True)) | {"interpretation": "bullish"},
        "BB": {"upper": upper, "middle": middle, "lower": lower, "percent_b": (last - lower) / (upper - lower)},
        "SMA": {f"sma{n}": float(sma(bars, n).iloc[-1]) for n in (20, 50, 200)},
        "EMA": {f"ema{n}": float(ema(bars, n).iloc[-1]) for n in (12, 26)},
        "ATR": {"value": unit}, "ADX": {"value": float(adx(bars)["adx"].iloc[-1])},
    }  # fmt: skip
    levels = key_levels(bars)
    below = [*levels["support"], *(last - n * unit for n in (2, 3, 4))][:3]
    above = [*levels["resistance"], *(last + n * unit for n in (2, 3, 4))][:3]
    phase = str(detect_phases(bars)["phase"].iloc[-1])
    world.results["analyze_market"] = {
        "symbol": symbol, "current_price": last, "amd_phase": phase, "ict_context": dict(ict_context(bars)),
        "key_levels": {"support": [round(n, decimals) for n in below],
                       "resistance": [round(n, decimals) for n in above]},
        "trend": rng.choice(("bullish", "bearish", "neutral")), "volatility": "medium",
    }  # fmt: skip


def _ask_signal(world: World, bars: pd.DataFrame, decimals: int) -> float:
    """Return how far the signal's stop lies."""
    rng, last, unit = world.rng, float(bars["close"].iloc[-1]), float(atr(bars).iloc[-1])
    side, stop_at, reward = rng.choice((1, -1)), rng.choice((1.0, 1.5, 2.0)) * unit, rng.choice((2.0, 2.5, 3.0))
    world.results["get_signal"] = {
        "symbol": world.symbol, "action": "LONG" if side > 0 else "SHORT",
        "confidence": round(rng.uniform(0.6, 0.9), 4),
        "entry_price": last, "stop_loss": round(last - side * stop_at, decimals),
        "take_profit": round(last + side * reward * stop_at, decimals), "risk_reward": reward, "horizon": "24h",
        "historical_accuracy": round(rng.uniform(0.5, 0.7), 4), "model_version": "eurusd-1h-3",
        "features": [{"name": "displacement", "importance": round(rng.uniform(0.05, 0.3), 4)}],
    }  # fmt: skip
    return stop_at


def _ask_account(world: World, bars: pd.DataFrame, stop_at: float) -> None:
    symbol, rng, close = world.symbol, world.rng, bars["close"]
    balance = round(rng.choice((2_500, 10_000, 25_000, 48_250)) * rng.uniform(0.9, 1.1), 2)
    profit = round(rng.uniform(-0.03, 0.03) * balance, 2)
    world.results["get_portfolio"] = {
        "balance": balance, "equity": round(balance + profit, 2), "margin": round(balance * 0.1, 2),
        "free_margin": round(balance * 0.9 + profit, 2), "daily_pnl": profit,
        "positions": [{"ticket": f"{rng.randrange(10_000, 99_999)}", "symbol": symbol, "type": "buy",
                       "size": rng.choice((0.1, 0.25, 0.5)), "open_price": float(close.iloc[-30]), "profit": profit}],
    }  # fmt: skip
    share = rng.choice((0.5, 1.0, 2.0))
    world.results["calculate_position_size"] = {
        "units": int(balance * share / 100 / stop_at), "risk_amount": round(balance * share / 100, 2),
        "risk_percent": share, "stop_distance": stop_at, "pips": round(stop_at / _pip(symbol), 1),
    }  # fmt: skip


def _ask_news(world: World, bars: pd.DataFrame) -> None:
    symbol, rng = world.symbol, world.rng
    balance = world.results["get_portfolio"]["balance"]
    rule = rng.choice(("breakout", "mean_reversion", "trend_following"))
    world.results["run_backtest"] = {
        "symbol": symbol,
        "timeframe": "1h",
        "trials": rng.randrange(3, 40),
    } | backtest_figures(rule, rng.choice((0, 3_000)))
    world.results["get_news"] = {
        "news": [{"title": f"Euro slips as the Fed holds rates at {rng.choice((4.25, 4.5, 5.25)):.2f} %",
                  "sentiment": -0.31}],
        "overall_sentiment": round(rng.uniform(-0.6, 0.6), 2), "fear_greed": rng.randrange(15, 85),
    }  # fmt: skip
    world.results["get_ohlcv"] = {
        "symbol": symbol, "bars": [{"time": str(t), "open": o, "high": h, "low": lo, "close": c} for t, o, h, lo, c in
                                   bars.iloc[-100:, :4].itertuples()],
    }  # fmt: skip
    world.said.append(
        rng.choice((f"my account is {balance:.0f}", "should I buy?", "analiza esto con mi stop", "how is it going?"))
    )


def _pip(symbol: str) -> float:
    return {"EURUSD": 0.0001, "USDJPY": 0.01}.get(symbol, 1.0)


def _write_down(world: World, decimals: int) -> None:
    """Write every figure once as this answer will show it."""
    rng, number, results = world.rng, world.number, world.results
    price, signal, levels = results["get_price"], results["get_signal"], results["analyze_market"]["key_levels"]
    lines, told, held = results["get_indicators"], results["run_backtest"], results["get_portfolio"]
    size, news, shown = results["calculate_position_size"], results["get_news"], world.words

    def level(value: float) -> str:
        return number(value, max(decimals - rng.choice((0, 0, 1)), 0))

    shown |= {"symbol": world.symbol, "price": level(price["price"]), "high": level(price["high24h"])}
    shown |= {"low": level(price["low24h"]), "change": number(abs(price["change_percent"]), 2)}
    shown["moved"] = {"en": ("rose", "fell"), "es": ("subió", "cayó")}[world.language][price["change_percent"] < 0]
    shown["signed"] = number(price["change_percent"], rng.choice((1, 2)), True)
    shown |= {f"s{n + 1}": level(value) for n, value in enumerate(levels["support"])}
    shown |= {f"r{n + 1}": level(value) for n, value in enumerate(levels["resistance"])}
    shown |= {"entry": level(signal["entry_price"]), "stop": number(signal["stop_loss"], decimals)}
    shown |= {"target": number(signal["take_profit"], decimals), "fullentry": number(signal["entry_price"], decimals)}
    shown["rr"] = number(signal["risk_reward"], rng.choice((0, 1)) if signal["risk_reward"] % 1 == 0 else 1)
    stop_share = abs(signal["entry_price"] - signal["stop_loss"]) / signal["entry_price"]
    shown |= {"stoppct": number(100 * stop_share, 2), "action": signal["action"]}
    shown |= {
        "conf": number(100 * signal["confidence"], rng.choice((0, 1))),
        "confraw": number(signal["confidence"], 2),
    }
    shown["hist"] = number(100 * signal["historical_accuracy"], rng.choice((0, 1)))
    shown["weight"] = number(100 * signal["features"][0]["importance"], 1)
    shown |= {"rsi": number(lines["RSI"]["value"], rng.choice((0, 1, 2))), "adx": number(lines["ADX"]["value"], 1)}
    shown |= {"macd": number(lines["MACD"]["value"], decimals), "macds": number(lines["MACD"]["signal"], decimals)}
    shown |= {"hist_macd": number(lines["MACD"]["histogram"], decimals), "atr": number(lines["ATR"]["value"], decimals)}
    shown |= {"upper": level(lines["BB"]["upper"]), "lower": level(lines["BB"]["lower"])}
    shown |= {"middle": level(lines["BB"]["middle"]), "pctb": number(lines["BB"]["percent_b"], 2)}
    shown |= {f"sma{n}": level(lines["SMA"][f"sma{n}"]) for n in (20, 50, 200)}
    shown |= {"ema12": level(lines["EMA"]["ema12"]), "ema26": level(lines["EMA"]["ema26"])}
    shown |= {"trades": number(told["trades"], 0), "trials": str(told["trials"]), "rule": told["policy"]}
    shown |= {"netr": number(told["net_r"], 1, True), "mean": number(told["expectancy_r"], 3, True)}
    shown |= {"error": number(told["standard_error_r"], 3), "cost": number(told["cost_r"], 3)}
    shown |= {"win": number(100 * told["win_rate"], 1), "pf": number(told["profit_factor"], 2)}
    shown |= {"dd": number(abs(told["max_drawdown_r"]), 1), "balance": number(held["balance"], 2)}
    shown |= {
        "equity": number(held["equity"], 2),
        "free": number(held["free_margin"], 0),
        "pnl": number(held["daily_pnl"], 2, True),
    }
    shown |= {"ticket": held["positions"][0]["ticket"], "lots": number(held["positions"][0]["size"], 2)}
    shown |= {
        "risk": number(size["risk_amount"], 2),
        "riskpct": number(size["risk_percent"], int(size["risk_percent"] % 1 > 0)),
    }
    shown |= {"units": number(size["units"], 0), "pips": number(size["pips"], 1)}
    shown |= {"sent": number(news["overall_sentiment"], 2), "fear": str(news["fear_greed"])}
    shown["rate"] = re.search(r"[\d.]+ %", news["news"][0]["title"])[0]  # type: ignore[index]
    row = results["get_ohlcv"]["bars"][rng.randrange(100)]
    shown |= {"day": row["time"][:10], "rowclose": number(row["close"], decimals), "hour": row["time"][11:16]}
    one = abs(signal["take_profit"] - signal["entry_price"]) / abs(signal["entry_price"] - signal["stop_loss"])
    shown["shown_rr"] = number(one, 2)
    share = rng.choice((1, 2))
    shown |= {"share": str(share), "part": number(held["balance"] * share / 100, 2)}
    shift = rng.choice((5, 10, 12))
    shown |= {"shift": str(shift), "trigger": number(signal["entry_price"] + shift * _pip(world.symbol), decimals)}


def tool_results(world: World) -> Iterator[tuple[str, Any]]:
    """Yield what the tools said, as it travels."""
    for name, result in world.results.items():
        yield name, json.loads(json.dumps(result))


def honest(world: World, bank: Mapping[Language, list[str]]) -> str:
    """Return an answer of whose numbers each has an origin."""
    rng, chosen = world.rng, bank[world.language]
    parts = rng.sample(chosen, rng.randrange(3, min(8, len(chosen))))
    return rng.choice((" ", "\n", "\n\n")).join(part.format(**world.words) for part in parts)


# --- inventions ---


def _numbers(value: Any) -> Iterator[float]:
    """Yield every number below a value: an oracle of its own."""
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, int | float):
        yield abs(float(value))
    elif isinstance(value, str):
        yield from (float(each) for each in re.findall(r"\d+\.\d+|\d+", value))
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _numbers(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _numbers(each)


def is_new(world: World, value: float, step: float) -> bool:
    """Say whether no tool and no message holds a number that rounds to this one, in any unit."""
    known = [*_numbers(world.results), *_numbers(world.said)]
    return all(abs(number * factor - value) > step for number in known for factor in (1, 100, 10_000, 0.01))


Draw = Callable[[World], tuple[str, float, float]]


def _near_price(world: World) -> tuple[str, float, float]:
    _, decimals = SCALES[world.symbol]
    value = round(world.results["get_price"]["price"] * world.rng.uniform(0.97, 1.03), decimals)
    return world.number(value, decimals), value, 10.0**-decimals


def _far_price(world: World) -> tuple[str, float, float]:
    _, decimals = SCALES[world.symbol]
    value = round(world.results["get_price"]["price"] * world.rng.uniform(0.5, 2.0), decimals)
    return world.number(value, decimals), value, 10.0**-decimals


def _off_by_little(world: World) -> tuple[str, float, float]:
    _, decimals = SCALES[world.symbol]
    levels = world.results["analyze_market"]["key_levels"]
    value = round(
        world.rng.choice(levels["support"] + levels["resistance"]) + world.rng.choice((3, -4, 7)) * 10.0**-decimals,
        decimals,
    )
    return world.number(value, decimals), value, 10.0**-decimals


def _share(world: World) -> tuple[str, float, float]:
    value = round(world.rng.uniform(13, 97), 1)
    return world.number(value, 1), value, 0.1


def _index(world: World) -> tuple[str, float, float]:
    value = round(world.rng.uniform(13, 89), 1)
    return world.number(value, 1), value, 0.1


def _amount(world: World) -> tuple[str, float, float]:
    value = round(world.rng.uniform(300, 90_000), 2)
    return world.number(value, 2), value, 0.01


def _small(world: World) -> tuple[str, float, float]:
    value = round(world.rng.uniform(4.1, 9.8), 1)
    return world.number(value, 1), value, 0.1


def _digits(text: str, zero: int) -> str:
    return "".join(chr(zero + int(letter)) if letter.isdigit() else letter for letter in text)


DRAWN: dict[str, Draw] = {
    "price": _near_price,
    "far price": _far_price,
    "level": _off_by_little,
    "order": _near_price,
    "indicator": _index,
    "share": _share,
    "amount": _amount,
    "ratio": _small,
    "derived": _near_price,
    "other symbol": _far_price,
    "disguised": _near_price,
}


def invented(world: World, bank: Mapping[Language, list[str]]) -> tuple[str, str, str]:
    """Return an answer with one number from nowhere, that number, and what kind it is."""
    rng = world.rng
    kind = rng.choice(sorted(DRAWN))
    draw, texts = DRAWN[kind], INVENTED[kind]
    while True:
        shown, value, step = draw(world)
        if is_new(world, value, step):
            break
    forms = {
        "x": shown,
        "full": _digits(shown, 0xFF10),
        "arabic": _digits(shown, 0x0660),
        "hidden": shown[0] + "\u200b" + shown[1:],
    }
    lie = rng.choice(texts[world.language]).format(**world.words, **forms)
    sentences = [part.format(**world.words) for part in rng.sample(bank[world.language], 3)]
    sentences.insert(rng.randrange(4), lie)
    return "\n".join(sentences), shown, kind
