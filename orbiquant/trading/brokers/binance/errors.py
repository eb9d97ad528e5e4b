"""What can come back from Binance, by what it means for an order: refused, not taken, or nobody knows."""

from collections.abc import Mapping
from typing import Any

from ....core import BrokerError, BrokerRejected, BrokerUnavailable, ExecutionUnknown
from ....net import excerpt

CLOCK = -1021  # outside of recvWindow
NO_SUCH_ORDER = -2013
NOT_CANCELLED = -2011
ORDER_REFUSED = -2010
NOT_KNOWN = frozenset({-1000, -1001, -1006, -1007, -1008, -1016})  # a 4XX or 5XX that says nothing of the order
USUAL_PAUSES_S = {429: 60.0, 418: 120.0}  # where the venue does not say how long
KEY_FAULTS = frozenset({-1022, -2014, -2015})
_KEY_SAID = (
    "key, secret, its permission to trade and the addresses it may be used from must fit `[binance] environment`"
)


class VenueRefused(Exception):
    "The venue said no: nothing came of the request."

    def __init__(
        self,
        code: int,  # of Binance's list of errors
        said: str,  # its words
    ) -> None:
        super().__init__(said)
        self.code, self.said = code, said

    @property
    def is_duplicate(self) -> bool:
        "Say whether an order of this id stands already."
        return self.code == ORDER_REFUSED and "duplicate" in self.said.lower()

    @property
    def told(self) -> str:
        "Return a sentence for a person."
        return f"Binance refused it ({self.code}: {self.said})" + (f"; {_KEY_SAID}" if self.code in KEY_FAULTS else "")


class NotTaken(Exception):
    "Nothing was sent, or nothing of it was taken."


class VenueBusy(NotTaken):
    "The venue asks to be left alone."

    def __init__(
        self,
        pause_s: float,  # from now
    ) -> None:
        super().__init__(f"Binance asks to be left alone for {pause_s:.0f} s")
        self.pause_s = pause_s


class VenueSilent(Exception):
    "Nothing came back that says what became of the request."


class HalfDone(VenueSilent):
    "What was to be replaced is gone, and what was to take its place was refused."


def read_answer(
    status: int,  # of HTTP
    headers: Mapping[str, str],  # of the answer
    answer: Any,  # its JSON; None where it is none
) -> None:
    "Raise what an answer means; return where it is good."
    if status in USUAL_PAUSES_S:
        asked = {name.lower(): value for name, value in headers.items()}.get("retry-after", "")
        raise VenueBusy(float(asked) if asked.strip().isdecimal() else USUAL_PAUSES_S[status])
    if 200 <= status < 300 and isinstance(answer, dict | list):
        return
    code, data = (answer.get("code"), answer.get("data")) if isinstance(answer, dict) else (None, None)
    if isinstance(data, dict) and (data.get("cancelResult"), data.get("newOrderResult")) == ("SUCCESS", "FAILURE"):
        raise HalfDone(excerpt(str((data.get("newOrderResponse") or {}).get("msg", ""))))
    if not isinstance(code, int) or code in NOT_KNOWN or status >= 500 or status in (403, 409):
        raise VenueSilent(f"HTTP {status}" + (f", {code}" if code else ", no JSON" if answer is None else ""))
    raise VenueRefused(code, excerpt(answer.get("msg", "")))


def read_fault(
    error: Exception,  # of a question
) -> BrokerError:
    "Return what a question that failed means: it may be asked again, unless the venue refuses it."
    if isinstance(error, VenueRefused) and error.code != CLOCK:
        return BrokerRejected(error.told)
    if isinstance(error, VenueRefused):  # it took too long on its way, or a clock jumped: neither is for a person
        return BrokerUnavailable(f"Binance's clock and ours do not meet: {error.said}")
    return BrokerUnavailable(f"Binance does not answer: {error}" if isinstance(error, VenueSilent) else str(error))


def send_fault(
    error: Exception,  # of an order that was sent, or taken back
    client_order_id: str,  # of the order
) -> BrokerError:
    "Return what a failed order means: refused and not taken are an end, all else is unknown."
    if isinstance(error, VenueRefused):
        return BrokerRejected(error.told, client_order_id=client_order_id)
    if isinstance(error, NotTaken):
        return BrokerRejected(f"not taken: {error}", client_order_id=client_order_id)
    return ExecutionUnknown(f"Binance did not say what became of it: {error}", client_order_id=client_order_id)
