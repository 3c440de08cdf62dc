"""`midspan eval` and `midspan report` as a user types them."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from midspan.cli import evaluate as module
from midspan.errors import InputError

app = typer.Typer()
module.register(app)


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_eval_of_a_run_and_its_report(run_folder: Path) -> None:
    shown = run("eval", str(run_folder), "--per-kind", "2", "--window", "128")
    results = json.loads((run_folder / "results.json").read_text())
    lines = shown.splitlines()
    for row in results["rows"]:
        found = [n for n, line in enumerate(lines) if f" {row['row'].replace(' all ', ' ')} " in line]
        if " all " not in row["row"] and not row["row"].startswith("left"):
            assert not found, "kinds by themselves are for the report"
            continue
        (number,) = found
        for key, interval in (("before", "before_interval"), ("ours", "interval"), ("difference",) * 2):
            ends = row[interval if interval != "difference" else "difference_interval"]
            assert f" {row[key]:.2f} " in lines[number]
            assert f" {ends[0]:.2f} to {ends[1]:.2f} " in lines[number + 1]
    assert str(run_folder / "report.html") in shown.replace("\n", "")
    (run_folder / "report.html").unlink()
    assert run("report", str(run_folder)).strip() == str(run_folder / "report.html")
    assert (run_folder / "report.html").is_file()


def test_eval_as_json(run_folder: Path, corpus_folder: Path, tmp_path: Path) -> None:
    arguments = ["--corpus", str(corpus_folder), "--per-kind", "1", "--window", "128", "--json"]
    found = json.loads(run("eval", str(run_folder / "model"), *arguments))
    assert len(found["rows"]) == 49
    assert found["before_model"] is None
    out = tmp_path / "out"
    base = ["--base", str(run_folder.parent / "base"), "--out", str(out)]
    found = json.loads(run("eval", str(run_folder / "model"), *arguments, *base))
    written = json.loads((out / "results.json").read_text())
    assert written.pop("examples")
    assert found == written


def test_mistakes_are_named(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--corpus DIR"):
        run("eval", str(run_folder / "model"))
    with pytest.raises(InputError, match="there is no corpus at"):
        run("eval", str(run_folder), "--corpus", str(tmp_path / "none"))
    with pytest.raises(InputError, match="neither the name of a model nor a path"):
        run("eval", "no-such", "--corpus", str(tmp_path))
    with pytest.raises(InputError, match="per_kind is 0"):
        run("eval", str(run_folder), "--per-kind", "0")
    with pytest.raises(InputError, match=r"run `midspan eval"):
        run("report", str(tmp_path))
