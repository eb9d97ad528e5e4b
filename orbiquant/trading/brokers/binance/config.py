"""Where Binance is, and with which keys: values from the settings; the keys never out of a file that is shared."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from ....core import BrokerRejected
from ....domain import Value

Environment: TypeAlias = Literal["testnet", "demo", "mainnet"]


class BinanceConfig(Value):
    "The section `[binance]`."

    environment: Environment = "demo"
    api_key: SecretStr = SecretStr("")
    api_secret: SecretStr = SecretStr("")
    rest_url: str = ""  # up to /api/v3; empty: the environment's
    stream_url: str = ""  # of the WebSocket API; empty: the environment's
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

    @field_validator("rest_url", "stream_url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if url and parts.scheme not in ("https", "wss") and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
            raise ValueError("must begin with https:// or wss://, unless it is on this machine: keys are sent there")
        return url

    @property
    def real_money(self) -> bool:
        "Say whether an order costs something."
        return self.environment == "mainnet"


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
