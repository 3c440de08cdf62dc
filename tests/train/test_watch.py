"""What the watcher computes, records and says."""

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from midspan.model.flops import flops_per_token
from midspan.rows import Rows
from midspan.train import load_recipe, prepare_base, train
from midspan.train.device import peak_flops
from midspan.train.display import Display
from midspan.train.metrics import EvalMetrics, StepMetrics, read_all_metrics, read_evaluations, read_metrics
from midspan.train.watch import seen_length

QUIET = Console(quiet=True)
STEP = StepMetrics(
    step=40, loss=1.0, lr=1.9e-4, grad_norm=0.5, tokens=4000, targets=3000, tokens_per_second=812.4, seconds=9.0
)


def test_mfu_is_the_work_of_the_documents_over_the_peak(tiny_recipe: Path, tmp_path: Path) -> None:
    recipe = load_recipe(tiny_recipe, ["train.steps=5", "train.method=full", "train.precision=fp32"])
    train(recipe, tmp_path / "run", console=QUIET)
    rows = Rows(tmp_path / "run" / "rows")
    model, _ = prepare_base(recipe.base, torch.float32)
    peak = peak_flops(torch.device("cpu"), torch.float32)
    assert peak is not None
    before = 0.0
    for number, step in enumerate(read_metrics(tmp_path / "run" / "metrics.jsonl")):
        batch = rows.batch(number, 2)
        lengths = [b - a for row in batch for a, b in zip(row.bounds, row.bounds[1:], strict=False)]
        work = sum(n * flops_per_token(model.config, n) for n in lengths)
        assert step.mfu == pytest.approx(work / (step.seconds - before) / peak)
        assert step.data_seconds is not None
        assert 0 < step.data_seconds < step.seconds - before
        assert step.memory_bytes is not None
        assert step.memory_bytes > 50 << 20, "the interpreter with torch alone is more"
        before = step.seconds
        assert seen_length(batch) == pytest.approx(sum(n * n for n in lengths) / sum(lengths))


def test_a_resumed_run_has_each_record_once(tiny_recipe: Path, tmp_path: Path) -> None:
    from midspan.errors import WorkError

    run = tmp_path / "run"
    settings = ["train.steps=8", "watch.evaluate_every_steps=2", "watch.evaluate_documents=2"]
    train(load_recipe(tiny_recipe, settings), run, console=QUIET)
    whole = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    for folder in ("model", "adapter", "checkpoints/step-00000008"):
        for path in sorted((run / folder).rglob("*"), reverse=True):
            path.unlink()
        (run / folder).rmdir()
    (run / "metrics.jsonl").write_text("".join(whole[:-1]) + '{"kind": "evalu')
    try:
        train(load_recipe(tiny_recipe, settings), run, resume=True, console=QUIET)
    except WorkError:
        pytest.fail("it goes on")
    again = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    volatile = {"seconds", "tokens_per_second", "mfu", "memory_bytes", "data_seconds"}
    expected = [json.loads(line) for line in whole]
    strip = [{k: v for k, v in one.items() if k not in volatile} for one in again]
    assert strip == [{k: v for k, v in one.items() if k not in volatile} for one in expected]


def test_lines_of_an_older_midspan_and_cut_ones_are_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    old = {"step": 1, "loss": 2.0, "lr": 1e-3, "grad_norm": 1.0, "tokens": 9, "targets": 8}
    old |= {"tokens_per_second": 3.0, "seconds": 3.0}
    evaluation = EvalMetrics(
        step=1, tokens=9, bits_per_byte={"a": 1.5}, exact_match={}, middle_bits_per_byte={}, seconds=1.0
    )
    path.write_text(json.dumps(old) + "\n" + evaluation.line() + STEP.line() + STEP.line()[:30])
    assert read_all_metrics(path) == [StepMetrics(**old), evaluation, STEP]
    assert (read_metrics(path), read_evaluations(path)) == ([StepMetrics(**old), STEP], [evaluation])
    assert read_metrics(path)[0].mfu is None
    assert not read_all_metrics(tmp_path / "none")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, "step 40/40  loss 1.000  lr 1.9e-04  812 tokens/s  0:00 left"),
        (
            {"mfu": 0.468, "memory_bytes": 2254857830},
            "step 40/40  loss 1.000  lr 1.9e-04  812 tokens/s  MFU 47 %  2.1 GiB  0:00 left",
        ),
    ],
)
def test_the_console_says(more: dict[str, float], expected: str) -> None:
    from dataclasses import replace

    out = io.StringIO()
    display = Display(Console(file=out, width=60), steps=40, done=0)
    display.step(replace(STEP, **more))
    assert out.getvalue() == expected + "\n"


def test_the_console_says_evaluations() -> None:
    out = io.StringIO()
    Display(Console(file=out, width=40), steps=40, done=0).evaluation(
        EvalMetrics(
            step=7,
            tokens=1,
            bits_per_byte={"[code]": 0.9123},
            exact_match={"psm": 0.25},
            middle_bits_per_byte={"psm": 1.5},
            seconds=1.0,
        )
    )
    assert out.getvalue() == (
        "held out at step 7: [code] 0.912 bits/byte; PSM 25% exact, middle 1.500 bits/byte\n"
    )
