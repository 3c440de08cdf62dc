"""A small corpus of real Python files, and tiny models, for the evaluation's tests."""

import inspect
import json
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from engine.tiny import tiny_model, tiny_tokenizer
from midspan import corpus
from midspan.corpus import Corpus
from midspan.engine import Engine
from midspan.errors import InputError
from midspan.model.weights import write_hf
from midspan.sandbox import Sandbox
from midspan.tokenizer import Tokenizer
from midspan.tokenizer.chat_templates import with_chat

HOSTILE = "</script><b>&\"'</pre>"


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def chat_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """With a chat format."""
    return with_chat(tokenizer)


@pytest.fixture(scope="module")
def jail() -> Iterator[Sandbox]:
    """One worker; the test is skipped where no jail can be made."""
    try:
        sandbox = Sandbox(1)
    except InputError as error:
        pytest.skip(str(error))
    with sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three packages, two of them held out; one held-out file is hostile to HTML, one longer than a window."""
    source = tmp_path_factory.mktemp("source")
    files = {
        "alpha/wrap.py": inspect.getsource(textwrap),
        "alpha/pages.py": "".join(f"x_{i} = '{HOSTILE}'\nprint(x_{i})\n" for i in range(6)),
        "alpha/small.py": "def twice(x):\n    return 2 * x\n\n\nprint(twice(3))\n",
        "alpha/umlaut.py": "größe = 'ü€😀'\nprint(größe * 3)\nfür = [größe]\n",
        "beta/shapes.py": "class Shape:\n    sides = 4\n\n    def area(self, a, b):\n        return a * b\n",
        "beta/one.py": "x = 1\n",
        "gamma/train.py": "import os\n\nprint(os.getcwd())\n",
    }
    for name, text in files.items():
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(text, encoding="utf-8")
    folder = source.parent / "corpus"
    corpus.build([str(source)], folder, corpus.CorpusConfig(held_out=("alpha", "beta")))
    return folder


@pytest.fixture(scope="session")
def held_out(corpus_folder: Path) -> Corpus:
    return Corpus.open(corpus_folder)


@pytest.fixture(scope="session")
def engine(tokenizer: Tokenizer) -> Engine:
    return Engine(tiny_model(tokenizer.vocab_size, max_positions=512, scale=0.15), tokenizer)


@pytest.fixture
def run_folder(tmp_path: Path, corpus_folder: Path, tokenizer: Tokenizer) -> Path:
    """A run as training leaves it: recipe, metrics and a model; its base is a model without sentinels."""
    plain = tiny_tokenizer(sentinels=False)
    base, run = tmp_path / "base", tmp_path / "run"
    for folder, pieces, seed in ((base, plain, 0), (run / "model", tokenizer, 1)):
        model = tiny_model(pieces.vocab_size, max_positions=512, scale=0.15, seed=seed)
        write_hf(folder, model, model.config, tokenizer=pieces, dtype=torch.float32)
    from midspan.train.recipe import DataRecipe, Recipe, TrainConfig

    recipe = Recipe(
        name=f"tiny {HOSTILE}",
        base=str(base),
        data=DataRecipe(corpus=str(corpus_folder)),
        train=TrainConfig(steps=3, rows_per_step=1, precision="fp32"),
    )
    (run / "recipe.json").write_text(json.dumps({**recipe.resolved(), "hash": recipe.hash()}))
    lines = [
        {"step": s, "loss": 5.0 / s, "lr": 1e-3, "grad_norm": 1.0, "tokens": 512 * s, "targets": 400 * s}
        | {"tokens_per_second": 256.0, "seconds": 2.0 * s}
        for s in (1, 2, 3)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run
