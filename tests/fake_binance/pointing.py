"""Points ccxt at the venue."""

from typing import Any

from tests.fake_binance.running import RunningBinance


def keys(venue: RunningBinance) -> dict[str, str]:
    """Return the first account's keys as ccxt takes them."""
    return {"apiKey": venue.key, "secret": venue.secret}


def pointed(exchange: Any, venue: RunningBinance) -> Any:
    """Return a `ccxt.binance`, of any of its kinds, that speaks to the venue instead."""
    api = exchange.urls["api"]
    for name in ("public", "private"):
        api[name] = f"{venue.url}/api/v3"
    api["sapi"] = f"{venue.url}/sapi/v1"
    if "ws" in api:
        api["ws"]["ws-api"]["spot"] = f"{venue.ws_url}/ws-api/v3"
        api["ws"]["spot"] = f"{venue.ws_url}/ws"
    exchange.options["fetchMarkets"] = {"types": ["spot"]}
    return exchange
