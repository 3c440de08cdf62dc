"""What users complained of elsewhere and a server can answer, each by its thread.

The model's choices are steered by `logit_bias`, or it has learnt one text by heart, so that it does what the
complaint says models do.
"""

import json
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from engine.tiny import chain_model, tiny_model
from midspan.engine import Engine
from midspan.fim import with_sentinels
from midspan.fim.example import bos_of
from midspan.fim.stops import EDITOR
from midspan.model.weights import write_hf
from midspan.serve import Models, create_app
from midspan.tokenizer import Tokenizer
from vocabularies import byte_vocabulary

from .conftest import SMALL
from .test_process import served

PREFIX, SUFFIX = "def add(a, b):\n    return ", "\n\n\nprint(add(1, 2))\n"


def infilled(client: TestClient, prefix: str, suffix: str, **fields: Any) -> dict[str, Any]:
    body = {"prompt": prefix, "suffix": suffix, "max_tokens": 24, **fields}
    answer = client.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["choices"][0])


def forced(engine: Engine, text: str) -> dict[str, float]:
    """A bias that leaves nothing but the tokens of a text."""
    return {str(i): 100.0 for i in engine.tokenizer.encode(text, leading_space=False)}


def by_heart(text: str) -> Engine:
    """A model that writes one text, whatever it is asked, from the character at the cursor on."""
    tokenizer = with_sentinels(byte_vocabulary())
    end = min(i for i in range(tokenizer.vocab_size) if tokenizer.piece(i) == "</s>")
    return Engine(chain_model(tokenizer, text, end), tokenizer)


def client_of(engine: Engine) -> TestClient:
    models = Models()
    models.add("tiny", lambda: engine)
    models.start(wait=True)
    return TestClient(create_app(models, SMALL))


@pytest.mark.parametrize("written_first", ["", "N", "No"])
def test_llama_vscode_13_a_suggestion_repeats_the_suffix(written_first: str, tmp_path: Path) -> None:
    suffix = "t equal|≠"
    before = {"": "x = No", "N": "x =", "No": "x ="}[written_first]
    engine = by_heart(("=" if before.endswith("=") else "") + "No" + suffix)
    write_hf(tmp_path / "parrot", engine.model, engine.model.config, tokenizer=engine.tokenizer)
    with served(tmp_path / "parrot", "--quiet") as (url, _), httpx.Client(base_url=url) as client:
        body = {"prompt": before, "suffix": suffix, "max_tokens": 32}
        whole = client.post("/v1/completions", json=body | {"stop_rules": "none"}).json()["choices"][0]
        assert whole["text"].endswith(suffix), "which is what the model does"
        found = client.post("/v1/completions", json=body).json()["choices"][0]
        assert found["text"] == whole["text"].removesuffix(suffix)
        with client.stream("POST", "/v1/completions", json=body | {"stream": True}) as answer:
            events = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: {")]
        assert "".join(json.loads(event)["choices"][0]["text"] for event in events) == found["text"]


@pytest.mark.parametrize("layout", ["spm", "psm", "line"])
def test_continue_867_the_end_is_shown_as_text(client: TestClient, engine: Engine, layout: str) -> None:
    assert engine.fim is not None
    found = infilled(client, PREFIX, SUFFIX, logit_bias={str(engine.fim.eot_id): 100.0}, layout=layout)
    assert "EOT" not in found["text"]
    assert len(found["text"]) < 8, "no more than the rest of the token at the cursor"
    assert found["stop_type"] == "eot"


def test_llama_cpp_9606_infilling_never_stops(client: TestClient, engine: Engine) -> None:
    for special in filter(engine.tokenizer.is_special, range(engine.tokenizer.vocab_size)):
        found = infilled(client, PREFIX, SUFFIX, logit_bias={str(special): 100.0})
        assert found["finish_reason"] == "stop", engine.tokenizer.piece(special)
        assert engine.tokenizer.piece(special) not in found["text"]
        assert len(found["text"]) < 8


def test_llama_coder_34_line_ends_of_windows(client: TestClient, engine: Engine) -> None:
    prefix, suffix = PREFIX.replace("\n", "\r\n"), SUFFIX.replace("\n", "\r\n")
    request = engine.infilling(prefix, suffix, layout="psm", max_tokens=8)
    tail = engine.tokenizer.encode(suffix, leading_space=False)
    ids = list(request.prompt)
    assert any(ids[i : i + len(tail)] == tail for i in range(len(ids))), "the suffix as it is, behind its sentinel"
    assert (
        infilled(client, prefix, suffix)["text"] == engine.infill(prefix, suffix, max_tokens=24, stops=EDITOR).text
    )


@pytest.mark.parametrize("layout", ["spm", "psm"])
@pytest.mark.parametrize(("piece", "text"), [("return", "return"), ("▁return", " return"), ("▁▁▁▁", "    ")])
def test_qwen_75_a_space_in_front_of_the_first_line(
    layout: str, piece: str, text: str, code_llama_model: Path
) -> None:
    tokenizer = Tokenizer.load(code_llama_model)
    model = tiny_model(tokenizer.vocab_size)
    model.lm_head.weight.data.mul_(0.01)  # or what a random model prefers outweighs a bias of 100
    only = {str(tokenizer.id_of(piece)): 100.0}
    with client_of(Engine(model, tokenizer)) as client:
        for prefix in ("def f(x):\n", "x = (\n", ""):
            fields = {"layout": layout, "logit_bias": only, "stop_rules": "none", "max_tokens": 1}
            found = infilled(client, prefix, "\n    y\n", **fields)
            assert found["text"] == text, f"behind {prefix!r}"


@pytest.mark.parametrize("layout", ["spm", "psm", "line"])
def test_cody_2532_the_indent_of_the_first_line(layout: str, client: TestClient, engine: Engine) -> None:
    bias = forced(engine, "return")
    for indent in ("", "    ", "        ", "\t"):
        prefix = f"def add(a, b):\n{indent}"
        found = infilled(client, prefix, "\n", layout=layout, logit_bias=bias, stop_rules="none", max_tokens=2)
        assert not found["text"].startswith((" ", "\t")), f"{found['text']!r} behind {indent!r}"


def test_vllm_9976_suffix_is_not_supported(client: TestClient) -> None:
    assert "text" in infilled(client, PREFIX, SUFFIX)
    shown = client.post("/api/show", json={"model": "tiny"}).json()
    assert "insert" in shown["capabilities"], "ollama 6968: does not support insert"


def test_llama_cpp_11092_bos_in_the_middle(engine: Engine) -> None:
    for layout in ("spm", "psm", "line"):
        ids = list(
            engine.infilling(PREFIX, SUFFIX, layout=layout, max_tokens=8, context="# path: a.py\nx = 1\n").prompt
        )
        starts = bos_of(engine.tokenizer)
        assert ids[: len(starts)] == starts
        assert engine.tokenizer.bos_id not in ids[1:]


def test_llama_cpp_22678_the_prompt_of_infill_begins_the_middle(client: TestClient) -> None:
    body = {"input_suffix": SUFFIX, "n_predict": 8, "layout": "spm"}
    apart = client.post(
        "/infill", json=body | {"input_prefix": "def add(a, b):\n", "prompt": "    return "}
    ).json()
    joined = client.post("/infill", json=body | {"input_prefix": PREFIX}).json()
    assert apart["content"] == joined["content"]
    assert apart["tokens_evaluated"] == joined["tokens_evaluated"]


def test_llama_cpp_5765_a_cursor_inside_a_word(client: TestClient, engine: Engine) -> None:
    word = next(
        text
        for i in range(engine.tokenizer.vocab_size)
        if not engine.tokenizer.is_special(i)
        and len(text := engine.tokenizer.piece_bytes(i).decode(errors="replace")) > 3
        and text.isalpha()
    )
    body = {"input_prefix": f"x = 1\n{word[:-1]}", "input_suffix": "\n", "n_predict": 4, "layout": "spm"}
    found = client.post("/infill", json=body).json()
    assert found["healed_bytes"] >= len(word) - 1
    biased = infilled(
        client, body["input_prefix"], "\n", logit_bias=forced(engine, word), layout="spm", max_tokens=1
    )
    assert biased["text"].startswith(word[-1]), "the whole word's own token can still be written"


def test_tabnine_1078_a_bracket_that_the_editor_closed(client: TestClient, engine: Engine) -> None:
    bias = forced(engine, ")")
    assert infilled(client, "print(", ")\n", logit_bias=bias, stop_rules="none")["text"].startswith("))")
    assert infilled(client, "print(", ")\n", logit_bias=bias)["text"] == ""


@pytest.mark.parametrize("trifle", ["})", ");", ")", '"'])
def test_tabby_2674_what_only_closes_takes_the_tab_key(trifle: str) -> None:
    with client_of(by_heart("x" + trifle)) as client:
        body = {"input_prefix": "f(function() {x", "input_suffix": "\n", "n_predict": 8}
        found = client.post("/infill", json=body).json()
        assert (found["content"], found["reason"]) == ("", "trifle")
        asked_for = client.post("/infill", json=body | {"stop_rules": "invoked"}).json()
        assert asked_for["content"] == trifle
        with client.stream("POST", "/infill", json=body | {"stream": True}) as answer:
            events = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: {")]
        assert [json.loads(event)["content"] for event in events] == [""], "not on the way either"


def test_tabby_2953_more_than_brackets_is_worth_a_key() -> None:
    with client_of(by_heart("x+1);")) as client:
        body = {"input_prefix": "f(x", "input_suffix": "\n", "n_predict": 8}
        assert client.post("/infill", json=body).json()["content"] == "+1);"


def test_continue_3994_what_filters_cut_can_be_had_whole(client: TestClient, engine: Engine) -> None:
    raw = infilled(client, PREFIX, SUFFIX, stop_rules="none")["text"]
    assert raw == engine.infill(PREFIX, SUFFIX, max_tokens=24).text


def test_llama_cpp_13262_a_newer_request_of_a_session_ends_the_older(client: TestClient) -> None:
    found: list[dict[str, Any]] = []

    def old() -> None:
        fields = {"max_tokens": 48, "temperature": 1.5, "seed": 1, "session": "one"}
        found.extend(infilled(client, "x = ", "", **fields) for _ in range(6))

    thread = Thread(target=old)
    thread.start()
    while thread.is_alive():
        infilled(client, "y", "", session="one", max_tokens=1)
    thread.join()
    assert len(found) == 6, "each is answered, cut off or whole"


def test_a_suggestion_that_is_typed_on_is_written_at_once() -> None:
    """Clients that ask again behind every key: what the cache remembers is guessed."""
    text = "bcdefghijklmnopq"
    with client_of(by_heart("a" + text)) as client:
        for typed in range(3):
            body = {
                "input_prefix": "x = a" + text[:typed],
                "input_suffix": "\ny\n",
                "n_predict": len(text) - typed,
            }
            found = client.post("/infill", json=body | {"stop_rules": "none"}).json()
            assert found["content"] == text[typed:]
            if typed:
                assert found["timings"]["draft_n_accepted"] >= len(text) - typed - 2
