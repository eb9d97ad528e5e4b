"""What a client of a stream may say: in the address that opens it, and in its messages."""

# The service tells, each a JSON text:
#   {"type": "hello", "stream": "market", "epoch": "…", "seq": 7}   what follows has numbers after 7 of this epoch
#   {"type": "subscribed" | "unsubscribed", "series": [{"symbol": "EURUSD", "timeframe": "1h"}]}
#       empty where the address named no symbols: its `message` says that nothing is subscribed yet
#   {"type": "bar", "seq": 8, "symbol": "EURUSD", "timeframe": "1h", "bar": {time, open, high, low, close, volume}}
#   {"type": "signal", "seq": 8, "symbol": "EURUSD", "timeframe": "1h", "signal": {what …/signals/latest answers}}
#   {"type": "gap", "from": 3, "to": 6}   numbers that are no longer kept: ask /api/market_data or …/signals/latest anew
#   {"type": "error", "error": "NOT_FOUND", "message": "…", "details": {}}
# Numbers are the stream's: where events of other series lie between, a client sees them jump. After a gap of another
# epoch the last number and epoch are those of the newest hello.
# A hello of another epoch in between says that the stream was begun anew: ask anew for what came meanwhile.

import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.datastructures import QueryParams

from orbiquant.core import OptionError, OrbiError, suggest
from orbiquant.desk.series import choose_series
from orbiquant.desk.signals import SymbolText
from orbiquant.domain import SeriesId, Timeframe
from orbiquant.runtime import Runtime
from orbiquant.service.errors import Problem, shorten
from orbiquant.service.streams import message_text
from orbiquant.wire import NameRepeated, named_once

MOST_STREAM_TEXT = 16_384  # characters of a message
MOST_SERIES = 200  # that one client may wait for

Symbols = Annotated[list[SymbolText], Field(min_length=1, max_length=MOST_SERIES)]


class StreamWish(BaseModel):
    "What a client wants to hear of, or no longer."

    model_config = ConfigDict(extra="forbid")

    type: Literal["subscribe", "unsubscribe"]
    symbols: Symbols
    timeframe: Timeframe | None = None


class StreamOpening(BaseModel):
    "What the address of a stream says."

    model_config = ConfigDict(extra="forbid")

    token: str = ""
    symbols: Annotated[list[SymbolText], Field(max_length=MOST_SERIES)] = []
    timeframe: Timeframe | None = None
    epoch: Annotated[str, Field(max_length=64)] = ""
    since: Annotated[int | None, Field(ge=0, lt=2**63)] = None


_WISH = TypeAdapter(StreamWish)


def _refuse(error: ValidationError, fields: dict[str, object]) -> OptionError:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))[:100]
    if first["type"] == "extra_forbidden":
        return OptionError(f"there is no `{place}`{suggest(place, fields) or ', there is ' + ', '.join(fields)}")
    return OptionError(f"`{place or 'message'}`: {first['msg'][:300]}")


def read_opening(
    query: QueryParams,  # of the address
) -> StreamOpening:
    "Return what an address says; raise `OptionError` for what it cannot say."
    fields: dict[str, object] = dict(query.items())
    if len(query.multi_items()) > len(fields):
        raise OptionError("each name of the address must stand once")
    named = str(fields.get("symbols", ""))
    try:
        symbols = [each.strip() for each in named.split(",") if each.strip()]
        opening = StreamOpening.model_validate(fields | {"symbols": symbols})
    except ValidationError as error:
        raise _refuse(error, dict.fromkeys(StreamOpening.model_fields)) from None
    if opening.since is not None and not (opening.symbols and opening.epoch):
        raise OptionError("`since` needs `epoch` and `symbols` beside it: what was missed is sent of those symbols")
    return opening


def read_wish(
    text: str,  # of a message
) -> StreamWish:
    "Return what a message asks for; raise `OptionError` for what is no message."
    if len(text) > MOST_STREAM_TEXT:
        raise OptionError(f"a message must have at most {MOST_STREAM_TEXT:,} characters, had {len(text):,}")
    try:
        return _WISH.validate_python(json.loads(text, object_pairs_hook=named_once))
    except ValidationError as error:
        raise _refuse(error, dict.fromkeys(StreamWish.model_fields)) from None
    except NameRepeated as error:
        raise OptionError(f"a message must be unequivocal: {error}") from None
    except (ValueError, RecursionError):
        raise OptionError("a message must be a JSON object") from None


def wanted_series(
    runtime: Runtime,  # whose store is asked
    symbols: list[str],  # in any spelling
    timeframe: Timeframe | None,  # None: 1h, or one that has a model
) -> tuple[list[SeriesId], list[OrbiError]]:
    "Return the series that are stored, and why others are not among them."
    found, refused = list[SeriesId](), list[OrbiError]()
    for symbol in symbols:
        try:
            found.append(choose_series(runtime, symbol, timeframe).series)
        except OrbiError as error:
            refused.append(error)
    return found, refused


def problem_text(
    error: OrbiError,  # that a client is told of
) -> str:
    "Return an error as a message."
    details = {name: shorten(value) for name, value in error.details.items()}
    problem = Problem(error=error.code, message=shorten(error.message), details=details)
    return message_text("error", **problem.model_dump())
