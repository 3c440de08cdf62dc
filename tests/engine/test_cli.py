"""`midspan complete` and `midspan infill` as a user types them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from engine.tiny import TEXT, tiny_model, tiny_tokenizer
from midspan.cli import generate
from midspan.engine import Engine, SampleConfig
from midspan.errors import InputError
from midspan.fim.stops import EDITOR
from midspan.model.weights import write_hf

app = typer.Typer()
generate.register(app)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = tiny_tokenizer()
    tiny = tiny_model(tokenizer.vocab_size)
    write_hf(folder / "m", tiny, tiny.config, tokenizer=tokenizer, dtype=torch.bfloat16)
    return str(folder / "m")


def run(*arguments: str, stdin: str | bytes | None = None) -> str:
    result = CliRunner().invoke(app, list(arguments), input=stdin, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_complete(model: str) -> None:
    expected = Engine.load(model).complete(TEXT, max_tokens=9)
    found = json.loads(run("complete", model, TEXT, "--max-tokens", "9", "--json"))
    assert found == {"prompt": TEXT, "text": expected.text, "finish_reason": expected.finish_reason}
    assert json.loads(run("complete", model, "-", "--max-tokens", "9", "--json", stdin=TEXT)) == found
    assert run("complete", model, TEXT, "--max-tokens", "9").startswith(TEXT)


def test_sampling_options(model: str) -> None:
    options = ["--temperature", "0.9", "--top-p", "0.8", "--seed", "4", "--max-tokens", "9", "--json"]
    sample = SampleConfig(temperature=0.9, top_p=0.8, seed=4)
    expected = Engine.load(model).complete(TEXT, max_tokens=9, sample=sample)
    assert json.loads(run("complete", model, TEXT, *options))["text"] == expected.text
    with pytest.raises(InputError, match="top_p is 0"):
        run("complete", model, TEXT, "--top-p", "0")


def test_infill_at_a_place(model: str, tmp_path: Path) -> None:
    file = tmp_path / "a:b.py"  # a colon in the name is no separator
    text = "größe = 1\n\tif x:\n\nend"
    file.write_text(text, encoding="utf-8")
    places = {(1, 1): 0, (1, 4): 3, (1, 10): 9, (2, 1): 10, (2, 2): 11, (3, 1): 17, (4, 4): len(text)}
    engine = Engine.load(model)
    for (line, column), at in places.items():
        for layout in ("spm", "psm", "line"):
            place = f"{file}:{line}:{column}"
            found = json.loads(run("infill", model, place, "--layout", layout, "--max-tokens", "6", "--json"))
            options = {"layout": layout, "max_tokens": 6, "stops": EDITOR}
            expected = engine.infill(text[:at], text[at:], **options)  # type: ignore[arg-type]
            assert found.pop("file") == str(file)
            reason = expected.finish_reason
            values = {"line": line, "column": column, "layout": layout, "text": expected.text}
            assert found == values | {"finish_reason": reason, "reason": expected.reason}
    plain = ["--layout", "spm", "--max-tokens", "6", "--raw", "--json"]
    raw = json.loads(run("infill", model, f"{file}:2:2", *plain))
    assert raw["text"] == engine.infill(text[:11], text[11:], layout="spm", max_tokens=6).text
    shown = run("infill", model, f"{file}:2:2", "--max-tokens", "6")
    assert shown.startswith("größe = 1\n")
    assert shown.endswith("if x:\n\nend\n")


def test_windows_line_ends_have_no_column(model: str, tmp_path: Path) -> None:
    file = tmp_path / "dos.py"
    file.write_bytes(b"ab\r\ncd\r\n")
    assert generate.Place(file, 1, 3).split("ab\r\ncd\r\n") == ("ab", "\r\ncd\r\n")
    with pytest.raises(InputError, match=r"line 1 of .* has no column 4; its columns are 1 to 3"):
        run("infill", model, f"{file}:1:4")


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("{0}:5:1", "has no line 5; its lines are 1 to 3"),
        ("{0}:0:1", "has no line 0; its lines are 1 to 3"),
        ("{0}:1:0", "has no column 0; its columns are 1 to 6"),
        ("{0}:1:7", "has no column 7; its columns are 1 to 6"),
        ("{0}", "is no place; write FILE:LINE:COL"),
        ("{0}:1", "is no place; write FILE:LINE:COL"),
        ("{0}:1:x", "is no place; write FILE:LINE:COL"),
        ("{0}:-1:1", "is no place; write FILE:LINE:COL"),
        ("{0}:²:1", "is no place; write FILE:LINE:COL"),
        ("{0}.none:1:1", "cannot be read .No such file or directory.; name a text file"),
        ("{1}:1:1", r"is binary .byte 0 at offset 3."),
        ("{2}:1:1", r"is not UTF-8 .byte 0xe9 at offset 1.; convert it first"),
        ("{3}:1:1", "cannot be read .Is a directory."),
    ],
)
def test_mistakes_are_named(model: str, tmp_path: Path, place: str, sentence: str) -> None:
    for name, data in (("ok.py", b"x = 1\ny\n"), ("binary", b"ELF\0"), ("latin", b"t\xe9te")):
        (tmp_path / name).write_bytes(data)
    names = [str(tmp_path / name) for name in ("ok.py", "binary", "latin", ".")]
    with pytest.raises(InputError, match=sentence):
        run("infill", model, place.format(*names))


def test_a_layout_that_does_not_exist(model: str, tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("x")
    with pytest.raises(InputError, match="--layout is 'mps'; the layouts are auto, psm, spm, line"):
        run("infill", model, f"{tmp_path / 'x.py'}:1:1", "--layout", "mps")


def test_standard_input_that_is_no_text(model: str) -> None:
    with pytest.raises(InputError, match="standard input is not UTF-8"):
        run("complete", model, "-", stdin=b"\xff\xfe")


def test_a_mistake_ends_with_code_2(tmp_path: Path) -> None:
    """Through the real program: one sentence on standard error, nothing on standard output."""
    command = [sys.executable, "-c", "from midspan.cli import main; main()"]
    arguments = ["infill", "none", f"{tmp_path}/x.py:1:1"]
    found = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (2, "")
    assert (
        found.stderr == f"midspan: {tmp_path}/x.py cannot be read (No such file or directory); name a text file\n"
    )


def test_help_does_not_load_torch() -> None:
    code = "import midspan.cli.generate, midspan.cli.evaluate, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
