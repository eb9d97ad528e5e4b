"""Who asks, and whether the request is really theirs: keys, signatures and the receive window."""

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Any

from tests.fake_binance.answers import Refused, ahead_of_time, missing, outside_window

SIGNATURE = re.compile(r"(?:^|&)signature=([^&]*)")
KEY = re.compile(r"[A-Za-z0-9]{16,128}")
WINDOW_MS, LONGEST_WINDOW_MS = 5_000.0, 60_000.0
AHEAD_MS = 1_000


def sign(secret: str, payload: str) -> str:
    """Return the HMAC-SHA-256 of a payload in hex."""
    return hmac.new(secret.encode(), payload.encode(), hashlib.sha256).hexdigest()


def split_signature(payload: str) -> tuple[str, str | None]:
    """Return a payload without its signature, and the signature."""
    found = SIGNATURE.search(payload)
    if found is None:
        return payload, None
    rest = payload[found.end() :]
    return payload[: found.start()] + (rest if found.start() else rest.removeprefix("&")), found.group(1)


def rest_payload(query: str, body: str) -> tuple[str, str | None]:
    """Return what a REST request has to be signed over, query and body as sent, and its signature."""
    bare_query, in_query = split_signature(query)
    bare_body, in_body = split_signature(body)
    return bare_query + bare_body, in_query or in_body


def socket_payload(params: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return what a WebSocket API request has to be signed over, sorted by name and not encoded; and its signature."""
    told = {name: as_text(value) for name, value in params.items()}
    signature = told.pop("signature", None)
    return "&".join(f"{name}={told[name]}" for name in sorted(told)), signature


def as_text(value: Any) -> str:
    """Return a JSON value as it stands in a signed payload."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def check_key(key: str | None, known: Mapping[str, Any]) -> Any:
    """Return the account of a key."""
    if not key or KEY.fullmatch(key) is None:
        raise Refused(-2014, "API-key format invalid.", status=401)
    if key not in known:
        raise Refused(-2015, "Invalid API-key, IP, or permissions for action.", status=401)
    return known[key]


def check_signature(secret: str, payload: str, signature: str | None) -> None:
    """Refuse a payload that its signature does not fit."""
    if not signature:
        raise missing("signature")
    if not hmac.compare_digest(sign(secret, payload), signature.lower()):
        raise Refused(-1022, "Signature for this request is not valid.")


def check_time(params: Mapping[str, Any], now_ms: int) -> None:
    """Refuse what is too old or from the future; microseconds are taken too."""
    try:
        sent_ms = float(params["timestamp"])
        window_ms = float(params.get("recvWindow", WINDOW_MS))
    except (KeyError, ValueError):
        raise missing("timestamp") from None
    if sent_ms > 1e15:
        sent_ms /= 1000
    if not 0 < window_ms <= LONGEST_WINDOW_MS:
        raise Refused(-1131, "recvWindow must be less than 60000.")
    if sent_ms >= now_ms + AHEAD_MS:
        raise ahead_of_time()
    if now_ms - sent_ms > window_ms:
        raise outside_window()
