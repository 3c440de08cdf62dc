"""Who may ask, how often and how much; and what the log says of it."""

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from midspan.errors import InputError
from midspan.serve import ServeConfig
from midspan.serve.limits import Keys, Rate, read_keys
from midspan.serve.settings import known_layout

from .conftest import Open

KEY, OTHER = "k" * 20, "o" * 20
BODY = {"prompt": "SECRET_OF_A_USER = 1", "max_tokens": 2, "temperature": 0}


def test_only_who_has_a_key_may_ask(opened: Open) -> None:
    client = opened(ServeConfig(keys=(KEY, OTHER), log="none"))
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": KEY},
        {"Authorization": f"Basic {KEY}"},
    ):
        answer = client.post("/v1/completions", json=BODY, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert KEY not in answer.text
    for headers in ({"Authorization": f"Bearer {KEY}"}, {"Authorization": f"bearer {OTHER}"}, {"x-api-key": KEY}):
        assert client.post("/v1/completions", json=BODY, headers=headers).status_code == 200
    for path in ("/v1/models", "/metrics", "/openapi.json", "/docs", "/props"):
        assert client.get(path).status_code == 401, path
    for path in ("/health", "/"):
        assert client.get(path).status_code == 200, path


def test_keys_are_compared_whole_and_named_without_giving_them_away() -> None:
    keys = Keys([KEY])
    assert keys.name_of(KEY[:-1]) is None
    assert keys.name_of("") is None
    name = keys.name_of(KEY)
    assert name is not None
    assert KEY not in name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("# only a remark\n\n", "holds no key"),
        ("short\n", "key 1 of .* has 5 characters"),
    ],
)
def test_a_file_of_keys_that_is_none(text: str | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError, match=message):
        read_keys(file)


def test_keys_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# editors\n{KEY}\n\n {OTHER} \n")
    assert read_keys(file) == (KEY, OTHER)


def test_a_rate_fills_again_as_time_goes() -> None:
    now = [0.0]
    rate = Rate(2, clock=lambda: now[0])
    assert [rate.wait("a") for _ in range(3)] == [0, 0, 30]
    assert rate.wait("b") == 0
    now[0] = 29.0
    assert rate.wait("a") == 1
    now[0] = 31.0
    assert rate.wait("a") == 0
    now[0] = 1000.0
    assert [rate.wait("a") for _ in range(3)] == [0, 0, 30], "no more than a minute's worth is saved up"
    assert all(Rate(0).wait("a") == 0 for _ in range(100))


def test_who_asks_too_often_is_told_when_to_come_back(opened: Open) -> None:
    client = opened(ServeConfig(keys=(KEY, OTHER), requests_per_minute=2, log="none"))
    headers = {"Authorization": f"Bearer {KEY}"}
    statuses = [client.get("/v1/models", headers=headers).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    answer = client.get("/v1/models", headers=headers)
    assert int(answer.headers["Retry-After"]) in range(20, 31)
    assert client.get("/v1/models", headers={"Authorization": f"Bearer {OTHER}"}).status_code == 200
    assert client.get("/health").status_code == 200


def test_bodies_have_an_end(opened: Open) -> None:
    client = opened(ServeConfig(max_body=1000, log="none"))
    assert client.post("/v1/completions", json=BODY | {"prompt": "x" * 2000}).status_code == 413

    answer = client.post("/v1/completions", content=iter([b" " * 500] * 10))  # its length is not said before
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "body_too_large"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://testserver"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://ide.example"}, 200),
        ({"Host": "evil.example:8012"}, 403),
        ({"Host": "localhost:8012"}, 200),
        ({"Host": "127.0.0.1:8012", "Origin": "http://127.0.0.1:8012"}, 200),
        ({"Host": "[::1]:8012"}, 200),
    ],
)
def test_pages_of_other_addresses_may_not_ask(opened: Open, headers: dict[str, str], status: int) -> None:
    client = opened(ServeConfig(cors_origins=("https://ide.example",), log="none"))
    assert client.post("/v1/completions", json=BODY, headers=headers).status_code == status


def test_cors_is_only_for_who_was_named(opened: Open) -> None:
    client = opened(ServeConfig(cors_origins=("https://ide.example",), log="none"))
    answer = client.get("/v1/models", headers={"Origin": "https://ide.example"})
    assert answer.headers["access-control-allow-origin"] == "https://ide.example"
    assert "access-control-allow-origin" not in opened().get("/v1/models").headers


def test_every_answer_has_its_requests_name(opened: Open) -> None:
    client = opened()
    assert client.get("/v1/models", headers={"X-Request-Id": "mine-1"}).headers["X-Request-Id"] == "mine-1"
    made = client.get("/nowhere", headers={"X-Request-Id": "no\tgood name"}).headers["X-Request-Id"]
    assert len(made) == 32


def test_the_log_says_how_much_and_never_what(opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    client = opened(ServeConfig(keys=(KEY,)))
    headers = {"Authorization": f"Bearer {KEY}", "X-Request-Id": "r1"}
    logging.getLogger("midspan.serve").propagate = True
    with caplog.at_level(logging.INFO, logger="midspan.serve"):
        text = client.post("/v1/completions", json=BODY, headers=headers).json()["choices"][0]["text"]
        client.post("/infill?x=SECRET_OF_A_USER", json={"input_prefix": BODY["prompt"]}, headers=headers)
        client.post("/v1/completions", json={"prompt": "SECRET_OF_A_USER", "temperature": -1}, headers=headers)
    first, *others = [json.loads(record.getMessage()) for record in caplog.records]
    assert first["id"] == "r1"
    assert first["route"] == "/v1/completions"
    assert first["status"] == 200
    assert first["prompt"] > 0
    assert first["written"] > 0
    assert [line["status"] for line in others] == [200, 400]
    assert "SECRET" not in caplog.text
    assert KEY not in caplog.text
    assert text.strip() == "" or text not in caplog.text


def test_what_is_under_way_is_bounded(opened: Open) -> None:
    client = opened(ServeConfig(queue=0, max_copies=128, log="none"))
    assert client.post("/v1/completions", json=BODY | {"n": 32}).status_code == 200
    answer = client.post("/v1/completions", json=BODY | {"n": 33})
    assert answer.status_code == 429
    assert answer.headers["Retry-After"] == "1"
    assert client.post("/v1/completions", json=BODY | {"n": 32}).status_code == 200, "nothing of it stays"
    assert "midspan_running 0.0" in client.get("/metrics").text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"host": "0.0.0.0"}, r"0\.0\.0\.0 can be reached from other machines.*--api-key-file"),
        ({"port": 70000}, "the port is 70000"),
        ({"queue": -1}, "queue is -1"),
        ({"max_body": 0}, "max_body is 0"),
    ],
)
def test_settings_that_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ServeConfig(**values)


def test_layouts_are_named() -> None:
    assert known_layout("spm") == "spm"
    with pytest.raises(InputError, match="'middle'"):
        known_layout("middle")


def test_a_body_that_does_not_arrive_is_not_waited_for(opened: Open) -> None:
    app = opened(ServeConfig(body_timeout=0.05, log="none")).app
    sent: list[dict[str, Any]] = []
    parts = iter([{"type": "http.request", "body": b'{"prompt": "x', "more_body": True}])

    async def receive() -> dict[str, Any]:
        if (part := next(parts, None)) is None:
            await asyncio.sleep(60)
        return part or {}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/completions",
        "raw_path": b"/v1/completions",
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "scheme": "http",
        "http_version": "1.1",
        "asgi": {"version": "3.0"},
        "root_path": "",
    }
    asyncio.run(asyncio.wait_for(app(scope, receive, send), 20))  # type: ignore[arg-type]
    assert sent[0]["status"] == 408


def test_paths_do_not_climb_out_of_the_playground(opened: Open) -> None:
    client = opened()
    for path in ("../../app.py", "%2e%2e/%2e%2e/app.py", "..%2f..%2fapp.py", "/etc/passwd", "%00"):
        answer = client.get(f"/playground/{path}")
        assert answer.status_code in (400, 404), path
        assert answer.json()["error"]["message"]


def test_json_of_any_depth_is_answered(opened: Open) -> None:
    client = opened()
    for body in ("[" * 500_000, '{"a":' * 300_000, '{"prompt": ' + "[" * 200_000 + "]" * 200_000 + "}"):
        answer = client.post("/v1/completions", content=body)
        assert answer.status_code == 400
        assert answer.json()["error"]["type"] == "invalid_request_error"
