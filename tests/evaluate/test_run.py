"""Evaluations end to end on tiny random models: results.json, what is kept, what is measured and scored again."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from midspan.errors import InputError
from midspan.evaluate import Asks, Evaluation, rescore
from midspan.evaluate import subject as subject_module
from midspan.sandbox import Sandbox
from midspan.train.base import base_model

SETTINGS = {"per_kind": 3, "window": 128}
METRICS = (
    "exact match",
    "edit similarity",
    "bits per byte",
    "bits with the end",
    "bits of the end",
    "ended by itself",
)


def names_of_rows() -> set[str]:
    kinds = ("all", "line", "lines", "span")
    holes = {f"heldout {layout} {kind} {m}" for layout in ("psm", "spm") for kind in kinds for m in METRICS}
    lines = {f"heldout {layout} {kind} exact line" for layout in ("psm", "spm") for kind in ("all", "line")}
    return holes | lines | {"heldout left to right bits per byte"}


def check_schema(results: dict[str, Any], *, compared: bool) -> None:
    assert re.fullmatch(r"[0-9a-f]{12}|v\d.*", results["commit"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:+]+", results["date"])
    assert re.match(r"\d+ cores? \S", results["hardware"])
    assert results["threads"] == torch.get_num_threads()
    assert {row["row"] for row in results["rows"]} == names_of_rows()
    for row in results["rows"]:
        assert row["n"] == (9 if " all " in row["row"] and "exact line" not in row["row"] else 3)
        assert row["unit"] in ("%", "of 100", "bits/byte", "bits")
        assert row["better"] == ("lower" if "bits" in row["row"] else "higher")
        assert row["interval"][0] <= row["ours"] <= row["interval"][1]
        assert ("before" in row) == ("difference_interval" in row) == compared
        if compared:
            assert row["before_interval"][0] <= row["before"] <= row["before_interval"][1]
            assert row["difference"] == pytest.approx(row["ours"] - row["before"], abs=2e-4)
            assert row["difference_interval"][0] <= row["difference"] <= row["difference_interval"][1]
            assert 0 < row["p"] <= 1
    (task,) = results["tasks"]
    assert task["questions"] == task["of"] == 21
    assert task["errors"] == 0
    assert task["versions"]["torch"] == torch.__version__
    assert task["decoding"]["temperatures"] == [0.0]
    assert task["data"][0]["fingerprint"]


def test_a_run_stands_beside_its_base(run_folder: Path) -> None:
    told: list[tuple[str, int, int, float | None]] = []
    results = Evaluation.of(str(run_folder), settings=SETTINGS).run(lambda *words: told.append(words))
    assert results == json.loads((run_folder / "results.json").read_text())
    check_schema(results, compared=True)
    assert "<!doctype html>" in (run_folder / "report.html").read_text()
    for side in ("base", "model"):
        counts = [(done, total) for name, done, total, _ in told if name == f"heldout, {side}"]
        assert counts == sorted(counts)
        assert counts[-1] == (21, 21)
    # The base got sentinels of mean rows, so it was asked in the same layouts as the run.
    assert results["before_model"]["sentinels_added"]
    assert not results["model"]["sentinels_added"]
    lines = (run_folder / "tasks" / "heldout.both" / "samples.jsonl").read_text().splitlines()
    assert len(lines) == 21
    assert {"prompt", "text", "ended", "scores", "seconds"} <= json.loads(lines[0]).keys()


def test_nothing_is_measured_twice(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second evaluation reads no weights; of a model that changed the old answers are set aside."""
    loaded: list[str] = []

    def counted(base: Any, dtype: torch.dtype) -> Any:
        loaded.append(Path(base.where).name)
        return base_model(base, dtype)

    monkeypatch.setattr(subject_module, "base_model", counted)
    evaluation = Evaluation.of(str(run_folder), settings=SETTINGS)
    first = evaluation.run()
    assert loaded == ["base"]
    second = evaluation.run()
    assert loaded == ["base"]
    assert first["rows"] == second["rows"]
    Evaluation.of(str(run_folder), settings={**SETTINGS, "per_kind": 2}).run()
    assert loaded == ["base", "base"]
    weights = run_folder.parent / "base" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-2] ^= 0x40
    weights.write_bytes(data)
    evaluation.run()
    assert loaded == ["base", "base", "base"]
    kept = {path.name for path in (run_folder / "tasks-base").iterdir()}
    assert kept == {"heldout.both", "heldout.both~1", "heldout.both~2"}


def test_an_interrupted_evaluation_goes_on(run_folder: Path) -> None:
    def stopped(what: str, done: int, total: int, score: float | None) -> None:
        if what == "heldout, model" and done >= 5:
            raise KeyboardInterrupt

    evaluation = Evaluation.of(str(run_folder), settings=SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        evaluation.run(stopped)
    assert not (run_folder / "results.json").exists()
    begun: dict[str, int] = {}

    def told(what: str, done: int, total: int, score: float | None) -> None:
        if done:
            begun.setdefault(what, done)

    evaluation.run(told)
    assert begun["heldout, base"] == 21
    assert begun["heldout, model"] >= 5
    assert len((run_folder / "tasks" / "heldout.both" / "samples.jsonl").read_text().splitlines()) == 21


def test_a_model_alone_has_rows_without_before(run_folder: Path, corpus_folder: Path, tmp_path: Path) -> None:
    model = str(run_folder / "model")
    with pytest.raises(InputError, match=r"its corpus is not known; name one with --corpus DIR"):
        Evaluation.of(model, settings=SETTINGS)
    with pytest.raises(InputError, match=r"Name a folder for answers and results with --out DIR"):
        Evaluation.of(model, settings={**SETTINGS, "corpus": corpus_folder})
    out = tmp_path / "deep" / "out"
    settings = {**SETTINGS, "corpus": corpus_folder}
    check_schema(Evaluation.of(model, out=out, settings=settings).run(), compared=False)
    assert not (run_folder / "model" / "results.json").exists()
    base = str(run_folder.parent / "base")
    compared = Evaluation.of(model, base=base, out=out, settings=settings).run()
    check_schema(compared, compared=True)
    assert {p.name for p in out.iterdir()} == {"tasks", "tasks-base", "results.json", "report.html"}


def test_a_model_beside_itself_differs_by_nothing(run_folder: Path, corpus_folder: Path, tmp_path: Path) -> None:
    model = str(run_folder / "model")
    settings = {**SETTINGS, "corpus": corpus_folder}
    results = Evaluation.of(model, base=model, out=tmp_path / "out", settings=settings).run()
    for row in results["rows"]:
        assert (row["difference"], row["difference_interval"], row["p"]) == (0.0, [0.0, 0.0], 1.0)


def test_a_model_without_sentinels_is_refused(
    run_folder: Path, corpus_folder: Path, shared_data: Path, tmp_path: Path
) -> None:
    """Before anything else is asked."""
    base, settings = str(run_folder.parent / "base"), {**SETTINGS, "corpus": corpus_folder}
    for tasks in ("heldout", "humaneval,docstring,infilling-multi-line"):
        with pytest.raises(InputError, match=r"has no infilling sentinels, which (heldout|docstring, infill)"):
            Evaluation.of(base, tasks=tasks, out=tmp_path / "out", data=shared_data, settings=settings).run()
    assert not (tmp_path / "out").exists()


def test_benchmarks_are_sampled_and_scored_again(run_folder: Path, shared_data: Path, tmp_path: Path) -> None:
    """Two tasks of a random model into one folder, one after the other; then scored without the model."""
    try:
        Sandbox(1).close()
    except InputError as error:
        pytest.skip(str(error))
    model, out = str(run_folder / "model"), tmp_path / "out"
    asks = Asks(limit=2, samples=3, temperatures=(0.0, 0.8), max_tokens=6)
    first = Evaluation.of(model, tasks="humaneval", out=out, data=shared_data, asks=asks, ks=(1, 2, 3), workers=1)
    results = first.run()
    assert [(row["row"], row["n"], row["samples"]) for row in results["rows"]] == [
        ("humaneval pass@1 at T=0", 2, 2),
        ("humaneval pass@1 at T=0.8", 2, 6),
        ("humaneval pass@2 at T=0.8", 2, 6),
        ("humaneval pass@3 at T=0.8", 2, 6),
    ]
    (task,) = results["tasks"]
    assert (task["questions"], task["of"]) == (2, 164)
    assert task["data"][0]["upstream"] is True
    assert task["sandbox"]["mode"] == "compat"
    assert task["sandbox"]["tools"]["python"].startswith("Python 3")
    answers = [
        json.loads(line) for line in (out / "tasks/humaneval.official/answers.jsonl").read_text().splitlines()
    ]
    assert len({(a["question"], a["text"]) for a in answers if a["temperature"]}) > 2, "samples differ"
    both = Evaluation.of(model, tasks="santacoder-fim", out=out, data=shared_data, asks=asks).run()
    assert {task["task"] for task in both["tasks"]} == {"humaneval", "santacoder-fim"}
    shutil.rmtree(run_folder / "model")
    again = rescore(out, mode="strict", workers=1)
    assert again["rows"] == both["rows"]
    assert again["tasks"][0]["sandbox"]["mode"] == "strict"
    page = (out / "report.html").read_text()
    assert "Table 2: Python: HumanEval and MBPP" in page
    assert "Code Llama 7B" in (out / "report.md").read_text()
    assert r"\begin{tabular}" in (out / "report.tex").read_text()


def test_larger_limits_have_the_questions_of_smaller_ones(shared_data: Path) -> None:
    from midspan.evaluate.task import Question, Text

    questions = [Question(id=f"q/{n}", prompt=Text(text=""), row={}) for n in range(50)]
    few, more = ([question.id for question in Asks(limit=limit).chosen(questions)] for limit in (5, 20))
    assert (len(few), len(more)) == (5, 20)
    assert set(few) < set(more)
    assert more == sorted(more, key=lambda name: int(name[2:])), "in the task's order"
    assert Asks(limit=99).chosen(questions) == Asks().chosen(questions) == questions


def test_bad_wishes_are_refused(run_folder: Path, tmp_path: Path) -> None:
    model = str(run_folder)
    with pytest.raises(InputError, match="no task is named 'humanevil' \\(did you mean humaneval\\?\\)"):
        Evaluation.of(model, tasks="humanevil", out=tmp_path)
    with pytest.raises(InputError, match="no prompt variant 'x'; it has official, stripped"):
        Evaluation.of(model, tasks="humaneval:x", out=tmp_path)
    with pytest.raises(InputError, match="samples is 0"):
        Asks(samples=0)
    with pytest.raises(InputError, match="name its folder with --data DIR"):
        Evaluation.of(str(run_folder / "model"), tasks="santacoder-fim", out=tmp_path / "o").run()
    with pytest.raises(InputError, match="no answers to score again"):
        rescore(tmp_path)
