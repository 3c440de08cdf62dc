"""A step that is not finite ends the run with its rows and documents, and harms nothing that is saved."""

import re
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch.utils.hooks import RemovableHandle

from midspan.corpus import Corpus, CorpusConfig, build
from midspan.errors import WorkError
from midspan.model import Llama
from midspan.model.weights import write_hf
from midspan.rows import Row, Rows, Source
from midspan.tokenizer import Tokenizer
from midspan.train import Recipe, load_recipe, prepare_base, train
from midspan.train.checkpoint import Checkpoints
from midspan.train.culprits import explain
from midspan.train.learner import Learner
from midspan.train.metrics import read_metrics
from midspan.train.objective import Objective
from midspan.train.ranks import Ranks
from train.ranks import on_processes

QUIET = Console(quiet=True)
ALONE = Ranks(0, 1, torch.device("cpu"), None)
POISON = "~"
"""A character of one file alone; it is what breaks a step."""


@pytest.fixture(scope="module")
def poisoned_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("poisoned")
    (folder / "source" / "pack").mkdir(parents=True)
    for number in range(24):
        text = f"def function_{number}(x):\n    return x * {number}\n"
        (folder / "source" / "pack" / f"m{number}.py").write_text(
            text + (f"y = {POISON}x\n" if number == 7 else "")
        )
    build([str(folder / "source")], folder / "built", CorpusConfig())
    return folder / "built"


def _break(model: Llama, token: int, *, forward: bool) -> list[RemovableHandle]:
    """Make a model's first layer give what is not finite wherever a token stands: its output, or its gradient."""
    places: list[torch.Tensor] = []

    def note(_: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        places.append(args[0] == token)

    def spoil(_: torch.nn.Module, __: object, out: torch.Tensor) -> torch.Tensor:
        where, bad = places.pop()[..., None], out.new_tensor(float("nan"))
        if forward:
            return torch.where(where, bad, out)
        if out.requires_grad:
            out.register_hook(lambda grad: torch.where(where, bad, grad))
        return out

    first = model.model.layers[0]
    return [model.model.register_forward_pre_hook(note), first.register_forward_hook(spoil)]


def _poisoned(rows: Rows, token: int) -> list[int]:
    return [n for n in range(len(rows)) if token in rows[n].ids]


@pytest.mark.parametrize(("method", "world"), [("full", 1), ("lora", 1), ("full", 2)])
def test_a_gradient_that_is_not_finite_under_a_loss_that_is(
    tiny_recipe: Path,
    tmp_path: Path,
    poisoned_corpus: Path,
    method: str,
    world: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many ranks share the step, rank 0 names the row that one of them has, and all of them stop."""

    class BrokenLearner(Learner):
        def __init__(self, recipe: Recipe, ranks: Ranks) -> None:
            super().__init__(recipe, ranks)
            (poison,) = self.tokenizer.encode(POISON)
            _break(self.model, poison, forward=False)

    def trained() -> str:
        try:
            train(recipe, run, console=QUIET)
        except (WorkError, SystemExit) as error:
            return str(error)
        return "finished"

    monkeypatch.setattr("midspan.train.loop.Learner", BrokenLearner)
    recipe = load_recipe(
        tiny_recipe,
        [
            "checkpoint.every_steps=1",
            f"data.corpus={poisoned_corpus}",
            f"train.method={method}",
            "data.row_tokens=128",
            "data.seed=3",
            "train.steps=20",
        ],
    )
    run = tmp_path / "run"
    sentence, *others = on_processes(world, trained) if world > 1 else [trained()]
    assert others == ["1"] * (world - 1), "rank 0 alone says it"
    rows = Rows(run / "rows")
    (token,) = prepare_base(recipe.base, torch.float32)[1].encode(POISON)
    step = min(_poisoned(rows, token)) // 2
    assert f"the norm of the gradient is nan at step {step + 1}" in sentence
    culprits = [n for n in _poisoned(rows, token) if n // 2 == step]
    assert [int(n) for n in re.findall(r"row (\d+) caused it", sentence)] == culprits
    assert re.findall(r"(pack/\S+) of ", sentence) == ["pack/m7.py"] * len(culprits), "the file, and no other"
    assert [s.step for s in read_metrics(run / "metrics.jsonl")] == [*range(1, step + 1)]
    assert step > 0, "something is saved that could have been harmed"
    assert f"step-{step:08d} is whole" in sentence
    learner = Learner(recipe, ALONE)
    done = Checkpoints(run / "checkpoints", ALONE).load(learner.optimizer.state())
    assert done is not None
    assert done.step == step
    assert all(torch.isfinite(tensor).all() for tensor in learner.optimizer.state().values())


def test_a_loss_that_is_not_finite(tiny_recipe: Path, tmp_path: Path, poisoned_corpus: Path) -> None:
    settings = [f"data.corpus={poisoned_corpus}", "data.row_tokens=128", "data.seed=3", "train.steps=8"]
    recipe, run = load_recipe(tiny_recipe, settings), tmp_path / "run"
    train(recipe, run, console=QUIET)
    rows = Rows(run / "rows")
    model, tokenizer = prepare_base(recipe.base, torch.float32)
    (token,) = tokenizer.encode(POISON)
    hooks = _break(model, token, forward=True)
    sources = [Source(corpus=Corpus.open(poisoned_corpus))]
    batch = [rows[n] for n in range(len(rows))]
    sentence = explain(Objective(model), ALONE, batch, 100, sources, of_loss=True)
    poisoned = _poisoned(rows, token)
    assert 0 < len(poisoned) < len(rows)
    told, _, others = sentence.partition("and the rows")
    named = re.findall(r"row (\d+) caused it", told) + re.findall(r"\d+", others.partition(":")[0])
    assert [int(n) - 100 for n in named] == poisoned
    assert set(re.findall(r"(pack/\S+) of ", sentence)) == {"pack/m7.py"}
    for hook in hooks:
        hook.remove()
    for of_loss in (True, False):
        assert "no row of 100 to" in explain(Objective(model), ALONE, batch, 100, sources, of_loss=of_loss)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_weights_that_are_not_finite_are_told_apart(tiny_recipe: Path, tmp_path: Path, tiny_base: Path) -> None:
    model, tokenizer = prepare_base(str(tiny_base), torch.float32)
    with torch.no_grad():
        model.model.norm.weight[0] = float("inf")
    write_hf(tmp_path / "broken", model, model.config, tokenizer=tokenizer, dtype=torch.float32)
    with pytest.raises(
        WorkError, match=r"the loss is (nan|inf) at step 1: .*\(model.norm.weight is the first of 1\)"
    ):
        train(load_recipe(tiny_recipe, [f"base={tmp_path / 'broken'}"]), tmp_path / "run", console=QUIET)
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_all_rows_of_a_step(tiny_base: Path, poisoned_corpus: Path) -> None:
    """Where every row gives it, the sentence doubts the weights."""
    model, tokenizer = prepare_base(str(tiny_base), torch.float32)
    model.model.embed_tokens.register_forward_hook(lambda *args: args[-1] * float("nan"))
    rows = [_row(tokenizer, 5), _row(tokenizer, 6)]
    sentence = explain(
        Objective(model), ALONE, rows, 0, [Source(corpus=Corpus.open(poisoned_corpus))], of_loss=True
    )
    assert "which are all of the step: the weights are more likely at fault" in sentence
    assert "a document (id 5)" in sentence, "an id that the corpus does not know is told as it is"


def _row(tokenizer: Tokenizer, document: int) -> Row:
    import numpy as np

    from midspan.rows.segments import SEGMENT

    ids = np.array(tokenizer.encode("x = 1\n"), np.int64)
    segments = np.zeros(1, SEGMENT)
    segments["end"], segments["document"] = len(ids), document
    return Row(ids, segments)
