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


def batched_by_two(cells: list[list[str]]) -> list[tuple[list[str], list[str]]]:
    return list(zip(cells[::2], cells[1::2], strict=True))


def test_eval_of_a_run_and_its_report(run_folder: Path) -> None:
    shown = run("eval", str(run_folder), "--per-kind", "2", "--window", "128")
    results = json.loads((run_folder / "results.json").read_text())
    cells = [line.split("│")[1:-1] for line in shown.splitlines() if line.startswith("│")]
    # Two lines a row: scores, and below them their intervals. A long name goes on in the second.
    table = {" ".join((above[0] + below[0]).split()): (above, below) for above, below in batched_by_two(cells)}
    for row in results["rows"]:
        name = row["row"].removeprefix("heldout ").replace(" all ", " ")
        found = [lines for shown_name, lines in table.items() if shown_name.partition(",")[0] == name]
        if " all " not in row["row"] and "left to right" not in row["row"]:
            assert not found, "kinds by themselves are for the report"
            continue
        ((above, below),) = found
        intervals = ("before_interval", "interval", "difference_interval")
        for column, (key, interval) in enumerate(zip(("before", "ours", "difference"), intervals, strict=True), 1):
            assert above[column].strip() == f"{row[key]:.2f}"
            assert below[column].strip() == f"{row[interval][0]:.2f} to {row[interval][1]:.2f}"
    assert str(run_folder / "report.html") in shown.replace("\n", "")
    (run_folder / "report.html").unlink()
    assert run("report", str(run_folder)).strip() == str(run_folder / "report.html")
    assert (run_folder / "report.html").is_file()


def test_eval_as_json(run_folder: Path, corpus_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--corpus", str(corpus_folder), "--per-kind", "1", "--window", "128", "--json", "--out", str(out)]
    found = json.loads(run("eval", str(run_folder / "model"), *arguments))
    assert len(found["rows"]) == 53
    assert found["before_model"] is None
    found = json.loads(
        run("eval", str(run_folder / "model"), *arguments, "--base", str(run_folder.parent / "base"))
    )
    assert found == json.loads((out / "results.json").read_text())
    assert found["before_model"]["weights"]
    again = json.loads(run("eval", "--rescore", "--out", str(out), "--json"))
    assert again["rows"] == found["rows"]


def test_doctor_names_what_is_missing(shared_data: Path, tmp_path: Path) -> None:
    found = json.loads(run("eval", "--doctor", "--data", str(shared_data), "--json"))
    by_name = {row["task"]: row for row in found["tasks"]}
    assert by_name["humaneval"]["missing"] == ""
    assert {"python", "cpp", "rust"} <= {row["language"] for row in found["languages"]}
    nothing = json.loads(run("eval", "--doctor", "--data", str(tmp_path), "--json"))
    missing = {row["task"]: row["missing"] for row in nothing["tasks"]}
    assert missing["humaneval"] == "data: humaneval/HumanEval.jsonl.gz (github.com/openai/human-eval)"


def test_mistakes_are_named(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--corpus DIR"):
        run("eval", str(run_folder / "model"))
    with pytest.raises(InputError, match="there is no corpus at"):
        run("eval", str(run_folder), "--corpus", str(tmp_path / "none"))
    with pytest.raises(InputError, match="neither the name of a model nor a path"):
        run("eval", "no-such", "--corpus", str(tmp_path), "--out", str(tmp_path / "out"))
    with pytest.raises(InputError, match="per_kind is 0"):
        run("eval", str(run_folder), "--per-kind", "0")
    with pytest.raises(InputError, match="which model"):
        run("eval")
    with pytest.raises(InputError, match="--temperature is 'warm'"):
        run("eval", str(run_folder), "--temperature", "warm")
    with pytest.raises(InputError, match="--rescore needs the folder"):
        run("eval", "--rescore")
    with pytest.raises(InputError, match="--judge is 'truth'"):
        run("eval", str(run_folder), "--judge", "truth")
    with pytest.raises(InputError, match=r"run `midspan eval"):
        run("report", str(tmp_path))
