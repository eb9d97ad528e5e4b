"""Signed signals over real HTTP: who may, any bytes at all, and once, however often and wherever they come."""

import base64
import hashlib
import hmac
import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import Engine, func, select
from test_service_http import check_problem, make_runtime, running

from orbiquant.core import AuthError, OrbiError, SettingsError, configure_logging
from orbiquant.desk.webhooks import receive_ml_signal
from orbiquant.domain import RawRequest
from orbiquant.notices.receipts import received_webhooks
from orbiquant.notices.signing import UNSIGNED, check_standard, check_webhook, sign_plainly, sign_webhook
from orbiquant.notices.webhook_config import WebhookConfig
from orbiquant.persistence import engine, migrate, querying
from orbiquant.runtime import Runtime, using
from orbiquant.service.errors import http_status
from orbiquant.settings import load_settings
from orbiquant.trading import tables
from tests.tools.postgres import migrated_postgres
from tests.tools.programs import run_program

SECRET, OLD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "the-secret-that-was-used-until-last-week"
PATH = "/webhooks/ml-signals"
NOW = datetime(2021, 2, 25, 15, 2, 10, tzinfo=UTC)  # 1614265330, of the published example
MESSAGE = ("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    made = make_runtime(tmp_path_factory.mktemp("webhooks"), requests_per_minute=10_000_000)
    config = WebhookConfig(secret=SecretStr(SECRET), previous_secret=SecretStr(OLD))
    return Runtime(made.settings.model_copy(update={"webhooks": config}))


@pytest.fixture(scope="module")
def address(runtime: Runtime) -> Iterator[str]:
    from orbiquant.app import app

    configure_logging("ERROR")
    with running(app, runtime) as url:
        yield url


@pytest.fixture(scope="module")
def sender(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=30) as client:
        yield client


def body_of(**changes: Any) -> bytes:
    """Return the body of a documented sender, said now."""
    signal = {"symbol": "BTCUSDT", "action": "buy", "confidence": 0.85, "price": 60_000.0}
    signal |= {"timestamp": datetime.now(UTC).isoformat()} | changes
    return json.dumps({"agent_name": "atlas", "signal": signal}).encode()


def signed(body: bytes, secret: str = SECRET) -> dict[str, str]:
    """Return the headers of a documented sender, by the standard library alone."""
    return {
        "X-ML-Signature": hmac.new(secret.encode(), body, hashlib.sha256).hexdigest(),
        "Content-Type": "application/json",
    }


def counts(database: Engine) -> tuple[int, int]:
    """Return how many signals wait or were answered, and how many names of webhooks are known."""
    with querying(database) as connection:
        asked = (
            select(func.count()).select_from(tables.engine_requests).where(tables.engine_requests.c.kind == "signal")
        )
        names = select(func.count()).select_from(received_webhooks)
        return connection.scalar(asked) or 0, connection.scalar(names) or 0


# --- signatures: the published vector, and the cases of the standard's own libraries ---


def offered(**changes: str) -> list[tuple[str, str]]:
    """Return the headers of the published example, some of them changed."""
    headers = sign_webhook(SecretStr(SECRET), MESSAGE[0], NOW, MESSAGE[2])
    found = headers | {name.replace("_", "-"): value for name, value in changes.items()}
    return [(name, value) for name, value in found.items() if value != "-"]


def standing(headers: list[tuple[str, str]], secret: str = SECRET, body: bytes = MESSAGE[2], **late: float) -> bool:
    """Say whether a webhook is taken."""
    try:
        check_webhook([SecretStr(secret)], headers, body, NOW + timedelta(**late), timedelta(minutes=5))
        return True
    except AuthError as error:
        assert error.message == UNSIGNED
        return False


GOOD = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
STANDARD_CASES = {
    "the published vector": (offered(webhook_signature=GOOD), True),
    "no id": (offered(webhook_id="-"), False),
    "an empty id": (offered(webhook_id=""), False),
    "no timestamp": (offered(webhook_timestamp="-"), False),
    "a timestamp that is none": (offered(webhook_timestamp="hello"), False),
    "no signature": (offered(webhook_signature="-"), False),
    "another signature": (offered(webhook_signature="v1,dfjlakdsjfalsdjfadsjfa"), False),
    "a version without a signature": (offered(webhook_signature="v1,"), False),
    "no comma": (offered(webhook_signature="v1"), False),
    "nothing": (offered(webhook_signature=""), False),
    "letters beyond ASCII": (offered(webhook_signature="v1,ñ\x80"), False),
    "several, one of them good": (offered(webhook_signature=f"v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/Wav= {GOOD} v2,x"), True),
    "of another version alone": (offered(webhook_signature=GOOD.replace("v1,", "v2,")), False),
    "of the asymmetric version": (offered(webhook_signature=GOOD.replace("v1,", "v1a,")), False),
    "a signature cut short": (offered(webhook_signature=GOOD[:-4]), False),
    "behind more than anybody sends": (offered(webhook_signature="v1,x " * 50 + GOOD), False),
}  # fmt: skip


@pytest.mark.parametrize(("headers", "good"), STANDARD_CASES.values(), ids=STANDARD_CASES)
def test_the_cases_of_the_standard_are_judged_as_its_libraries_do(headers: list[tuple[str, str]], good: bool):
    assert standing(headers) is good


def test_what_is_signed_is_all_of_it_and_lately():
    assert standing(offered()) and standing(offered(), SECRET.removeprefix("whsec_"))
    assert standing(offered(), seconds=300) and standing(offered(), seconds=-300)
    assert not standing(offered(), seconds=301) and not standing(offered(), seconds=-301)
    assert not standing(offered(), body=b'{"test": 2432232315}') and not standing(offered(), OLD)
    assert not standing(offered(webhook_id="msg_2")) and not standing(offered(webhook_timestamp="1614265331"))
    assert not standing(offered(webhook_timestamp="1614265330000")), "the standard has seconds"
    assert not standing([*offered(), ("webhook-id", "msg_2")]) and not standing([])
    assert not standing([*offered(), ("x-ml-signature", sign_plainly(SecretStr(SECRET), MESSAGE[2]))])


def test_a_signature_of_bytes_that_are_no_text_is_one():
    for body in (b"", b"\xff\xfe", bytes(range(256))):
        headers = sign_webhook(SecretStr(SECRET), "m", NOW, body)
        assert check_standard([SecretStr(OLD), SecretStr(SECRET)], headers, body).sent_at == NOW


@pytest.mark.parametrize("timestamp", ["1614265330", "1614265330000"])
def test_a_plain_signature_binds_its_timestamp(timestamp: str):
    body = b'{"a": 1}'
    signature = sign_plainly(SecretStr(OLD), body, timestamp)
    by_hand = hmac.new(OLD.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    assert signature == by_hand
    good = [("x-ml-signature", signature.upper()), ("x-ml-timestamp", timestamp)]
    assert standing(good, OLD, body) and not standing(good, OLD, body, seconds=301)
    for wrong in (good[:1], [good[0], ("x-ml-timestamp", "")], [good[0], ("x-ml-timestamp", "1614265331")], good[1:]):
        assert not standing(wrong, OLD, body), wrong
    assert not standing(good, OLD, timestamp.encode() + b"." + body)


@given(st.binary(max_size=60), st.text(max_size=40), st.text(max_size=20), st.integers(0, 3))
def test_no_header_is_anything_but_signed_or_not(body: bytes, signature: str, timestamp: str, form: int):
    names = (("x-ml-signature", "x-ml-timestamp"), ("webhook-signature", "webhook-timestamp"))[form % 2]
    headers = [(names[0], signature), (names[1], timestamp), *([("webhook-id", "m")] if form > 1 else [])]
    assert not standing(headers, body=body)


def test_a_mutated_webhook_is_never_taken():
    """Each byte of each part, flipped."""
    headers = dict(offered())
    for name, value in headers.items():
        for place in range(len(value)):
            other = value[:place] + chr(ord(value[place]) ^ 1) + value[place + 1 :]
            assert not standing([*(headers | {name: other}).items()]), (name, place)
    for place in range(8 * len(MESSAGE[2])):
        body = bytearray(MESSAGE[2])
        body[place // 8] ^= 1 << place % 8
        assert not standing(offered(), body=bytes(body))


# --- over HTTP ---


def test_the_documented_sender_is_received(sender: httpx.Client, runtime: Runtime):
    before, body = counts(runtime.engine), body_of()
    answer = sender.post(PATH, content=body, headers=signed(body))
    assert (answer.status_code, answer.json()) == (200, {"status": "received"})
    (asked,) = [each for each in waiting(runtime) if each.content["confidence"] == 0.85]
    assert (asked.account, asked.kind, asked.content["agent"]) == ("paper-usdt", "signal", "atlas")
    assert counts(runtime.engine)[0] == before[0] + 1


def waiting(runtime: Runtime) -> list[Any]:
    """Return what waits in the box of Atlas's account."""
    from orbiquant.trading.requests import RequestBox

    return RequestBox(runtime.engine, runtime.clock).waiting("paper-usdt")


def test_every_form_of_signature_and_both_secrets_are_taken(sender: httpx.Client, runtime: Runtime):
    begin, now = counts(runtime.engine)[0], datetime.now(UTC)
    bodies = [body_of(price=number) for number in range(1, 6)]
    stamp = str(int(now.timestamp()))
    forms = [
        signed(bodies[0], OLD),
        {"X-ML-Timestamp": stamp, "X-ML-Signature": sign_plainly(SecretStr(SECRET), bodies[1], stamp)},
        {"X-ML-Timestamp": stamp, "X-ML-Signature": sign_plainly(SecretStr(OLD), bodies[2], stamp)},
        sign_webhook(SecretStr(SECRET), "msg_1", now, bodies[3]),
        {"X-API-Key": ""} | signed(bodies[4]),
    ]
    for body, headers in zip(bodies, forms, strict=True):
        assert sender.post(PATH, content=body, headers=headers).status_code == 200
    assert counts(runtime.engine)[0] == begin + 5


def test_a_replay_is_refused_and_a_senders_new_try_is_received_once(sender: httpx.Client, runtime: Runtime):
    begin, now, body = counts(runtime.engine)[0], datetime.now(UTC), body_of(price=7)
    first = sign_webhook(SecretStr(SECRET), "msg_7", now, body)
    later = sign_webhook(SecretStr(SECRET), "msg_7", now + timedelta(seconds=1), body)
    told = [sender.post(PATH, content=body, headers=each).status_code for each in (first, first, later, later)]
    assert told == [200, 409, 200, 409]
    assert [sender.post(PATH, content=body, headers=signed(body)).status_code for _ in range(2)] == [200, 409]
    changed = body_of(price=8)
    assert sender.post(PATH, content=changed, headers=sign_webhook(SecretStr(SECRET), "msg_7", now, changed)).is_success
    problem = check_problem(sender.post(PATH, content=body, headers=first), 409, "CONFLICT")
    assert counts(runtime.engine)[0] == begin + 1 and "nothing was done again" in problem["message"]


def test_every_failure_of_the_signature_is_one_answer(sender: httpx.Client, runtime: Runtime):
    begin, now, body = counts(runtime.engine), datetime.now(UTC), body_of(price=9)
    old = body_of(price=9, timestamp=(now - timedelta(minutes=6)).isoformat())
    ahead = body_of(price=9, timestamp=(now + timedelta(minutes=6)).isoformat())
    cases: list[tuple[bytes, Any]] = [
        (body, {}),
        (body, {"X-ML-Signature": ""}),
        (body, {"X-ML-Signature": "0" * 64}),
        (body, signed(body, "another-secret-of-enough-length")),
        (body + b" ", signed(body)),
        (body, signed(body) | {"X-ML-Timestamp": str(int(now.timestamp()))}),
        (body, sign_webhook(SecretStr(SECRET), "m", now - timedelta(minutes=6), body)),
        (body, sign_webhook(SecretStr(SECRET), "m", now, body) | signed(body)),
        (body, [*signed(body).items(), ("X-ML-Signature", "0" * 64)]),
        (body, {b"X-ML-Signature": b"\xff\x80"}),
        (old, signed(old)),
        (ahead, signed(ahead)),
        (b"\xff\xff", {}),
        (b"", {}),
        (body, {"Authorization": "Bearer of-another-system"}),
        (body, {"X-API-Key": "oq_broken"} | signed(body, "another-secret-of-enough-length")),
        (body, {"X-API-Key": "one", "Authorization": "Bearer another"}),
    ]
    answers = {
        (told.status_code, told.text, told.headers["www-authenticate"])
        for told in (sender.post(PATH, content=content, headers=headers) for content, headers in cases)
    }
    assert len(answers) == 1 and next(iter(answers))[0] == 401 and UNSIGNED in next(iter(answers))[1]
    assert counts(runtime.engine) == begin, "nothing was written"
    good = body_of(price=9)
    assert sender.post(PATH, content=good, headers=signed(good) | {"X-API-Key": "oq_broken"}).status_code == 200


HOSTILE = {
    "no text": (b"\xff\xfe\x00", 400),
    "UTF-16": ('{"signal": {}}'.encode("utf-16"), 400),
    "nothing": (b"", 400),
    "half": (b'{"signal": ', 400),
    "deep": (b"[" * 200_000, 400),
    "deep objects": (b'{"a":' * 100_000, 400),
    "NaN": (body_of(price=float("nan")), 400),
    "Infinity": (body_of(confidence=float("inf")), 400),
    "a long number": (b'{"signal": ' + b"9" * 100_000 + b"}", 400),
    "a name twice": (b'{"agent_name": "atlas", "agent_name": "nova", "signal": {}}', 400),
    "a list": (b"[1]", 422),
    "null": (b"null", 422),
    "no signal": (b"{}", 422),
    "lone surrogates": (body_of(symbol="x").replace(b'"x"', rb'"\ud800"'), 422),
    "a surrogate's agent": (body_of().replace(b'"atlas"', rb'"\udfff"'), 422),
    "a NUL": (body_of(symbol="BTC\x00USDT"), 422),
    "no symbol": (body_of(symbol=""), 422),
    "a long symbol": (body_of(symbol="B" * 41), 422),
    "a number for a symbol": (body_of(symbol=7), 422),
    "another action": (body_of(action="BUY!"), 422),
    "a huge price": (body_of().replace(b"60000.0", b"1e999"), 422),
    "a price of nothing": (body_of(price=0), 422),
    "a negative price": (body_of(price=-1), 422),
    "text for a price": (body_of(price="60000"), 422),
    "true for a price": (body_of(price=True), 422),
    "too sure": (body_of(confidence=1.01), 422),
    "null for confidence": (body_of(confidence=None), 422),
    "another agent": (body_of().replace(b"atlas", b"zorro"), 422),
}  # fmt: skip


@pytest.mark.parametrize(("body", "status"), HOSTILE.values(), ids=HOSTILE)
def test_a_senders_wrong_bytes_are_refused_in_our_form(sender: httpx.Client, body: bytes, status: int):
    stamp = str(int(time.time()))
    headers = {"X-ML-Timestamp": stamp, "X-ML-Signature": sign_plainly(SecretStr(SECRET), body, stamp)}
    answer = sender.post(PATH, content=body, headers=headers)
    check_problem(answer, status, answer.json()["error"])
    assert len(answer.content) < 2500


@pytest.mark.parametrize(
    "moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", 1e300, -1, "", "soon", [], None]
)
def test_no_time_reaches_the_engine_that_it_cannot_count_with(sender: httpx.Client, runtime: Runtime, moment: Any):
    begin, body, stamp = counts(runtime.engine), body_of(timestamp=moment), str(int(time.time()))
    headers = {"X-ML-Timestamp": stamp, "X-ML-Signature": sign_plainly(SecretStr(SECRET), body, stamp)}
    check_problem(sender.post(PATH, content=body, headers=headers), 422, "DATA_INVALID")
    assert sender.post(PATH, content=body, headers=signed(body)).status_code in (401, 422)
    assert counts(runtime.engine) == begin


def test_a_large_body_is_413_before_anything_is_read(sender: httpx.Client):
    for content in (b"x" * 10_000_000, b"[" * 2_000_000):
        check_problem(sender.post(PATH, content=content, headers=signed(content)), 413, "CONTENT_TOO_LARGE")


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = ("symbol", "action", "confidence", "price", "timestamp")
ANY_SIGNAL = st.fixed_dictionaries(
    {},
    optional={
        "agent_name": ANY_JSON | st.sampled_from(["atlas", "nova", "Orion"]),
        "signal": ANY_JSON | st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, ANY_JSON)),
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.binary(max_size=300) | ANY_SIGNAL.map(lambda said: json.dumps(said).encode()),
    sure=st.booleans(),
    junk=st.binary(max_size=30).filter(lambda text: not re.search(rb"[\x00-\x1f\x7f]", text) and text == text.strip()),
)
def test_any_bytes_at_all_are_never_our_fault(sender: httpx.Client, body: bytes, sure: bool, junk: bytes):
    stamp = str(int(time.time()))
    good = {b"X-ML-Timestamp": stamp.encode(), b"X-ML-Signature": sign_plainly(SecretStr(SECRET), body, stamp).encode()}
    bad = {b"X-ML-Signature": junk, b"Webhook-Id": junk}
    answer = sender.post(PATH, content=body, headers=good if sure else bad)
    assert answer.status_code in ((200, 400, 409, 422) if sure else (401,))
    assert answer.json().keys() in ({"status"}, {"error", "message", "details"})


def test_nothing_is_received_where_no_secret_is_set(tmp_path: Path):
    from orbiquant.app import app

    with running(app, make_runtime(tmp_path)) as url:
        body = body_of()
        told = check_problem(httpx.post(f"{url}{PATH}", content=body, headers=signed(body)), 404, "NOT_FOUND")
    assert "ORBIQUANT_WEBHOOKS_SECRET is not set" in told["message"]


def test_secrets_come_out_of_the_environment_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path))
    for name in ("secret", "previous_secret"):
        (tmp_path / "settings.ini").write_text(f"[webhooks]\n{name} = {SECRET}\n")
        with pytest.raises(
            SettingsError, match=f"must be set as ORBIQUANT_.*_{name.upper()} in the environment"
        ) as refused:
            load_settings()
        assert SECRET not in str(refused.value)
    (tmp_path / "settings.ini").write_text("[webhooks]\nsecret =\nwindow_s = 60\n")
    monkeypatch.setenv("ORBIQUANT_WEBHOOKS_SECRET", SECRET)
    (tmp_path / ".env").write_text(f"ORBIQUANT_WEBHOOKS_PREVIOUS_SECRET={OLD}\n")
    made = load_settings().webhooks
    assert [each.get_secret_value() for each in made.secrets] == [SECRET, OLD] and made.window_s == 60
    assert SECRET not in repr(made) and OLD not in repr(made)
    monkeypatch.setenv("ORBIQUANT_WEBHOOKS_SECRET", "hunter2")
    with pytest.raises(SettingsError, match="at least 24 bytes") as short:
        load_settings()
    assert "hunter2" not in str(short.value)


# --- a hundred thousand of them ---


def answer_of(runtime: Runtime, body: bytes, headers: dict[str, str]) -> int:
    """Return the status that the route's function is answered with; what nobody expected is raised."""
    try:
        with using(runtime):
            receive_ml_signal(RawRequest(body, tuple((name.lower(), value) for name, value in headers.items())))
        return 200
    except OrbiError as error:
        return http_status(error)


def spoil(chance: random.Random, body: bytes, headers: dict[str, str]) -> tuple[bytes, dict[str, str]]:
    """Return a webhook that differs from a good one in something that was signed, or in the signature."""
    kind, made = chance.randrange(6), dict(headers)
    name = chance.choice(sorted(made))
    if kind == 0:
        place = chance.randrange(len(body))
        return body[:place] + bytes([body[place] ^ 1 << chance.randrange(8)]) + body[place + 1 :], made
    if kind == 1:
        return body[: chance.randrange(len(body))], made
    if kind == 2:
        return body + chance.randbytes(1 + chance.randrange(20)), made
    if kind == 3:
        place, value = chance.randrange(len(made[name])), made[name]
        return body, made | {name: value[:place] + chance.choice("!x~é") + value[place + 1 :]}
    if kind == 4:
        return body, {other: value for other, value in made.items() if other != name}
    return body, signed(body, chance.randbytes(24).hex()) | {"X-ML-Timestamp": str(int(time.time()))}


@pytest.mark.slow
def test_of_a_hundred_thousand_forged_changed_and_replayed_none_is_taken(runtime: Runtime, capsys: Any):
    chance, now, good = random.Random(17), datetime.now(UTC), list[tuple[bytes, dict[str, str]]]()
    for number in range(40):
        body, stamp = body_of(price=1000 + number), str(int(now.timestamp()))
        timed = {"X-ML-Timestamp": stamp, "X-ML-Signature": sign_plainly(SecretStr(OLD), body, stamp)}
        forms = signed(body), timed, sign_webhook(SecretStr(SECRET), f"msg_{number}", now, body)
        headers = {name: value for name, value in forms[number % 3].items() if name != "Content-Type"}
        assert answer_of(runtime, body, headers) == 200
        good.append((body, headers))
    begin, found = counts(runtime.engine), Counter[int]()
    for number in range(100_000):
        body, headers = chance.choice(good)
        replay = number % 10 == 0
        found[answer_of(runtime, body, headers) if replay else answer_of(runtime, *spoil(chance, body, headers))] += 1
    with capsys.disabled():
        print(f"\n100,000 forged, changed and replayed webhooks: {dict(found)}")
    assert found.keys() == {401, 409} and counts(runtime.engine) == begin


# --- two processes, one effect ---


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "postgresql":
        with migrated_postgres() as made:
            yield made
        return
    made = engine(f"sqlite:///{tmp_path / 'two.db'}")
    migrate(made)
    yield made
    made.dispose()


def test_two_services_that_receive_it_at_once_do_it_once(database: Engine, tmp_path: Path):
    home = tmp_path / "home"
    home.mkdir()
    own = {
        "ORBIQUANT_HOME": str(home),
        "ORBIQUANT_WEBHOOKS_SECRET": SECRET,
        "ORBIQUANT_WORKSPACE_DATABASE_URL": database.url.set(drivername=database.dialect.name).render_as_string(
            hide_password=False
        ),
        "ORBIQUANT_SERVICE_REQUESTS_PER_MINUTE": "1000000",
    }
    command = [sys.executable, "-c", "from orbiquant.cli import main; main()", "serve", "--port", "0", "--no-work"]
    options: dict[str, Any] = {"env": os.environ | own, "stderr": subprocess.PIPE, "text": True}
    with ExitStack() as stack:
        services = [stack.enter_context(run_program(command, **options)) for _ in range(2)]
        clients = [stack.enter_context(httpx.Client(base_url=place_of(each), timeout=30)) for each in services]
        told: list[list[int]] = []
        for number in range(20):
            body = body_of(price=1 + number)
            headers = [signed(body)] * 4 if number % 2 else [
                sign_webhook(SecretStr(SECRET), f"m{number}", datetime.now(UTC) + timedelta(seconds=each), body)
                for each in range(4)
            ]  # fmt: skip
            told.append(at_once(clients, body, headers))
        for each in services:
            each.terminate()
            each.communicate(timeout=30)
    assert counts(database)[0] == 20, told
    for number, statuses in enumerate(told):
        assert sorted(statuses) == ([200, 409, 409, 409] if number % 2 else [200] * 4), statuses


def place_of(service: "subprocess.Popen[str]") -> str:
    """Return where a service serves."""
    assert service.stderr is not None
    for line in service.stderr:
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            Thread(target=service.stderr.read, daemon=True).start()
            return found[0]
    raise AssertionError("the service did not start")


def at_once(clients: list[httpx.Client], body: bytes, headers: list[dict[str, str]]) -> list[int]:
    """Return the statuses of a webhook that is sent by several at the same moment, each to one of two services."""
    gate, statuses = Barrier(len(headers)), list[int]()

    def post(number: int) -> None:
        gate.wait()
        answer = clients[number % 2].post(PATH, content=body, headers=headers[number])
        statuses.append(answer.status_code)

    threads = [Thread(target=post, args=(number,)) for number in range(len(headers))]
    for each in threads:
        each.start()
    for each in threads:
        each.join(timeout=60)
    return statuses


def test_a_signature_is_told_by_what_senders_have(tmp_path: Path):
    """What a shell signs is what we check."""
    body = body_of()
    (tmp_path / "body.json").write_bytes(body)
    command = ["openssl", "dgst", "-sha256", "-hmac", OLD, str(tmp_path / "body.json")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]
    assert said == sign_plainly(SecretStr(OLD), body)
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    by_hand = base64.b64encode(hmac.digest(key, b".".join((b"m", b"1614265330", body)), "sha256")).decode()
    assert sign_webhook(SecretStr(SECRET), "m", NOW, body)["webhook-signature"] == f"v1,{by_hand}"
