"""`midspan convert` as a user types it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from midspan.cli import app
from midspan.errors import InputError

from .test_models import model_folder


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_a_run_becomes_a_gguf_and_a_folder_again(tmp_path: Path) -> None:
    source = model_folder(tmp_path)
    printed = json.loads(run("convert", source, tmp_path / "a.gguf", "--to", "gguf", "--type", "f32", "--json"))
    assert printed["path"] == str(tmp_path / "a.gguf")
    assert printed["bytes"] == (tmp_path / "a.gguf").stat().st_size
    assert printed["source"] == str(source / "model")
    said = run("convert", tmp_path / "a.gguf", tmp_path / "meta", "--to", "meta")
    assert "meta: meta, " in said
    assert "note: the format does not say the context of 64 positions" in said
    facts = json.loads(run("models", "info", tmp_path / "meta", "--json"))
    assert facts["infilling"] == "midspan"
    with pytest.raises(InputError, match="is there already"):
        CliRunner().invoke(
            app, ["convert", str(source), str(tmp_path / "a.gguf"), "--to", "gguf"], catch_exceptions=False
        )
