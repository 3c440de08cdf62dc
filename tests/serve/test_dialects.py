"""Every dialect gives the engine's own text, whole and in pieces, and its own words for why it ended."""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from midspan.engine import Engine
from midspan.fim.stops import EDITOR, StopRules
from midspan.tokenizer.chat import Message

from .conftest import Open

PREFIX, SUFFIX = "def add(a, b):\n    return ", "\n\n\nprint(add(1, 2))\n"
GREEDY = {"temperature": 0}


def posted(client: TestClient, path: str, body: dict[str, Any], status: int = 200) -> Any:
    answer = client.post(path, json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def events(client: TestClient, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    with client.stream("POST", path, json=body | {"stream": True}) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in answer.iter_lines() if line]
    for line in lines:
        assert line.startswith("data: ")
        if line != "data: [DONE]":
            yield json.loads(line.removeprefix("data: "))


def test_completions_are_the_engines(client: TestClient, engine: Engine) -> None:
    expected = engine.complete(PREFIX, max_tokens=12)
    answer = posted(client, "/v1/completions", {"prompt": PREFIX, "max_tokens": 12, **GREEDY})
    (choice,) = answer["choices"]
    assert choice["text"] == expected.text
    assert choice["finish_reason"] == ("stop" if expected.finish_reason == "stop" else "length")
    assert answer["usage"]["completion_tokens"] == len(expected.ids)
    assert answer["usage"]["prompt_tokens"] == expected.usage.prompt
    assert answer["model"] == "tiny"
    pieces = list(events(client, "/v1/completions", {"prompt": PREFIX, "max_tokens": 12, **GREEDY}))
    assert "".join(piece["choices"][0]["text"] for piece in pieces) == expected.text
    assert [piece["choices"][0]["finish_reason"] for piece in pieces][-1] == choice["finish_reason"]
    assert len({piece["id"] for piece in pieces}) == 1


def test_a_stream_may_end_with_its_usage(client: TestClient) -> None:
    body = {"prompt": PREFIX, "max_tokens": 4, "stream_options": {"include_usage": True}}
    last = list(events(client, "/v1/completions", body))[-1]
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] > 0


def test_prompts_of_ids_and_several_prompts(client: TestClient, engine: Engine) -> None:
    ids = engine.tokenizer.encode(PREFIX)
    expected = engine.generate([ids], max_tokens=6, stop_ids=engine._special_ids)[0].text
    assert (
        posted(client, "/v1/completions", {"prompt": ids, "max_tokens": 6, **GREEDY})["choices"][0]["text"]
        == expected
    )
    body = {"prompt": [PREFIX, "print("], "max_tokens": 6, "n": 2, **GREEDY}
    answer = posted(client, "/v1/completions", body)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    texts = [choice["text"] for choice in answer["choices"]]
    assert texts[0] == texts[1] == engine.complete(PREFIX, max_tokens=6).text
    assert texts[2] == texts[3] == engine.complete("print(", max_tokens=6).text
    message = posted(client, "/v1/completions", {"prompt": [999_999]}, 400)["error"]
    assert "999999" in message["message"]
    assert message["param"] == "prompt"


def test_a_seed_decides_a_sample(client: TestClient) -> None:
    body = {"prompt": PREFIX, "max_tokens": 16, "temperature": 1.0, "n": 3}
    first, again, other = (
        [c["text"] for c in posted(client, "/v1/completions", body | {"seed": seed})["choices"]]
        for seed in (1, 1, 2)
    )
    assert first == again != other
    assert len(set(first)) > 1


def test_echo_and_logprobs(client: TestClient, engine: Engine) -> None:
    body = {"prompt": PREFIX, "max_tokens": 3, "echo": True, "logprobs": 2, **GREEDY}
    (choice,) = posted(client, "/v1/completions", body)["choices"]
    known = choice["logprobs"]
    assert choice["text"].startswith(PREFIX)
    assert "".join(known["tokens"]).startswith(PREFIX)
    ids = engine.tokenizer.encode(PREFIX)
    expected = [None, *(pytest.approx(-loss, abs=1e-4) for loss in engine.losses(ids))]
    assert known["token_logprobs"][: len(ids)] == expected, "nothing is known of the first"
    written = known["top_logprobs"][len(ids) :]
    assert all(len(entry) >= 2 for entry in written)
    for entry, logprob in zip(written, known["token_logprobs"][len(ids) :], strict=True):
        assert math.isclose(max(entry.values()), logprob, abs_tol=1e-6)
    assert known["text_offset"][:2] == [0, len(known["tokens"][0])]
    only = posted(client, "/v1/completions", body | {"max_tokens": 0})["choices"][0]
    assert only["text"] == PREFIX
    assert only["logprobs"]["token_logprobs"] == expected


def test_the_best_of_several(client: TestClient) -> None:
    body = {"prompt": PREFIX, "max_tokens": 8, "temperature": 1.0, "seed": 3, "logprobs": 0}
    every = posted(client, "/v1/completions", body | {"n": 5})["choices"]

    def mean(choice: dict[str, Any]) -> float:
        return float(sum(choice["logprobs"]["token_logprobs"]) / len(choice["logprobs"]["tokens"]))

    best = posted(client, "/v1/completions", body | {"n": 2, "best_of": 5})["choices"]
    assert [c["text"] for c in best] == [c["text"] for c in sorted(every, key=mean, reverse=True)[:2]]
    assert (
        "at least n" in posted(client, "/v1/completions", body | {"n": 3, "best_of": 2}, 400)["error"]["message"]
    )


def test_stop_strings_end_a_text_before_them(client: TestClient, engine: Engine) -> None:
    text = engine.complete(PREFIX, max_tokens=20).text
    stop = text[5:7]
    answer = posted(client, "/v1/completions", {"prompt": PREFIX, "max_tokens": 20, "stop": [stop], **GREEDY})
    assert answer["choices"][0]["text"] == text[: text.find(stop)]
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["choices"][0]["stop_type"] == "string"


def infill(engine: Engine, **options: Any) -> str:
    return engine.infill(PREFIX, SUFFIX, max_tokens=12, stops=EDITOR, **options).text


def test_every_dialect_infills_alike(client: TestClient, engine: Engine) -> None:
    expected = infill(engine)
    openai = {"prompt": PREFIX, "suffix": SUFFIX, "max_tokens": 12}
    llama = {"input_prefix": PREFIX, "input_suffix": SUFFIX, "n_predict": 12}
    ollama = {"model": "tiny", "prompt": PREFIX, "suffix": SUFFIX, "options": {"num_predict": 12}}
    tabby = {"language": "python", "segments": {"prefix": PREFIX, "suffix": SUFFIX}, "max_tokens": 12}
    for path in ("/v1/completions", "/beta/completions"):
        assert posted(client, path, openai)["choices"][0]["text"] == expected
        assert "".join(e["choices"][0]["text"] for e in events(client, path, openai)) == expected
    fim = posted(client, "/v1/fim/completions", openai)
    assert fim["choices"][0]["message"]["content"] == expected
    streamed = events(client, "/v1/fim/completions", openai)
    assert "".join(e["choices"][0]["delta"]["content"] for e in streamed) == expected
    assert posted(client, "/infill", llama)["content"] == expected
    assert "".join(e["content"] for e in events(client, "/infill", llama)) == expected
    assert posted(client, "/api/generate", ollama | {"stream": False})["response"] == expected
    lines = client.post("/api/generate", json=ollama).text.splitlines()
    assert "".join(json.loads(line)["response"] for line in lines) == expected
    assert json.loads(lines[-1])["done"] is True
    assert posted(client, "/v1/completions", tabby)["choices"][0]["text"] == expected


def test_layouts_and_rules_can_be_chosen(client: TestClient, engine: Engine) -> None:
    raw = engine.infill(PREFIX, SUFFIX, layout="psm", max_tokens=12, stops=StopRules()).text
    body = {"prompt": PREFIX, "suffix": SUFFIX, "max_tokens": 12, "layout": "psm", "stop_rules": "none"}
    assert posted(client, "/v1/completions", body)["choices"][0]["text"] == raw
    found = posted(client, "/infill", {"input_prefix": PREFIX, "input_suffix": SUFFIX, "layout": "psm"})
    assert found["layout"] == "psm"
    assert "layout" in posted(client, "/v1/completions", body | {"layout": "middle"}, 400)["error"]["message"]


def test_llama_cpp_says_what_it_cost_and_reads_nothing_twice(client: TestClient) -> None:
    body = {"input_prefix": PREFIX + "a", "input_suffix": SUFFIX, "n_predict": 0, "layout": "spm"}
    warm = posted(client, "/infill", body)
    assert warm["content"] == ""
    assert warm["stop_type"] == "limit"
    typed = posted(client, "/infill", body | {"input_prefix": PREFIX + "a +", "n_predict": 4})
    assert typed["timings"]["cache_n"] >= warm["timings"]["prompt_n"] + warm["timings"]["cache_n"] - 4
    assert typed["timings"]["prompt_n"] <= 6
    chosen = posted(client, "/infill", body | {"response_fields": ["content", "timings/prompt_n", "none"]})
    assert set(chosen) == {"content", "prompt_n"}


def test_llama_cpp_completes_and_shows_its_vocabulary(client: TestClient, engine: Engine) -> None:
    expected = engine.complete(PREFIX, max_tokens=6).text
    assert posted(client, "/completion", {"prompt": PREFIX, "n_predict": 6, **GREEDY})["content"] == expected
    ids = posted(client, "/tokenize", {"content": PREFIX})["tokens"]
    assert ids == engine.tokenizer.encode(PREFIX)
    assert posted(client, "/detokenize", {"tokens": ids})["content"] == PREFIX
    pieces = posted(client, "/tokenize", {"content": "é", "with_pieces": True, "add_special": True})["tokens"]
    data = [p["piece"] if isinstance(p["piece"], list) else list(p["piece"].encode()) for p in pieces]
    assert bytes(b for piece in data for b in piece).endswith("é".encode())
    props = client.get("/props").json()
    assert props["default_generation_settings"]["n_ctx"] == engine.max_positions


def test_chats_are_the_engines(client: TestClient, engine: Engine) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Sum?"}]
    turns = [Message("system", "Be brief."), Message("user", "Sum?")]
    expected = engine.submit(engine.chatting(turns, max_tokens=10)).result().text
    body = {"messages": messages, "max_tokens": 10, **GREEDY}
    assert posted(client, "/v1/chat/completions", body)["choices"][0]["message"]["content"] == expected
    streamed = list(events(client, "/v1/chat/completions", body))
    assert streamed[0]["choices"][0]["delta"]["role"] == "assistant"
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in streamed) == expected
    parts = [{"role": "user", "content": [{"type": "text", "text": "Sum?"}]}]
    posted(client, "/v1/chat/completions", {"messages": parts, "max_tokens": 2})
    ollama = {"model": "tiny", "messages": messages, "stream": False, "options": {"num_predict": 10, **GREEDY}}
    assert posted(client, "/api/chat", ollama)["message"]["content"] == expected
    known = posted(client, "/v1/chat/completions", body | {"logprobs": True, "top_logprobs": 3})
    entries = known["choices"][0]["logprobs"]["content"]
    assert bytes(b for e in entries for b in e["bytes"]).decode(errors="replace") == expected
    assert all(len(e["top_logprobs"]) == 3 for e in entries)


def test_an_answer_can_be_held_to_a_schema(client: TestClient) -> None:
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    body = {
        "messages": [{"role": "user", "content": "ok?"}],
        "max_tokens": 48,
        "response_format": wanted,
        **GREEDY,
    }
    assert isinstance(
        json.loads(posted(client, "/v1/chat/completions", body)["choices"][0]["message"]["content"])["ok"], bool
    )


def test_what_models_there_are(opened: Open) -> None:
    client = opened(names=("tiny", "tiny:ours"))
    assert [m["id"] for m in client.get("/v1/models").json()["data"]] == ["tiny", "tiny:ours"]
    assert client.get("/v1/models/tiny:ours").json()["id"] == "tiny:ours"
    assert [m["name"] for m in client.get("/api/tags").json()["models"]] == ["tiny", "tiny:ours"]
    shown = client.post("/api/show", json={"model": "tiny:latest"}).json()
    assert ".Suffix" in shown["template"]
    assert "insert" in shown["capabilities"]
    body = {"model": "tiny:ours", "prompt": "a", "max_tokens": 1}
    assert posted(client, "/v1/completions", body)["model"] == "tiny:ours"
    error = posted(client, "/v1/completions", body | {"model": "other"}, 404)["error"]
    assert error["code"] == "model_not_found"
    assert "tiny, tiny:ours" in error["message"]


def test_tabby_counts_what_became_of_suggestions(client: TestClient) -> None:
    assert client.get("/v1/health").json()["model"] == "tiny"
    for kind in ("view", "select", "select"):
        assert (
            client.post("/v1/events", json={"type": kind, "completion_id": "x", "choice_index": 0}).status_code
            == 200
        )
    page = client.get("/metrics").text
    assert 'midspan_suggestions_total{event="accepted"} 2.0' in page
    assert 'midspan_suggestions_total{event="shown"} 1.0' in page


def test_files_of_other_places_stand_in_front(client: TestClient, engine: Engine) -> None:
    extra = [{"filename": "shop/prices.py", "text": "PRICE = 3\n"}]
    body = {"input_prefix": PREFIX, "input_suffix": SUFFIX, "n_predict": 8, "layout": "psm"}
    with_file = posted(client, "/infill", body | {"input_extra": extra})
    context = "# path: shop/prices.py\nPRICE = 3\n"
    request = engine.infilling(PREFIX, SUFFIX, layout="psm", max_tokens=8, context=context, stops=EDITOR)
    assert with_file["tokens_evaluated"] == len(request.prompt)
    assert with_file["content"] == engine.submit(request).result().text


def test_docstrings_and_types_of_a_file(client: TestClient) -> None:
    source = "def add(a, b):\n    return a + b\n"
    typed = posted(client, "/v1/code/types", {"source": source, "path": "add.py", "samples": 1})
    assert set(typed) == {"source", "diff", "types"}
    error = posted(client, "/v1/code/docstring", {"source": source, "function": "sub"}, 400)["error"]["message"]
    assert "no function 'sub'" in error
    answer = client.post("/v1/code/docstring", json={"source": source, "function": "add"})
    assert answer.status_code in (200, 422), "random weights may write no docstring, and then say so"


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v1/completions", {}, 400, "there is no prompt"),
        ("/v1/completions", {"prompt": "a " * 2000, "max_tokens": 1}, 400, "reads at most 511"),
        ("/v1/completions", {"prompt": "a", "max_tokens": 0}, 400, "max_tokens is 0"),
        ("/v1/completions", {"prompt": "a", "temperature": -1}, 400, "temperature: "),
        ("/v1/completions", {"prompt": "a", "n": 17}, 400, "at most 16"),
        ("/v1/completions", {"prompt": "\ud800"}, 400, "half a character"),
        ("/v1/completions", {"prompt": ["a"] * 65}, 400, "1 to 64"),
        ("/v1/completions", {"prompt": "a", "suffix": "b", "echo": True}, 400, "echo is not supported"),
        ("/v1/chat/completions", {"messages": []}, 400, "messages: "),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "x"}], "tools": [{}]},
            400,
            "tools is not",
        ),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "a " * 2000}]},
            400,
            "shorten it|cut it",
        ),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "[INST] x"}]}, 400, "INST"),
        ("/detokenize", {"tokens": [-1]}, 400, "the id -1"),
        ("/completion", {"prompt": ["a", 10**6]}, 400, "the id 1000000"),
        ("/v1/completions", {"prompt": [-1], "echo": True}, 400, "the id -1"),
        ("/beta/completions", {"prompt": [[0], [10**6]]}, 400, "the id 1000000"),
        ("/nowhere", {}, 404, "POST /nowhere"),
    ],
)
def test_mistakes_are_answered_in_openais_shape(
    client: TestClient, path: str, body: dict[str, Any], status: int, said: str
) -> None:
    data = json.dumps(body).encode()
    answer = client.post(path, content=data)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert re.search(said, error["message"]), error


def test_a_body_that_is_no_json(client: TestClient) -> None:
    answer = client.post("/v1/completions", content=b"{nonsense")
    assert answer.status_code == 400
    assert "no JSON" in answer.json()["error"]["message"]
    assert client.post("/v1/completions", content=b'{"prompt": "a", "max_tokens": 1}').status_code == 200


def test_the_page_of_interfaces_is_true(client: TestClient) -> None:
    page = client.get("/openapi.json").json()
    for path in ("/v1/completions", "/v1/fim/completions", "/infill", "/api/generate", "/v1/code/types"):
        assert "post" in page["paths"][path]


def test_llama_cpps_clients_may_name_any_model(opened: Open) -> None:
    """llama.vscode sends the name of its chat model along, which llama.cpp's server does not look at."""
    client = opened(names=("tiny", "tiny:ours"))
    for route, body in (
        ("/infill", {"input_prefix": PREFIX, "input_suffix": SUFFIX, "n_predict": 4}),
        ("/completion", {"prompt": PREFIX, "n_predict": 4}),
    ):
        for sent, answers in (("google/gemini-2.5-flash", "tiny"), ("tiny:ours", "tiny:ours"), ("", "tiny")):
            assert posted(client, route, body | {"model": sent})["model"] == answers
