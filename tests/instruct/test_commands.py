"""The stages as a user types them: on a planned endpoint, on a model that writes nonsense, on the embedded one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from engine.tiny import tiny_model, tiny_tokenizer
from instruct.scripted import Script, question, serving
from midspan import cache
from midspan.cli import app
from midspan.errors import InputError, WorkError
from midspan.instruct.workshop import read_rows
from midspan.model.weights import write_hf
from midspan.rows import Conversations


def run(*arguments: object) -> str:
    """What a command prints."""
    result = CliRunner().invoke(app, ["instruct", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def counts(*arguments: object) -> dict[str, Any]:
    """What a stage reports, by what was counted."""
    return {row["what"]: row["count"] for row in json.loads(run(*arguments, "--json"))["rows"]}


@pytest.mark.usefixtures("jail")
def test_from_questions_to_rows_of_training(tmp_path: Path) -> None:
    work, out, pairs = tmp_path / "work", tmp_path / "all.jsonl", tmp_path / "pairs.jsonl"
    script = Script(
        questions=lambda _: [question(n) for n in range(4, 8)], solutions=lambda n: "WR" if n % 2 else "WW"
    )
    with serving(script) as url:
        asked = (work, "--endpoint", url)
        assert counts("questions", *asked, "--number", 4)["different and fit"] == 4
        said = run("tests", *asked)
        assert "4 requests were sent, the answers of 0 were there" in said.replace("\n", " ")
        assert counts("solutions", *asked, "--number", 2)["kept"] == 2
    assert counts("build", work, "--safety", "--out", out, "--preferences", pairs)["self-instructed"] == 2
    assert len(list(read_rows(pairs))) == 2
    assert any("add_5" in message.content for _, messages in Conversations.open(out) for message in messages)
    assert run("build", work, "--out", out).count("paper") == 1


def written(folder: Path, max_positions: int) -> str:
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer.vocab_size, max_positions=max_positions)
    write_hf(folder, model, model.config, tokenizer=tokenizer, dtype=torch.float32)
    return str(folder)


@pytest.mark.usefixtures("jail")
def test_a_model_that_writes_nonsense_yields_nothing_and_fails_nothing(tmp_path: Path) -> None:
    work, asked = tmp_path / "work", ("--model", written(tmp_path / "m", 1024), "--decoder", "torch")
    found = counts("questions", work, *asked, "--number", 2, "--per-request", 1)
    assert (found["asked for"], found["different and fit"]) == (2, 0)
    assert counts("tests", work, *asked)["with tests that say something"] == 0
    assert counts("solutions", work, *asked)["kept"] == 0
    with pytest.raises(InputError, match="no conversation is left to write"):
        run("build", work, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_too_small_to_ask_is_an_error(tmp_path: Path) -> None:
    asked = ("--model", written(tmp_path / "m", 64), "--decoder", "torch")
    with pytest.raises(WorkError, match="all 2 requests were refused: a prompt of"):
        run("questions", tmp_path / "work", *asked, "--number", 2, "--per-request", 1)
    assert not (tmp_path / "work" / "questions.jsonl").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("jail")
def test_the_embedded_model_asks_tests_and_solves(tmp_path: Path) -> None:
    if not cache.model_file("smollm2-135m").is_file():
        pytest.skip("no SmolLM2; run `midspan models pull smollm2-135m`")
    work, asked = tmp_path / "work", ("--model", "smollm2-135m")
    questions = counts("questions", work, *asked, "--number", 20, "--per-request", 10)
    tests = counts("tests", work, *asked)
    assert tests["questions"] == questions["different and fit"] > 0
    solutions = counts("solutions", work, *asked, "--number", 2)
    assert solutions["questions with tests"] == tests["with tests that say something"]
    assert solutions["solutions"] == 2 * solutions["questions with tests"]
    assert solutions["kept"] <= solutions["questions with a solution"]
    assert json.loads(run("solutions", work, *asked, "--number", 2, "--json"))["paid"] == 0
