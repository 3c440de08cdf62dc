"""A chat: what the model is shown, what is forgotten, what runs, and the command as a user types it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engine.tiny import tiny_model, tiny_tokenizer
from midspan.engine import Engine
from midspan.errors import InputError
from midspan.instruct.talk import Talk, code_of
from midspan.model.weights import write_hf
from midspan.tokenizer.chat import Message

TOKENIZER = tiny_tokenizer()
MODEL = tiny_model(TOKENIZER.vocab_size)


@pytest.fixture
def talk() -> Talk:
    return Talk(Engine(MODEL, TOKENIZER), max_tokens=12)


def test_an_answer_is_the_engines_and_is_remembered(talk: Talk) -> None:
    first = "".join(talk.answer("x = 1"))
    engine = Engine(MODEL, TOKENIZER)
    asked = [Message("user", "x = 1")]
    assert first == engine.submit(engine.chatting(asked, max_tokens=12)).result().text
    talk.system = "be brief"
    second = "".join(talk.answer("y = 2"))
    asked = [
        Message("system", "be brief"),
        *asked,
        Message("assistant", first.strip() or "..."),
        Message("user", "y = 2"),
    ]
    assert second == engine.submit(engine.chatting(asked, max_tokens=12)).result().text
    assert [turn.role for turn in talk.turns] == ["user", "assistant"] * 2
    talk.undo()
    assert talk.turns == asked[1:3]
    talk.clear()
    assert talk.turns == []


def test_the_oldest_turns_make_way(talk: Talk) -> None:
    for number in range(8):
        "".join(talk.answer(f"print({number}) " * 3))
    assert talk.dropped > 0
    assert talk.dropped % 2 == 0
    assert len(talk.turns) == 16, "they are remembered all the same"
    request = talk._request([*talk.turns, Message("user", "x")])
    assert len(request.prompt) + 12 <= 256


def test_what_cannot_be_asked_changes_nothing(talk: Talk) -> None:
    "".join(talk.answer("x"))
    before = list(talk.turns)
    with pytest.raises(InputError, match="which marks turns"):
        list(talk.answer("what is [INST]?"))
    with pytest.raises(InputError, match="do not fit the model's 256 positions"):
        list(talk.answer("print(1)\n" * 200))
    assert talk.turns == before


@pytest.mark.parametrize("max_tokens", [0, 256])
def test_an_answer_has_room(max_tokens: int) -> None:
    with pytest.raises(InputError, match=f"--max-tokens is {max_tokens}; .* lies between 1 and 255"):
        Talk(Engine(MODEL, TOKENIZER), max_tokens=max_tokens)


def test_an_answer_that_is_stopped_is_kept_as_far_as_it_came(talk: Talk) -> None:
    pieces = talk.answer("x")
    first = next(pieces)
    pieces.close()
    assert talk.turns[-1].content.startswith(first.strip())
    assert "".join(talk.answer("y"))


ANSWER = (
    "First:\n```python\nprint(6 * 7)\n```\nand in the shell:\n```sh\necho from $((40 + 2))\n```\n"
    "or\n[PYTHON]\nimport sys\nprint('out')\nprint('err', file=sys.stderr)\nsys.exit(3)\n[/PYTHON]"
)


@pytest.mark.usefixtures("jail")
def test_code_of_the_last_answer_runs(talk: Talk) -> None:
    with pytest.raises(InputError, match="holds no code"):
        talk.run()
    talk.turns = [Message("user", "q"), Message("assistant", ANSWER)]
    try:
        language, verdict = talk.run(1)
        assert (language, verdict.stdout, verdict.status) == ("python", "42\n", "passed")
        language, verdict = talk.run(2)
        assert (language, verdict.stdout, verdict.status) == ("bash", "from 42\n", "passed")
        language, verdict = talk.run()
        assert (verdict.stdout, verdict.stderr, verdict.status) == ("out\n", "err\n", "failed")
        with pytest.raises(InputError, match="there is no piece 4; the last answer has 3"):
            talk.run(4)
    finally:
        talk.close()


def test_pieces_of_code() -> None:
    assert code_of("no code") == []
    assert code_of("```\nx\n```") == [("python", "x\n")]
    assert code_of("```js\nx\n```\n```C++\ny\n```") == [("javascript", "x\n"), ("cpp", "y\n")]
    assert code_of("```python\ncut off") == [("python", "cut off\n")]
    assert code_of("[PYTHON]x = 1[/PYTHON]") == [("python", "x = 1\n")]


def test_conversations_are_saved_and_loaded(talk: Talk, tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    with pytest.raises(InputError, match="nothing was said yet"):
        talk.save(path)
    talk.system, talk.turns = "s", [Message("user", "q"), Message("assistant", "ä")]
    talk.save(path)
    other = Talk(talk.front, max_tokens=12)
    other.load(path)
    assert (other.system, other.turns) == ("s", talk.turns)
    path.write_text(json.dumps({"messages": []}))
    with pytest.raises(InputError, match="line 1: there are no messages"):
        other.load(path)
    with pytest.raises(InputError, match="cannot be read"):
        other.load(tmp_path / "nowhere")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model") / "m"
    write_hf(folder, MODEL, MODEL.config, tokenizer=TOKENIZER, dtype=torch.float32)
    return str(folder)


@pytest.mark.usefixtures("jail")
def test_the_command(model: str, tmp_path: Path) -> None:
    saved, before = tmp_path / "saved.jsonl", tmp_path / "before.jsonl"
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": ANSWER}]
    before.write_text(json.dumps({"messages": messages}) + "\n")
    lines = [
        "/run 1",
        "/run 7",
        "/run it",
        "/save",
        "/system be brief",
        "hello",
        f"/save {saved}",
        "/nonsense",
        "/help",
        "\xff",
        "/undo",
        "[INST]",
        "/undo",
    ]
    command = [sys.executable, "-m", "midspan", "chat", model, "--max-tokens", "8", "--load", str(before)]
    done = subprocess.run(
        [*command, "--decoder", "torch"],
        input="\n".join(lines).encode("latin-1"),
        capture_output=True,
        check=False,
    )
    said = done.stdout.decode()
    assert done.returncode == 0, done.stderr.decode()
    for words in (
        "42\n(python passed",
        "there is no piece 7",
        "/run it: a piece of code has a number",
        "/save needs the name of a file",
        "'/nonsense' is no command",
        "/run [N]",
        "marks turns",
    ):
        assert words in said
    found = json.loads(saved.read_text())["messages"]
    assert [message["role"] for message in found] == ["system", "user", "assistant", "user", "assistant"]
    assert found[0]["content"] == "be brief"
