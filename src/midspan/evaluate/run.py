"""A model or a run → results.json and a page: the held-out task on it and on its base, beside each other.

The base is measured first and kept in `eval-before.json` under a fingerprint of its weights and of every passage
asked, so an evaluation that is interrupted or repeated goes on with the model itself. A base that cannot infill
gets the same sentinel rows that training starts from: what it scores is where training began.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import xxhash

from midspan import __version__
from midspan.cache import resolve_model
from midspan.corpus import Corpus
from midspan.engine import Engine
from midspan.errors import InputError
from midspan.evaluate.report import write_report
from midspan.evaluate.results import TaskResult, compare
from midspan.evaluate.tasks.heldout import KINDS, HeldOutConfig, Passage, infill_all, passages, read_all
from midspan.files import write_json
from midspan.fim import with_sentinels
from midspan.model import Llama
from midspan.model.weights import tokenizer_path
from midspan.tokenizer import Tokenizer
from midspan.train import prepare_base, read_recipe

BEFORE, RESULTS = "eval-before.json", "results.json"

Progress = Callable[[str, int, int], None]
"""Called with what is measured, and the answers that are there and in all."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is measured, on what, beside what."""

    model: str
    """A name, a checkpoint's path or a run's folder."""
    corpus: Path
    base: str | None
    """Measured as `before`."""
    out: Path | None
    """Folder of results.json and the page; None to write nothing."""
    dtype: torch.dtype = torch.bfloat16
    config: HeldOutConfig = field(default_factory=HeldOutConfig)

    @staticmethod
    def of(
        model: str,
        *,
        corpus: Path | None = None,
        base: str | None = None,
        out: Path | None = None,
        config: HeldOutConfig,
    ) -> Evaluation:
        """What is not given comes from the recipe, where the model is a run.

        Raises:
            InputError: no corpus is given, and the model is no run that names one.
        """
        run, dtype = Path(model), torch.bfloat16
        if (run / "recipe.json").is_file():
            recipe = read_recipe(run)
            corpus, base, out = corpus or Path(recipe["data"]["corpus"]), base or recipe["base"], out or run
            dtype = torch.float32 if recipe["train"]["precision"] == "fp32" else dtype
        if corpus is None:
            raise InputError(f"{model} is no run, so its corpus is not known; name one with --corpus DIR")
        return Evaluation(model=model, corpus=corpus, base=base, out=out, dtype=dtype, config=config)

    def run(self, progress: Progress = lambda *_: None) -> dict[str, Any]:
        """Measure the base, unless that was done before, and the model; write and return results.json.

        Raises:
            InputError: a model or the corpus is missing or not fit.
        """
        path = resolve_model(self.model)
        base = None if self.base is None else resolve_model(self.base)
        corpus = Corpus.open(self.corpus)
        tokenizer = with_sentinels(Tokenizer.load(tokenizer_path(path)))
        asked = passages(corpus, tokenizer, self.config)
        before = None if base is None else self._before(base, asked, progress)
        after = self._measure(path, "model", asked, progress)
        results = compare(after, before, name=f"held-out infilling of {self.model}")
        results["before_model"], results["corpus"] = self.base, corpus.fingerprint
        results["config"] = {**asdict(self.config), "layouts": list(self.config.layouts)}
        if self.out is not None:
            self.out.mkdir(parents=True, exist_ok=True)
            write_json(self.out / RESULTS, results)
            write_report(self.out)
        return results

    def _measure(self, path: Path, what: str, asked: list[Passage], progress: Progress) -> TaskResult:
        model, tokenizer = prepare_base(str(path), self.dtype)
        return evaluate(model, tokenizer, asked, self.config, lambda done, total: progress(what, done, total))

    def _before(self, base: Path, asked: list[Passage], progress: Progress) -> TaskResult:
        """The base's result, from the file if it is of this base and these passages."""
        fingerprint = _fingerprint(base, asked, [str(self.dtype), asdict(self.config)])
        file = None if self.out is None else self.out / BEFORE
        if file is not None and file.is_file():
            try:
                saved = json.loads(file.read_text(encoding="utf-8"))
                if saved["fingerprint"] == fingerprint:
                    return TaskResult.from_json(saved)
            except (ValueError, KeyError, TypeError):
                pass  # damaged or of an older Midspan: measured again
        result = self._measure(base, "base", asked, progress)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, {"fingerprint": fingerprint, **result.to_json()})
        return result


def evaluate(
    model: Llama,
    tokenizer: Tokenizer,
    asked: Sequence[Passage],
    config: HeldOutConfig,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> TaskResult:
    """Put a model to the held-out task.

    Raises:
        InputError: it cannot infill, or a passage does not fit it.
    """
    engine, begun = Engine(model, tokenizer), time.monotonic()
    num_infills = len(asked) * len(KINDS) * len(config.layouts)
    total = num_infills + len(asked)
    infills = infill_all(engine, asked, config, lambda done: progress(done, total))
    readings = read_all(engine, asked, lambda done: progress(num_infills + done, total))
    return TaskResult(infills=infills, readings=readings, seconds=time.monotonic() - begun)


def _fingerprint(path: Path, asked: Sequence[Passage], settings: Sequence[Any]) -> str:
    """The identity of a checkpoint's bytes, the passages and the settings."""
    digest = xxhash.xxh3_128(__version__.encode())
    for file in sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]:
        with file.open("rb") as stream:
            digest.update(file.name.encode())
            while block := stream.read(1 << 24):
                digest.update(block)
    for passage in asked:
        digest.update(json.dumps([passage.document.id, passage.text, passage.holes]).encode())
    digest.update(json.dumps(settings).encode())
    return digest.hexdigest()
