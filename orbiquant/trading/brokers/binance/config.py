"""Where Binance is, and with which keys: values from the settings; the keys never out of a file that is shared."""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from ....core import BrokerRejected
from ....domain import Value

Environment: TypeAlias = Literal["testnet", "demo", "mainnet"]

_HERE = ("127.0.0.1", "localhost", "::1")


def _is_play(host: str) -> bool:
    return host in _HERE or not {"testnet", "demo"}.isdisjoint(re.split(r"[.-]", host))


class BinanceConfig(Value):
    "The section `[binance]`."

    environment: Environment = "demo"
    api_key: SecretStr = SecretStr("")
    api_secret: SecretStr = SecretStr("")
    rest_url: str = ""  # up to /api/v3; empty: the environment's
    stream_url: str = ""  # of the WebSocket API; empty: the environment's
    market_url: str = ""  # of the streams of prices, up to /ws; empty: the environment's, none beside a `rest_url`
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 10.0
    sweep_s: Annotated[float, Field(gt=0, le=30)] = 15.0  # between two looks at the venue, where no event wakes us
    stop_gap: Annotated[Decimal, Field(gt=0, lt=1)] = Decimal("0.02")  # of the price, where a stop must name a limit

    @field_validator("api_key", "api_secret")
    @classmethod
    def _check_key(cls, key: SecretStr) -> SecretStr:
        value = key.get_secret_value().strip()
        if not (value.isascii() and value.isprintable()):
            raise ValueError("must be printable ASCII, was not")
        return SecretStr(value)

    @field_validator("rest_url", "stream_url", "market_url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if url and parts.scheme not in ("https", "wss") and parts.hostname not in _HERE:
            raise ValueError("must begin with https:// or wss://, unless it is on this machine: keys are sent there")
        return url

    @property
    def hosts(self) -> tuple[str, ...]:
        "Return the hosts that stand in the place of the environment's."
        return tuple(dict.fromkeys(urlsplit(url).hostname or "" for url in (self.rest_url, self.stream_url) if url))

    @property
    def place(self) -> str:
        "Return where an account is: books that were opened there are no other place's."
        return " ".join(("at", self.environment, *self.hosts))

    @property
    def streamed(self) -> bool:
        "Say whether it is known where prices are streamed that belong to the orders."
        return bool(self.market_url) or not self.rest_url

    @property
    def real_money(self) -> bool:
        "Say whether an order costs something: at an address that is not known to be a play's it does."
        return self.environment == "mainnet" or any(not _is_play(host) for host in self.hosts)


class TradingConfig(Value):
    "The section `[trading]`."

    live: bool = False  # whether any agent may trade money


def check_rights(
    told: Mapping[str, Any],  # what a key may do
) -> None:
    "Raise `BrokerRejected` for a key that may take money out, or may not trade."
    if told.get("enableWithdrawals") or told.get("enableInternalTransfer") or told.get("permitsUniversalTransfer"):
        raise BrokerRejected("the key may withdraw or transfer: make one that may only read and trade spot")
    if not told.get("enableSpotAndMarginTrading"):
        raise BrokerRejected("the key may not trade: allow spot trading for it, from this address only")
