"""What anybody may ask for: time, rules, prices and bars."""

from __future__ import annotations

import json
from typing import Any

from tests.fake_binance.answers import Refused, bad_symbol, missing
from tests.fake_binance.engine import Engine
from tests.fake_binance.limits import Limits
from tests.fake_binance.market import LENGTHS_MS, Market
from tests.fake_binance.orders_in import Params, market_of, whole
from tests.fake_binance.records import ZERO, text


def chosen(engine: Engine, params: Params) -> tuple[list[Market], bool]:
    """Return the markets a request is about, and whether it names just one."""
    one = market_of(engine.markets, params, needed=False)
    if one is not None:
        return [one], True
    told = params.get("symbols")
    if not told:
        return list(engine.markets.values()), False
    names = told if isinstance(told, list) else json.loads(str(told))
    if any(name not in engine.markets for name in names):
        raise bad_symbol()
    return [engine.markets[name] for name in names], False


def exchange_info(engine: Engine, limits: Limits, params: Params) -> dict[str, Any]:
    """Tell the rules."""
    status = params.get("symbolStatus")
    symbols = [market.symbol.info() for market in chosen(engine, params)[0]]
    return {
        "timezone": "UTC",
        "serverTime": engine.clock.now_ms(),
        "rateLimits": limits.rules(),
        "exchangeFilters": [],
        "symbols": [symbol for symbol in symbols if status in (None, symbol["status"])],
    }


def price(engine: Engine, params: Params) -> Any:
    """Tell last prices."""
    markets, single = chosen(engine, params)
    told = [{"symbol": market.symbol.name, "price": text(market.last)} for market in markets]
    return told[0] if single else told


def book_ticker(engine: Engine, params: Params) -> Any:
    """Tell the best prices."""
    markets, single = chosen(engine, params)
    told = [market.book_ticker() for market in markets]
    return told[0] if single else told


def day_ticker(engine: Engine, params: Params) -> Any:
    """Tell the last day of a pair."""
    markets, single = chosen(engine, params)
    told = [day_of(market, engine.clock.now_ms()) for market in markets]
    return told[0] if single else told


def day_of(market: Market, now_ms: int) -> dict[str, Any]:
    """Return the last day of one pair."""
    bars = list(market.bars.values())[-1440:]
    opened = bars[0].open if bars else market.last
    best = market.book_ticker()
    return best | {
        "priceChange": text(market.last - opened),
        "priceChangePercent": f"{(market.last / opened - 1) * 100:.3f}",
        "weightedAvgPrice": text(market.average_price()),
        "prevClosePrice": text(opened),
        "lastPrice": text(market.last),
        "lastQty": text(ZERO),
        "openPrice": text(opened),
        "highPrice": text(max([bar.high for bar in bars], default=market.last)),
        "lowPrice": text(min([bar.low for bar in bars], default=market.last)),
        "volume": text(sum((bar.volume for bar in bars), ZERO)),
        "quoteVolume": text(sum((bar.quote for bar in bars), ZERO)),
        "openTime": now_ms - 86_400_000,
        "closeTime": now_ms,
        "firstId": 1,
        "lastId": market.trade_id,
        "count": market.trade_id,
    }


def depth(engine: Engine, params: Params) -> dict[str, Any]:
    """Tell a book."""
    market = market_of(engine.markets, params)
    assert market is not None
    return market.depth(min(whole(params, "limit") or 100, 20))


def average(engine: Engine, params: Params) -> dict[str, Any]:
    """Tell the average price that filters look at."""
    market = market_of(engine.markets, params)
    assert market is not None
    return {"mins": 5, "price": text(market.average_price()), "closeTime": market.traded_ms}


def klines(engine: Engine, params: Params) -> list[list[Any]]:
    """Tell bars."""
    market = market_of(engine.markets, params)
    assert market is not None
    interval = params.get("interval")
    if not interval:
        raise missing("interval")
    if interval not in LENGTHS_MS:
        raise Refused(-1120, "Invalid interval.")
    limit = min(whole(params, "limit") or 500, 1000)
    return market.klines(str(interval), whole(params, "startTime"), whole(params, "endTime"), limit)
