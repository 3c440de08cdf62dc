"""Evaluations while training: right, the same every time, and without a trace in the weights."""

import json
import math
from pathlib import Path
from typing import get_args

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from midspan.corpus import HELD_OUT, Corpus, CorpusConfig, build
from midspan.engine import Engine
from midspan.errors import InputError
from midspan.fim import Draws, FimFormat, infill_example, split
from midspan.rows import Source
from midspan.train import load_recipe, prepare_base, train
from midspan.train.metrics import EvalMetrics, read_evaluations, read_metrics
from midspan.train.objective import Objective
from midspan.train.probe import Probe, Text, TrainedLayout

QUIET = Console(quiet=True)


def _probe(corpora: dict[str, Path], base: Path, **amounts: int) -> tuple[Probe, EvalMetrics, Engine]:
    model, tokenizer = prepare_base(str(base), torch.float32)
    sources = [Source(corpus=Corpus.open(folder), name=name, share=0.5) for name, folder in corpora.items()]
    probe = Probe(sources, tokenizer, **{"documents": 4, "holes": 6, "row_tokens": 400, **amounts})
    return probe, probe.measure(Objective(model), step=3, tokens=99), Engine(model, tokenizer)


@pytest.fixture(scope="module")
def other_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("other")
    for number in range(6):
        (folder / "source" / f"pack{number % 2}").mkdir(parents=True, exist_ok=True)
        path = folder / "source" / f"pack{number % 2}" / f"größe{number}.py"
        path.write_text(f"größe_{number} = '€ü{number}'\nprint(größe_{number} * {number})\n", encoding="utf-8")
    build([str(folder / "source")], folder / "built", CorpusConfig(held_out=("pack1",)))
    return folder / "built"


def test_bits_per_byte_are_those_of_the_engine(tiny_base: Path, tiny_corpus: Path, other_corpus: Path) -> None:
    """Each file by itself through the engine gives what packed rows gave, by source; long ones are cut."""
    corpora = {"tiny": tiny_corpus, "other": other_corpus}
    _, found, engine = _probe(corpora, tiny_base, row_tokens=120)
    assert (found.step, found.tokens) == (3, 99)
    assert set(found.bits_per_byte) == set(corpora)
    for name, folder in corpora.items():
        held_out = sorted(Corpus.open(folder).documents(HELD_OUT), key=lambda d: Draws(0, 0, d.id).unit())[:4]
        nats, size = 0.0, 0
        for document in held_out:
            ids = engine.tokenizer.encode(document.text)[:120]
            nats += sum(engine.losses(ids))
            size += len(ids) - 1  # a byte a token
        assert found.bits_per_byte[name] == pytest.approx(nats / math.log(2) / size, rel=1e-4)


def test_holes_are_lines_of_the_files_in_both_layouts(tiny_base: Path, tiny_corpus: Path) -> None:
    """Their losses are those that the engine gives the true middles."""
    _, found, engine = _probe({"tiny": tiny_corpus}, tiny_base, holes=6)
    fim = FimFormat.detect(engine.tokenizer)
    assert fim is not None
    documents = sorted(Corpus.open(tiny_corpus).documents(HELD_OUT), key=lambda d: Draws(0, 0, d.id).unit())[:6]
    assert set(found.middle_bits_per_byte) == set(found.exact_match) == {"psm", "spm"}
    for layout in get_args(TrainedLayout):
        nats, size = 0.0, 0
        for document in documents:
            parts = split(document.text, Draws(0, 1, document.id), {"line": 1.0})
            assert "\n" not in parts.middle
            example = infill_example(engine.tokenizer, fim, parts, layout)
            nats += sum(engine.losses(example.ids)[-example.num_middle : -1])
            size += len(parts.middle.encode())
        assert found.middle_bits_per_byte[layout] == pytest.approx(nats / math.log(2) / size, rel=1e-4)


def test_an_exact_match_is_what_greedy_decoding_writes(
    tiny_base: Path, tiny_corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four holes two have the model's own continuation as their truth; a token is changed in the others."""
    probe, _, engine = _probe({"tiny": tiny_corpus}, tiny_base)
    holes = []
    for n, text in enumerate(("def f(x):", "import os\nos.", "print(1 +", "while True:")):
        ids = engine.tokenizer.encode(text)
        for _ in range(5):
            with torch.no_grad():
                ids.append(int(engine.model(torch.tensor([ids]))[0, -1].argmax()))
        if n % 2:
            ids[-1 - n] = (ids[-1 - n] + 1) % 257
        holes.append(Text(f"layout{n}", ids, 5, 4))
    monkeypatch.setattr(probe, "_holes", holes)
    found = probe.measure(Objective(engine.model), step=0, tokens=0)
    assert found.exact_match == {"layout0": 1.0, "layout1": 0.0, "layout2": 1.0, "layout3": 0.0}


def test_twice_is_the_same_and_the_mode_stays(tiny_base: Path, tiny_corpus: Path) -> None:
    from dataclasses import replace

    _, first, _ = _probe({"tiny": tiny_corpus}, tiny_base)
    again, second, engine = _probe({"tiny": tiny_corpus}, tiny_base)
    assert replace(first, seconds=0.0) == replace(second, seconds=0.0)
    before = torch.get_rng_state()
    for training in (True, False):
        objective = Objective(engine.model)
        objective.train(training)
        again.measure(objective, step=0, tokens=0)
        assert engine.model.training is training
    assert torch.equal(before, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in engine.model.parameters())


@pytest.mark.parametrize("method", ["layers", "lora"])
def test_a_run_with_evaluations_gives_the_same_bits(tiny_recipe: Path, tmp_path: Path, method: str) -> None:
    settings = [f"train.method={method}", "train.steps=9"]
    watched = [*settings, "watch.evaluate_every_steps=4", "watch.evaluate_holes=4", "watch.evaluate_documents=3"]
    assert load_recipe(tiny_recipe, settings).hash() == load_recipe(tiny_recipe, watched).hash()
    for name, asked in (("plain", settings), ("watched", watched)):
        train(load_recipe(tiny_recipe, asked), tmp_path / name, console=QUIET)
    plain, seen = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("plain", "watched"))
    assert [(s.loss, s.grad_norm) for s in plain] == [(s.loss, s.grad_norm) for s in seen]
    tensors = [load_file(tmp_path / name / "model" / "model.safetensors") for name in ("plain", "watched")]
    assert all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())
    assert [e.step for e in read_evaluations(tmp_path / "watched" / "metrics.jsonl")] == [0, 4, 8, 9]
    kinds = [json.loads(line).get("kind") for line in (tmp_path / "watched" / "metrics.jsonl").open()]
    assert kinds == ["evaluation", *[None] * 4, "evaluation", *[None] * 4, "evaluation", None, "evaluation"]
    assert not read_evaluations(tmp_path / "plain" / "metrics.jsonl")


def test_nothing_held_out_is_said_before_a_run_begins(tiny_recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.py").write_text("print('a file of some length, to be kept')\n")
    build([str(tmp_path / "source")], tmp_path / "corpus", CorpusConfig())
    recipe = load_recipe(tiny_recipe, [f"data.corpus={tmp_path / 'corpus'}", "watch.evaluate_every_steps=1"])
    with pytest.raises(InputError, match="no held-out file to evaluate on while training; build it"):
        train(recipe, tmp_path / "run", console=QUIET)
    assert not (tmp_path / "run").exists()
