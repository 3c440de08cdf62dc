"""Evaluations end to end on tiny random models: results.json, the kept base, and rows against plain formulas."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.tiny import tiny_model
from midspan.corpus import Corpus
from midspan.engine import Engine
from midspan.errors import InputError
from midspan.evaluate import Evaluation, HeldOutConfig, TaskResult, compare, evaluate, passages
from midspan.evaluate import run as run_module
from midspan.evaluate.metrics import edit_similarity
from midspan.train import prepare_base

CONFIG = HeldOutConfig(per_kind=3, max_tokens=128)
METRICS = (
    "exact match",
    "edit similarity",
    "bits per byte",
    "bits with the end",
    "bits of the end",
    "ended by itself",
)


def names_of_rows() -> list[str]:
    return [
        *(
            f"{layout} {kind} {m}"
            for layout in ("psm", "spm")
            for kind in ("all", "line", "lines", "span")
            for m in METRICS
        ),
        "left to right bits per byte",
    ]


def check_schema(results: dict[str, Any], *, compared: bool) -> None:
    assert re.fullmatch(r"[0-9a-f]{12}|v\d.*", results["commit"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", results["date"])
    assert re.match(r"\d+ cores? \S", results["hardware"])
    assert results["threads"] == torch.get_num_threads()
    assert [row["row"] for row in results["rows"]] == names_of_rows()
    for row in results["rows"]:
        assert row["n"] == (9 if " all " in row["row"] else 3)
        assert row["unit"] in ("%", "of 100", "bits/byte", "bits")
        assert row["better"] == ("lower" if "bits" in row["row"] else "higher")
        assert row["interval"][0] <= row["ours"] <= row["interval"][1]
        assert ("before" in row) == ("difference_interval" in row) == compared
        if compared:
            assert row["before_interval"][0] <= row["before"] <= row["before_interval"][1]
            assert row["difference"] == pytest.approx(row["ours"] - row["before"], abs=2e-4)
            assert row["difference_interval"][0] <= row["difference"] <= row["difference_interval"][1]
    assert len(results["examples"]) == 18
    for example in results["examples"]:
        assert {"path", "kind", "layout", "prefix", "suffix", "truth", "after", "after_ended"} <= example.keys()
        assert ("before" in example) == compared


def test_a_run_stands_beside_its_base(run_folder: Path) -> None:
    told: list[tuple[str, int, int]] = []
    results = Evaluation.of(str(run_folder), config=CONFIG).run(lambda *words: told.append(words))
    assert results == json.loads((run_folder / "results.json").read_text())
    check_schema(results, compared=True)
    assert "<!doctype html>" in (run_folder / "report.html").read_text()
    for what in ("base", "model"):
        counts = [(done, total) for name, done, total in told if name == what]
        assert counts == sorted(counts)
        assert counts[-1] == (21, 21)
    # The base got sentinels of mean rows, so it was asked in the same layouts as the run.
    assert {e["before"] != e["after"] for e in results["examples"]} == {True}


def test_the_base_is_measured_once(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second evaluation takes the base from its file, unless the base, the passages or the file changed."""
    measured: list[str] = []

    def counted(name: str, dtype: torch.dtype) -> Any:
        measured.append(Path(name).name)
        return prepare_base(name, dtype)

    monkeypatch.setattr(run_module, "prepare_base", counted)
    evaluation = Evaluation.of(str(run_folder), config=CONFIG)
    first = evaluation.run()
    assert measured == ["base", "model"]
    second = evaluation.run()
    assert measured == ["base", "model", "model"]
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    Evaluation.of(str(run_folder), config=replace(CONFIG, seed=1)).run()
    assert measured == ["base", "model", "model", "base", "model"]
    (run_folder / "eval-before.json").write_text("{")
    evaluation.run()
    assert measured[5:] == ["base", "model"]
    weights = run_folder.parent / "base" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-2] ^= 0x40
    weights.write_bytes(data)
    evaluation.run()
    assert measured[7:] == ["base", "model"]


def test_an_interrupted_evaluation_keeps_the_base(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(what: str, done: int, total: int) -> None:
        if what == "model":
            raise KeyboardInterrupt

    evaluation = Evaluation.of(str(run_folder), config=CONFIG)
    with pytest.raises(KeyboardInterrupt):
        evaluation.run(stopped)
    assert not (run_folder / "results.json").exists()
    told: set[str] = set()
    evaluation.run(lambda what, *_: told.add(what))
    assert told == {"model"}


def test_a_model_alone_has_rows_without_before(run_folder: Path, corpus_folder: Path, tmp_path: Path) -> None:
    model = str(run_folder / "model")
    with pytest.raises(InputError, match=r"its corpus is not known; name one with --corpus DIR"):
        Evaluation.of(model, config=CONFIG)
    results = Evaluation.of(model, corpus=corpus_folder, config=CONFIG).run()
    check_schema(results, compared=False)
    assert not (run_folder / "model" / "results.json").exists()
    out = tmp_path / "deep" / "out"
    base = str(run_folder.parent / "base")
    compared = Evaluation.of(model, corpus=corpus_folder, base=base, out=out, config=CONFIG).run()
    check_schema(compared, compared=True)
    assert {p.name for p in out.iterdir()} == {"eval-before.json", "results.json", "report.html"}


@pytest.fixture(scope="module")
def two_results(engine: Engine, held_out: Corpus) -> tuple[TaskResult, TaskResult]:
    asked = passages(held_out, engine.tokenizer, replace(CONFIG, per_kind=5))
    other = tiny_model(engine.tokenizer.vocab_size, max_positions=512, scale=0.1, seed=5)
    return evaluate(engine.model, engine.tokenizer, asked, CONFIG), evaluate(
        other, engine.tokenizer, asked, CONFIG
    )


def test_rows_are_plain_formulas(two_results: tuple[TaskResult, TaskResult]) -> None:
    after, before = two_results
    # A random model is never right: let some answers be.
    infills = [replace(i, written=i.truth, ended=True) if n % 4 == 0 else i for n, i in enumerate(after.infills)]
    after = replace(after, infills=infills)
    rows = {row["row"]: row for row in compare(after, before, name="x")["rows"]}
    for layout in ("psm", "spm"):
        for kind in ("line", "lines", "span"):
            for column, result in (("ours", after), ("before", before)):
                chosen = [i for i in result.infills if (i.layout, i.kind) == (layout, kind)]
                n = len(chosen)
                assert n == 5
                expected = {
                    "exact match": 100 * sum(i.written == i.truth for i in chosen) / n,
                    "edit similarity": sum(edit_similarity(i.written, i.truth) for i in chosen) / n,
                    "bits per byte": sum(i.nats for i in chosen)
                    / math.log(2)
                    / sum(len(i.truth.encode()) for i in chosen),
                    "bits of the end": sum(i.end_nats for i in chosen) / math.log(2) / n,
                    "ended by itself": 100 * sum(i.ended for i in chosen) / n,
                }
                for name, value in expected.items():
                    assert rows[f"{layout} {kind} {name}"][column] == pytest.approx(value, abs=1e-4)
    reading = rows["left to right bits per byte"]
    nats, size = (sum(getattr(r, name) for r in after.readings) for name in ("nats", "num_bytes"))
    assert reading["ours"] == pytest.approx(nats / math.log(2) / size, abs=1e-4)


def test_a_model_beside_itself_differs_by_nothing(two_results: tuple[TaskResult, TaskResult]) -> None:
    for row in compare(two_results[0], two_results[0], name="x")["rows"]:
        assert (row["difference"], row["difference_interval"]) == (0.0, [0.0, 0.0])


def test_results_survive_json(two_results: tuple[TaskResult, TaskResult]) -> None:
    for result in two_results:
        assert TaskResult.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_different_holes_are_not_compared(two_results: tuple[TaskResult, TaskResult]) -> None:
    after, before = two_results
    with pytest.raises(InputError, match="not asked about the same holes"):
        compare(after, replace(before, infills=before.infills[::-1]), name="x")


def test_a_model_without_sentinels_is_refused(held_out: Corpus, run_folder: Path) -> None:
    from midspan.model.weights import load_model
    from midspan.tokenizer import Tokenizer

    base = run_folder.parent / "base"
    tokenizer = Tokenizer.load(base)
    asked = passages(held_out, tokenizer, CONFIG)
    with pytest.raises(InputError, match="cannot infill in the layouts psm, spm"):
        evaluate(load_model(base), tokenizer, asked, CONFIG)
