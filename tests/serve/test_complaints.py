"""What users complained of elsewhere and a server can answer, each by its thread.

What ends a text before it repeats its suffix (llama.vscode 13) is in `tests/fim/test_stops.py`. Here the model's
choices are steered by `logit_bias`, so that it does what the complaint says models do.
"""

from threading import Thread
from typing import Any

import pytest
from starlette.testclient import TestClient

from midspan.engine import Engine
from midspan.fim.example import bos_of
from midspan.fim.stops import EDITOR

PREFIX, SUFFIX = "def add(a, b):\n    return ", "\n\n\nprint(add(1, 2))\n"


def infilled(client: TestClient, prefix: str, suffix: str, **fields: Any) -> dict[str, Any]:
    body = {"prompt": prefix, "suffix": suffix, "max_tokens": 24, **fields}
    answer = client.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["choices"][0])


def forced(engine: Engine, text: str) -> dict[str, float]:
    """A bias that leaves nothing but the tokens of a text."""
    return {str(i): 100.0 for i in engine.tokenizer.encode(text, leading_space=False)}


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
