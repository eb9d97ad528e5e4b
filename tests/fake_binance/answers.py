"""What the venue says when it says no: the codes and words of Binance's own list."""

from typing import Any


class Refused(Exception):
    """A request the venue does not do."""

    def __init__(
        self, code: int, message: str, status: int = 400, data: Any = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.data = data
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, Any]:
        """Return the error as it is sent."""
        body: dict[str, Any] = {"code": self.code, "msg": self.message}
        return body if self.data is None else body | {"data": self.data}


def bad_symbol() -> Refused:
    """Return what an unknown symbol gets."""
    return Refused(-1121, "Invalid symbol.")


def missing(name: str) -> Refused:
    """Return what a request without a needed parameter gets."""
    return Refused(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")


def illegal(name: str, legal: str) -> Refused:
    """Return what a parameter with characters outside its range gets."""
    return Refused(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'.")


def too_precise(name: str) -> Refused:
    """Return what a number with too many decimals gets."""
    return Refused(-1111, f"Parameter '{name}' has too much precision.")


def filter_failure(name: str) -> Refused:
    """Return what an order outside a filter gets."""
    return Refused(-1013, f"Filter failure: {name}")


def rejected(message: str) -> Refused:
    """Return what the matching engine says of an order it does not take."""
    return Refused(-2010, message)


def unsupported(what: str) -> Refused:
    """Return what an order of a kind gets that its symbol does not have."""
    return Refused(-1013, f"{what} orders are not supported for this symbol.")


def market_closed() -> Refused:
    """Return what an order on a symbol that does not trade gets."""
    return Refused(-1013, "Market is closed.")


def unknown_order() -> Refused:
    """Return what a cancel of nothing gets."""
    return Refused(-2011, "Unknown order sent.")


def no_such_order() -> Refused:
    """Return what a query for nothing gets."""
    return Refused(-2013, "Order does not exist.")


def outside_window() -> Refused:
    """Return what a request too old gets."""
    return Refused(-1021, "Timestamp for this request is outside of the recvWindow.")


def ahead_of_time() -> Refused:
    """Return what a request from the future gets."""
    return Refused(-1021, "Timestamp for this request was 1000ms ahead of the server's time.")


def timed_out() -> Refused:
    """Return what is said when the engine did not answer within ten seconds."""
    words = "Timeout waiting for response from backend server. Send status unknown; execution status unknown."
    return Refused(-1007, words, status=504)


INSUFFICIENT = "Account has insufficient balance for requested action."
DUPLICATE = "Duplicate order sent."
WOULD_TRIGGER = "Order would trigger immediately."
WOULD_TAKE = "Order would immediately match and take."
BAD_RELATION = "The relationship of the prices for the orders is not correct."
