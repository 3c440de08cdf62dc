"""`midspan models` as a user types it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
import torch
from typer.testing import CliRunner

from midspan import cache
from midspan.cli.models import app
from midspan.errors import InputError
from midspan.fim import with_sentinels
from midspan.model import Llama, ModelConfig
from midspan.model.weights import write_hf
from midspan.tokenizer import Tokenizer


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIDSPAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def model_folder(folder: Path) -> Path:
    """A tiny model whose vocabulary has sentinels, as a run leaves it."""
    trained = tokenizers.ByteLevelBPETokenizer()
    trained.train_from_iterator(["x = 1\n"], vocab_size=260, special_tokens=["<s>", "</s>"])
    trained.save(str(folder / "tokenizer.json"))
    tokenizer = with_sentinels(Tokenizer.load(folder / "tokenizer.json"))
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        intermediate_size=32,
        num_layers=1,
        num_heads=2,
        num_kv_heads=1,
        head_dim=8,
        max_positions=64,
    )
    write_hf(folder / "run" / "model", Llama(config), config, tokenizer=tokenizer, dtype=torch.float16)
    return folder / "run"


def test_list_shows_what_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")  # so that a long path stays in one line
    rows = json.loads(run("list", "--json"))
    assert [row["name"] for row in rows] == ["midspan-135m", "smollm2-135m"]
    assert all((row["licence"], row["path"]) == ("Apache-2.0", None) for row in rows)
    assert "midspan models pull" in run("list")
    file = cache.model_file("smollm2-135m")
    file.parent.mkdir(parents=True)
    file.touch()
    shipped, base = json.loads(run("list", "--json"))
    assert (shipped["path"], base["path"]) == (str(cache.model_file("midspan-135m")), str(file))
    assert file.name in run("list")


def test_pull_says_where_the_model_is() -> None:
    file = cache.model_file("smollm2-135m")
    file.parent.mkdir(parents=True)
    file.touch()
    assert run("pull", "smollm2-135m") == f"smollm2-135m is at {file}\n"
    assert json.loads(run("pull", "smollm2-135m", "--json")) == {"name": "smollm2-135m", "path": str(file)}
    with pytest.raises(InputError, match="no model is named 'x'"):
        run("pull", "x")


def test_info_of_a_run(tmp_path: Path) -> None:
    folder = model_folder(tmp_path)
    facts = json.loads(run("info", str(folder), "--json"))
    assert facts["path"] == str(folder / "model")
    assert (facts["format"], facts["family"], facts["tokenizer"]) == ("hf", "llama", "byte-level BPE")
    assert facts["stored_as"] == {"F16": facts["parameters"]}
    rows = facts["vocabulary"]
    assert facts["embedding_rows"] == rows
    assert facts["sentinels"] == {"prefix": rows - 4, "suffix": rows - 3, "middle": rows - 2, "eot": rows - 1}
    assert facts["infilling"] == "midspan"
    shown = run("info", str(folder))
    assert f"F16 {facts['parameters']:,}" in shown
    assert f"eot {rows - 1}" in shown


def test_info_without_a_vocabulary_says_so(tmp_path: Path) -> None:
    folder = model_folder(tmp_path) / "model"
    (folder / "tokenizer.json").unlink()
    facts = json.loads(run("info", str(folder), "--json"))
    assert facts["tokenizer"] is None
    assert str(folder) in facts["tokenizer_missing"]


def test_help_does_not_load_torch() -> None:
    code = "import midspan.cli.models, sys; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout == "False\n"
