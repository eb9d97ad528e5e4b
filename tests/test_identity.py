"""Who may ask what: an attacker at every route that the API's description names, and tokens that nobody should send."""

import base64
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jwt
import pytest
from starlette.routing import Mount, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from test_accounts_http import BARS, BTC, PRODUCT
from test_service_http import check_problem

from orbiquant.core import SCOPES, DataError, configure_logging
from orbiquant.runtime import Runtime, using
from orbiquant.service.keys import create_api_key
from orbiquant.service.tokens import TOKEN_FAULTS, mint_token
from orbiquant.settings import load_settings

SECRET, ISSUER, AUDIENCE = "a secret of thirty-two bytes or more", "https://shop.example", "orbiquant"
CANARY = "quetzal-7741"
PUBLIC = {("GET", "/health"), ("GET", "/api/health"), ("GET", "/api/v1/health")}
SIGNED = {("POST", "/webhooks/ml-signals")}  # whose signature is the only identity
OPEN_PAGES = {
    "/favicon.ico",
    *(f"/chat{part}" for part in ("", "/face.js", "/page.css", "/page.js")),
    "/",
    *(f"/dashboard/{part}.js" for part in ("agents", "alerts", "books", "candles", "dialogs", "dom", "feed", "format")),
    *(f"/dashboard/{part}" for part in ("health.js", "lightweight-charts.js", "market.js", "page.css", "page.js")),
    "/dashboard/service.js",
}  # a page without a word of anybody's
PAGES = {"/docs", "/openapi.json", "/docs/assets", "/metrics", "/socket.io"}  # outside of the description, with a key

# What a text in a request may name. A new one must be put where it belongs, or the tests here fail: `PERSON` names a
# user, `OBJECT` something that belongs to one, `OWN_NAME` something that everybody has under names of their own.
PERSON = {"user_id"}
OBJECT = {"account_id", "alert_id", "flow_id", "last_event_id", "Last-Event-ID", "run_id", "ticket"}
OWN_NAME = {"conversation_id", "session_id", "decisions"}
NOBODYS = {
    *("name", "agent", "agent_name", "account", "everybody", "why", "outcome"),  # of agents, with their own scope
    *("symbol", "timeframe", "currency", "product_id", "language", "concept", "price", "timestamp"),  # of markets
    *("message", "changes", "confirm", "request_id", "idempotency-key", "reason"),  # told by the caller
    *("id", "text", "type", "content", "model", "stop", "arguments", "description", "tool_call_id"),  # of a completion
    *(
        "initial_deposit",
        "amount",
        "initial_equity",
        "size",
        "stop_loss",
        "take_profit",
        "confidence",
        "after",
    ),  # numbers as text, and places in a list
}
EXAMPLES: dict[str, Any] = {
    "symbol": "BTCUSDT", "timeframe": "1h", "name": "atlas", "condition": "above", "price": 1e9, "message": "BTCUSDT?",
    "product_id": PRODUCT, "initial_deposit": 1000, "amount": 1, "action": "BUY", "size": 0.01, "stop_loss": 1,
    "take_profit": 1e9, "risk_tolerance": "moderate", "concept": "liquidity", "level": "beginner", "why": "a test",
    "changes": {"language": "en"}, "decisions": {"nothing": {"approved": False}}, "currency": "USDT",
    "conversation_id": "talk", "session_id": "talk",
}  # fmt: skip


def texts_in(
    schema: Mapping[str, Any], models: Mapping[str, Any], name: str, seen: frozenset[str] = frozenset()
) -> set[str]:
    """Return the names under which a schema takes free text, at any depth."""
    if ref := schema.get("$ref"):
        model = ref.rpartition("/")[2]
        return set() if model in seen else texts_in(models[model], models, name, seen | {model})
    found = {name} if schema.get("type") == "string" and not {"enum", "const", "format"} & set(schema) else set()
    for part in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
        found |= texts_in(part, models, name, seen)
    for key, part in schema.get("properties", {}).items():
        found |= texts_in(part, models, key, seen)
    for key in ("items", "additionalProperties", "propertyNames"):
        if isinstance(schema.get(key), dict):
            found |= texts_in(schema[key], models, name, seen)
    return found


@dataclass
class Route:
    """One operation of the API's description."""

    method: str
    path: str
    said: Mapping[str, Any]
    models: Mapping[str, Any]
    places: dict[str, str] = field(default_factory=dict)  # where each parameter stands, by its name

    def __post_init__(self) -> None:
        self.places = {each["name"]: each["in"] for each in self.said.get("parameters", ())}
        self.places |= dict.fromkeys(self.body.get("properties", {}), "body")

    @property
    def body(self) -> Mapping[str, Any]:
        """Return the schema of its body."""
        content = self.said.get("requestBody", {}).get("content", {})
        schema = next((each["schema"] for each in content.values()), {})
        given = [schema, *schema.get("anyOf", ())]
        named = next((each for each in given if "$ref" in each or "properties" in each), schema)
        return self.models[named["$ref"].rpartition("/")[2]] if "$ref" in named else named

    @property
    def scopes(self) -> set[str]:
        """Return what it needs."""
        named = {each for way in self.said.get("security", ()) for scopes in way.values() for each in scopes}
        return {each for each in named if not each.startswith("plan:")}

    @property
    def texts(self) -> set[str]:
        """Return the names under which it takes free text."""
        found = texts_in(self.body, self.models, "the body")
        for each in self.said.get("parameters", ()):
            found |= {each["name"]} if each["in"] == "path" else texts_in(each["schema"], self.models, each["name"])
        return found - {"the body"}

    def request(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return a request with values by name, and whatever else must be there."""
        needed = {each["name"] for each in self.said.get("parameters", ()) if each.get("required")}
        needed |= set(self.body.get("required", ()))
        told = {name: EXAMPLES.get(name, "x") for name in needed} | {
            k: v for k, v in values.items() if k in self.places
        }
        parts = {
            place: {k: v for k, v in told.items() if self.places[k] == place} for place in set(self.places.values())
        }
        made: dict[str, Any] = {"method": self.method, "url": self.path.format(**parts.get("path", {}))}
        made |= {"params": parts.get("query", {}), "headers": parts.get("header", {})}
        if self.body.get("properties"):
            made["json"] = parts.get("body", {})
        elif self.body:
            made["json"] = [EXAMPLES["symbol"]]
        return made


def routes_of(openapi: Mapping[str, Any]) -> list[Route]:
    """Return what a description names."""
    models = openapi["components"]["schemas"]
    return [
        Route(method.upper(), path, said, models)
        for path, methods in openapi["paths"].items()
        for method, said in methods.items()
    ]


ROUTES = routes_of(json.loads((Path(__file__).parents[1] / "orbiquant" / "openapi.json").read_text()))


class Ground:
    """A service with two users: ana, who has something of each kind, and eva, who wants it."""

    def __init__(self, runtime: Runtime, client: TestClient) -> None:
        self.runtime, self.client = runtime, client
        self.ana, self.eva = self.key("ana", *SCOPES[:3]), self.key("eva", *(s for s in SCOPES if s != "act_for"))
        told = {"message": f"My secret is {CANARY}", "conversation_id": "talk"}
        talk = self.ask("POST", "/api/v1/chat", json=told | {"stream": True})
        last = next(line[4:] for line in talk.text.splitlines() if line.startswith("id: "))
        alert = {"symbol": "BTCUSDT", "condition": "above", "price": 1e9, "message": CANARY}
        account = self.ask("POST", "/investment/accounts", json={"product_id": PRODUCT, "initial_deposit": 1000}).json()
        place = f"/investment/accounts/{account['id']}"
        order = {"symbol": "BTCUSDT", "action": "BUY", "size": 0.01}
        price, report = float(BARS["close"].iloc[-1]), {"symbol": "BTCUSDT"}
        order |= {"stop_loss": round(price * 0.99, 2), "take_profit": round(price * 1.03, 2)}
        self.theirs: dict[str, Any] = {
            "user_id": "ana", "last_event_id": last, "Last-Event-ID": last, "account_id": account["id"],
            "alert_id": self.ask("POST", "/api/alerts", json=alert).json()["alert_id"],
            "flow_id": self.ask("POST", f"{place}/deposits", json={"amount": 77}).json()["id"],
            "ticket": self.ask("POST", "/api/trade", json=order).json()["ticket"],
            "run_id": self.ask("POST", "/reports/research/runs", json={"parameters": report}).json()["id"],
            "conversation_id": "talk", "session_id": "talk",
        }  # fmt: skip

    def key(self, user: str, *scopes: str, plan: str = "premium") -> dict[str, str]:
        """Return the header of a new key."""
        return {"X-API-Key": create_api_key(self.runtime.engine, "k", user, plan, scopes, self.runtime.clock)}

    def ask(self, method: str, path: str, **more: Any) -> Any:
        """Return what ana is answered."""
        answer = self.client.request(method, path, headers=self.ana, **more)
        assert answer.is_success, answer.text
        return answer

    def attack(self, route: Route, headers: Mapping[str, str], values: Mapping[str, Any]) -> Any:
        """Return what somebody is answered who knows the names of another's."""
        made = route.request(values)
        return self.client.request(**made | {"headers": made["headers"] | dict(headers)})

    def owned(self) -> list[Any]:
        """Return what ana has."""
        account = f"/investment/accounts/{self.theirs['account_id']}"
        paths = ("/api/alerts", "/api/v1/chat/talk", account, f"{account}/transactions", "/api/v1/preferences")
        return [self.ask("GET", path).json() for path in (*paths, f"/api/trade/{self.theirs['ticket']}")]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    from orbiquant.app import app

    configure_logging("ERROR")
    folder = tmp_path_factory.mktemp("identity")
    places = {"store_uri": f"{folder}/store", "models_dir": f"{folder}/models", "data_dir": str(folder)}
    runtime = Runtime(
        load_settings(
            workspace=places | {"database_url": f"sqlite:///{folder}/o.db"},
            service={"requests_per_minute": 1_000_000},
            tokens={"issuer": ISSUER, "audience": AUDIENCE, "signing_secret": SECRET},
            atlas={"pairs": "BTCUSDT", "strategies": "ml"}, llm={"provider": "router"}, webhooks={"secret": "w" * 32},
        )
    )  # fmt: skip
    bars = BARS.set_axis(BARS.index + (datetime.now(UTC) - BARS.index[-1]).floor("h") - timedelta(hours=1))
    runtime.store.upsert(BTC, bars)
    app.state.console_token = None
    with using(runtime), TestClient(app) as client:
        yield Ground(runtime, client)
    runtime.engine.dispose()


# --- every route ---


def test_every_text_that_a_route_takes_is_known_for_what_it_names():
    known = PERSON | OBJECT | OWN_NAME | NOBODYS
    unknown = {f"{each.method} {each.path}": each.texts - known for each in ROUTES if each.texts - known}
    assert not unknown, f"say in this file what they name: {unknown}"
    assert len(ROUTES) >= 50 and {"user_id", "account_id", "ticket"} <= set().union(*(each.texts for each in ROUTES))
    new = {"paths": {"/notes/{note_id}": {"get": {"parameters": [{"name": "note_id", "in": "path", "schema": {}}]}}}}
    (planted,) = routes_of(new | {"components": {"schemas": {}}})
    assert planted.texts - known == {"note_id"}, "a new one would be seen"


def test_without_a_key_nothing_is_answered_but_what_is_public(ground: Ground):
    answered = {}
    for route in ROUTES:
        answer = ground.attack(route, {}, ground.theirs)
        answered[route.method, route.path] = answer.status_code
        if (route.method, route.path) not in PUBLIC:
            check_problem(answer, 401, "UNAUTHORIZED")
        assert CANARY not in answer.text
    assert {each for each, status in answered.items() if status != 401} == PUBLIC
    assert {(each.method, each.path) for each in ROUTES if not each.scopes} == PUBLIC | SIGNED


def test_what_stands_outside_the_description_is_no_way_in(ground: Ground):
    described = {each.path for each in ROUTES}
    for route in ground.client.app.routes:  # type: ignore[attr-defined]
        if isinstance(route, WebSocketRoute):
            with pytest.raises(WebSocketDisconnect), ground.client.websocket_connect(route.path):
                pass
            continue
        path = route.path if isinstance(route, Mount) else route.path_format
        if path in described:
            continue
        assert path in OPEN_PAGES | PAGES, f"say in this file whether {path} is open"
        answer = ground.client.get(f"{path}/x" if isinstance(route, Mount) else path)
        assert (answer.status_code == 401) == (path in PAGES), path
        assert CANARY not in answer.text


def test_a_key_without_the_scope_is_refused_everywhere(ground: Ground):
    keys = {scope: ground.key("ana", *(each for each in SCOPES if each != scope)) for scope in SCOPES}
    for route in ROUTES:
        for scope in route.scopes:
            told = check_problem(ground.attack(route, keys[scope], ground.theirs), 403, "FORBIDDEN")
            assert f"'{scope}'" in told["message"]


def test_nothing_of_another_user_is_shown_or_touched(ground: Ground):
    before, tried = ground.owned(), 0
    for route in ROUTES:
        named = {name for name in route.places if name in PERSON | OBJECT | OWN_NAME}
        for name in sorted(named):
            values = {key: ground.theirs[key] for key in named - PERSON if key in ground.theirs}
            values |= {name: ground.theirs[name]} if name in ground.theirs else {}
            answer = ground.attack(route, ground.eva, {"user_id": "eva"} | values)
            tried += 1
            place = f"{route.method} {route.path} {name}: {answer.status_code} {answer.text[:200]}"
            assert CANARY not in answer.text and answer.status_code < 500, place
            if name in PERSON:
                assert answer.status_code == 403, place
            elif name in OBJECT - {"last_event_id", "Last-Event-ID"}:
                assert answer.status_code in (403, 404), place
                none = never(values[name])
                unknown = ground.attack(route, ground.eva, {"user_id": "eva"} | values | {name: none})
                alike = unknown.text.replace(none, values[name]) == answer.text
                assert alike and unknown.status_code == answer.status_code, f"{place}: tells that there is such a thing"
    assert tried >= 40 and ground.owned() == before


def test_its_owner_reaches_all_of_it(ground: Ground):
    asked = [each for each in ROUTES if each.method == "GET" and {*each.places} & (OBJECT | OWN_NAME)]
    for route in asked:
        if not route.path.endswith("/page"):  # there is none before a report has run
            assert ground.attack(route, ground.ana, ground.theirs).status_code in (200, 204), route.path
    assert len(asked) > 8


def never(id_: str) -> str:
    """Return an id of the same form that nothing has."""
    return id_[:-4] + ("0000" if id_[-4:] != "0000" else "1111")


def test_a_backend_that_may_speak_for_its_users_sees_what_each_has(ground: Ground):
    backend = ground.key("backend", "read", "act_for")
    told = ground.client.get("/api/alerts", params={"user_id": "ana"}, headers=backend).json()
    assert CANARY in str(told) and ground.client.get("/api/alerts", headers=backend).json()["alerts"] == []


ODD = {
    "a null": "a\x00b",
    "control characters": "a\x1b[2J\r\n",
    "a surrogate": "a\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    "long": "a" * 3000,
    "a path": "../../../etc/passwd",
    "below zero": "-1",
    "another's digits": "٣",
}


@pytest.mark.parametrize("value", ODD.values(), ids=ODD.keys())
def test_no_odd_name_is_our_fault_or_finds_anything(ground: Ground, value: str):
    for route in ROUTES:
        for name in sorted(set(route.places) & (PERSON | OBJECT | OWN_NAME) - {"decisions"}):
            if route.places[name] == "header":
                continue  # no client can send it
            own = {key for key, place in route.places.items() if place != "header"}
            theirs = {key: ground.theirs[key] for key in own & set(ground.theirs)}
            sent = quote(value, safe="") if route.places[name] == "path" else value
            answer = ground.attack(route, ground.ana, theirs | {"user_id": "ana", name: sent})
            place = f"{route.method} {route.path} {name}: {answer.status_code} {answer.text[:200]}"
            assert answer.status_code < 500 and CANARY not in answer.text, place
            if name in PERSON | OBJECT:
                assert answer.status_code >= 400, place


def test_a_key_of_an_odd_form_is_no_key(ground: Ground):
    key = ground.ana["X-API-Key"]
    for odd in (f"{key}\x00", key[:-1], f"{key}a", key.upper(), f"oq_{'a' * 9000}", "oq_", "\x01", "é" * 10):
        told = check_problem(ground.client.get("/api/v1/me", params={"token": odd}), 401, "UNAUTHORIZED")
        assert told["message"] == "the API key is not valid" and told["details"] == {}
    ended = create_api_key(ground.runtime.engine, "k", "ana", "pro", ["read"], ground.runtime.clock, soon(0.4))
    assert ground.client.get("/api/v1/me", headers={"X-API-Key": ended}).status_code == 200
    time.sleep(0.45)
    check_problem(ground.client.get("/api/v1/me", headers={"X-API-Key": ended}), 401, "UNAUTHORIZED")
    for moment in (soon(0), soon(-1), datetime.min.replace(tzinfo=UTC)):
        with pytest.raises(DataError, match="`expires_at` must be later than now"):
            create_api_key(ground.runtime.engine, "k", "ana", "pro", ["read"], ground.runtime.clock, moment)


def soon(seconds: float) -> datetime:
    """Return a moment so far from now."""
    return datetime.now(UTC) + timedelta(seconds=seconds)


# --- tokens ---


def claims(**more: Any) -> dict[str, Any]:
    """Return what a good token says, changed; None leaves a claim out."""
    own = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ana", "exp": int(time.time()) + 600, "scope": " ".join(SCOPES[:3])}
    return {name: value for name, value in (own | more).items() if value is not None}


def signed(secret: str = SECRET, headers: Mapping[str, Any] | None = None, **more: Any) -> str:
    """Return a token."""
    return jwt.encode(claims(**more), secret, "HS256", dict(headers or {}))


def part(value: Any) -> str:
    """Return a part of a token."""
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


NONE = f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims())}."
GOOD = signed()


def bad_tokens() -> dict[str, tuple[str, str]]:
    """Return tokens that are not to be believed, made now, each with the reason."""
    return {
        "expired": (signed(exp=int(time.time()) - 1), "expired"),
        "ended in 1970": (signed(exp=0), "expired"),
        "ends before time": (signed(exp=-1), "claims"),
        "ends never": (signed(exp=10**18), "claims"),
        "ends at infinity": (
            jwt.PyJWS().encode(json.dumps(claims(exp=None))[:-1].encode() + b', "exp": 1e999}', SECRET),
            "claims",
        ),
        "ends nowhere": (jwt.PyJWS().encode(json.dumps(claims(exp=float("nan"))).encode(), SECRET), "claims"),
        "ends in ten years": (signed(exp=int(time.time()) + 10 * 365 * 86_400), "lifetime"),
        "ends with a word": (signed(exp="tomorrow"), "claims"),
        "not yet": (signed(nbf=int(time.time()) + 300), "early"),
        "made tomorrow": (signed(iat=int(time.time()) + 86_400), "early"),
        "without an end": (signed(exp=None), "claims"),
        "without an issuer": (signed(iss=None), "claims"),
        "without an audience": (signed(aud=None), "claims"),
        "without a user": (signed(sub=None), "claims"),
        "another issuer": (signed(iss="https://evil.example"), "issuer"),
        "another audience": (signed(aud=["shop", "bank"]), "audience"),
        "a user of control characters": (signed(sub="ana\x00\n"), "claims"),
        "a user of nothing": (signed(sub=""), "claims"),
        "a long user": (signed(sub="a" * 101), "claims"),
        "whoever sits here": (signed(sub="local"), "claims"),
        "another plan": (signed(plan="gold"), "claims"),
        "scopes of another form": (signed(scopes="operate"), "claims"),
        "none": (NONE, "algorithm"),
        "None": (NONE.replace(part({"alg": "none", "typ": "JWT"}), part({"alg": "NoNe"})), "algorithm"),
        "no algorithm": (f"{part({'typ': 'JWT'})}.{part(claims())}.x", "form"),
        "a list of algorithms": (f"{part({'alg': ['HS256']})}.{part(claims())}.eA", "algorithm"),
        "HS512": (jwt.encode(claims(), SECRET * 2, "HS512"), "algorithm"),
        "forged": (signed("another secret of thirty-two bytes"), "signature"),
        "changed": (f"{GOOD.split('.')[0]}.{part(claims(sub='ben'))}.{GOOD.split('.')[2]}", "signature"),
        "unsigned": (f"{GOOD.rpartition('.')[0]}.", "signature"),
        "an unknown key": (signed(headers={"kid": "2024"}), "key"),
        "a key of a path": (signed(headers={"kid": "../../dev/null"}), "key"),
        "a key of an address": (signed(headers={"jku": "https://evil.example/keys", "kid": "1"}), "key"),
        "detached": (f"{part({'alg': 'HS256', 'b64': False, 'crit': ['b64']})}.{part(claims())}.x", "form"),
        "deep": (part(b'{"alg":' + b"[" * 2500) + ".e30.x", "form"),
        "a huge number": (part(b'{"alg": 1' + b"0" * 2500 + b"}") + ".e30.eA", "algorithm"),
        "oversize": (signed(more="x" * 5000), "size"),
        "two dots": ("..", "form"),
        "no text": ("\x01.\x02.\x03", "form"),
        "signs": ("%00.%ff.%0a", "form"),
    }


@pytest.mark.parametrize("name", bad_tokens())
def test_a_token_that_is_not_to_be_believed_is_refused_with_its_reason(ground: Ground, name: str):
    token, reason = bad_tokens()[name]
    told = check_problem(ground.client.get("/api/v1/me", params={"token": token}), 401, "UNAUTHORIZED")
    assert told["details"] == {"reason": reason} and told["message"] == TOKEN_FAULTS[reason]
    assert token not in json.dumps(told)


def test_no_route_takes_a_token_that_is_not_to_be_believed(ground: Ground):
    for route in ROUTES:
        if (route.method, route.path) in PUBLIC | SIGNED:
            continue
        for name in ("expired", "forged", "none"):
            answer = ground.attack(route, {"Authorization": f"Bearer {bad_tokens()[name][0]}"}, ground.theirs)
            check_problem(answer, 401, "UNAUTHORIZED")


def test_a_token_is_its_user_and_no_more(ground: Ground):
    tokens = ground.runtime.settings.tokens
    token = mint_token(tokens, "ana", "pro", ["read"], ground.runtime.clock)
    bearer = {"Authorization": f"Bearer {token}"}
    me = ground.client.get("/api/v1/me", headers=bearer).json()
    assert me == {"id": "token:ana", "user_id": "ana", "plan": "pro", "scopes": ["read"]}
    assert CANARY in ground.client.get("/api/alerts", headers=bearer).text, "the same user as with the key"
    check_problem(ground.client.delete("/api/alerts/x", headers=bearer), 403, "FORBIDDEN")
    check_problem(ground.client.get("/api/alerts?user_id=ben", headers=bearer), 403, "FORBIDDEN")
    two = check_problem(ground.client.get("/api/v1/me", headers=bearer | ground.ana), 401, "UNAUTHORIZED")
    assert "two different" in two["message"]
    oauth = signed(scopes=["read", "openid", "admin"], scope="operate")
    assert ground.client.get("/api/v1/me", headers={"X-API-Key": oauth}).json()["scopes"] == ["read"]
    nothing = signed(scope="openid profile")
    check_problem(ground.client.get("/api/v1/me", headers={"X-API-Key": nothing}), 403, "FORBIDDEN")


def test_a_token_ends_when_it_says_and_not_when_it_is_forgotten(ground: Ground):
    brief = {"Authorization": f"Bearer {signed(exp=int(time.time()) + 2)}"}
    until = time.monotonic() + 5
    assert ground.client.get("/api/v1/me", headers=brief).status_code == 200
    ends = jwt.decode(brief["Authorization"][7:], options={"verify_signature": False})["exp"]
    while ground.client.get("/api/v1/me", headers=brief).status_code == 200 and time.monotonic() < until:
        assert time.time() < ends + 0.1, "remembered beyond its end"
    assert (
        check_problem(ground.client.get("/api/v1/me", headers=brief), 401, "UNAUTHORIZED")["details"]["reason"]
        == "expired"
    )


def test_the_free_plan_sees_no_signal_kept_or_fresh(ground: Ground):
    keys = {plan: ground.key("ana", "read", plan=plan) for plan in ("free", "pro")}
    asked: list[dict[str, Any]] = [
        {"method": "GET", "url": "/api/v1/signals/latest/BTCUSDT"},
        {"method": "GET", "url": "/api/signal?symbol=BTCUSDT"},
        {"method": "POST", "url": "/api/v1/signals/batch", "json": ["BTCUSDT"]},
        *({"method": "GET", "url": f"/agents/atlas/{told}"} for told in ("journal", "positions")),  # made of signals
    ]
    for each in asked:
        assert ground.client.request(**each, headers=keys["pro"]).status_code in (200, 404), each  # no model: 404
        told = check_problem(ground.client.request(**each, headers=keys["free"]), 403, "PLAN_REQUIRED")
        assert told["details"] == {"upgradeUrl": "/pricing"} and "plan pro" in told["message"]
    assert ground.client.get("/api/market_data?symbol=BTCUSDT&timeframe=1h", headers=keys["free"]).status_code == 200
