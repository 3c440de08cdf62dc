"""The tasks by their names, and what each can be asked with."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from midspan.errors import InputError
from midspan.evaluate.baseline import INFO, TOXIC, TRUTH
from midspan.evaluate.data import Data, Source
from midspan.evaluate.task import Task
from midspan.evaluate.tasks import (
    apps,
    bold,
    completion,
    context_perplexity,
    docstring,
    gsm8k,
    heldout,
    humaneval,
    humanevalpack,
    infilling,
    keys,
    mbpp,
    multipl_e,
    perplexity,
    red_team,
    santacoder,
    toxigen,
    truthfulqa,
    types,
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A task that has a name."""

    make: Callable[..., Task]
    """Called with `data`, `variant` and what else it takes of the settings."""
    variants: tuple[str, ...]
    """Prompts by name; the first one is the default."""
    about: str
    sources: Callable[[str], tuple[Source, ...]] = lambda variant: ()
    """The files that a variant reads."""
    takes: tuple[str, ...] = ()
    """Names of settings."""
    needs: tuple[str, ...] = ()
    """Those that it cannot do without."""
    infills: bool = False
    """Whether the model must have sentinels."""
    options: dict[str, Any] = field(default_factory=dict)


def _entries() -> dict[str, Entry]:
    found = {
        "humaneval": Entry(
            make=humaneval.HumanEval,
            variants=humaneval.VARIANTS,
            about="164 Python functions from a docstring",
            sources=lambda variant: (humaneval.SOURCE,),
        ),
        "mbpp": Entry(
            make=mbpp.Mbpp,
            variants=mbpp.VARIANTS,
            about="500 small Python tasks from a sentence and three tests",
            sources=lambda variant: (mbpp.SANITIZED if variant == "sanitized" else mbpp.SOURCE,),
        ),
        "heldout": Entry(
            make=heldout.HeldOut,
            variants=heldout.VARIANTS,
            about="holes in files of a corpus that training never saw, beside the base",
            takes=("corpus", "vocabulary", "per_kind", "window"),
            needs=("corpus",),
            infills=True,
        ),
        "santacoder-fim": Entry(
            make=santacoder.SantaCoder,
            variants=santacoder.VARIANTS,
            about="one line of a solution in Python, Java, JavaScript; exact match",
            sources=lambda variant: (santacoder.SOURCE,),
            infills=True,
        ),
    }
    for kind, source in infilling.SOURCES.items():
        found[f"infilling-{kind}"] = Entry(
            make=infilling.Infilling,
            variants=infilling.VARIANTS,
            about=f"HumanEval's solutions with a hole: {kind.replace('-', ' ')}",
            sources=lambda variant, source=source: (source,),  # type: ignore[misc]
            options={"kind": kind},
            infills=True,
        )
    found |= _of_languages() | _of_text()
    return dict(sorted(found.items()))


def _of_languages() -> dict[str, Entry]:
    """Tasks of several languages, whole and by one language each; contests."""
    found = {}
    for suffix, asked in (("", multipl_e.PAPER), *((f"-{each}", (each,)) for each in multipl_e.LANGUAGES)):
        found[f"multipl-e{suffix}"] = Entry(
            make=multipl_e.MultiplE,
            variants=multipl_e.VARIANTS,
            about=f"HumanEval in {', '.join(asked)}",
            sources=lambda variant, asked=asked: tuple(map(multipl_e.source_of, asked)),  # type: ignore[misc]
            options={"asked": asked, "name": f"multipl-e{suffix}"},
        )
    for suffix, asked in (("", (*humanevalpack.LANGUAGES,)), *((f"-{e}", (e,)) for e in humanevalpack.LANGUAGES)):
        found[f"humanevalpack{suffix}"] = Entry(
            make=humanevalpack.HumanEvalPack,
            variants=humanevalpack.VARIANTS,
            about=f"functions to write, or to mend, in {', '.join(asked)}",
            sources=lambda variant, asked=asked: tuple(map(humanevalpack.source_of, asked)),  # type: ignore[misc]
            options={"asked": asked, "name": f"humanevalpack{suffix}"},
        )
    found["apps"] = Entry(
        make=apps.Apps,
        variants=apps.VARIANTS,
        about="5,000 problems of programming contests, with standard input or a function",
        sources=lambda variant: (apps.TEST, apps.TRAIN) if variant == "two-shot" else (apps.TEST,),
    )
    found["apps-sample"] = Entry(
        make=apps.Apps,
        variants=apps.VARIANTS,
        about="the same, on a folder of training problems: no score to compare",
        sources=lambda variant: (apps.SAMPLE,),
        options={"source": apps.SAMPLE, "name": "apps-sample"},
    )
    return found


def _of_text() -> dict[str, Entry]:
    """Tasks whose answers are not run."""
    return {
        "gsm8k": Entry(
            make=gsm8k.Gsm8k,
            variants=gsm8k.VARIANTS,
            about="1,319 problems of school mathematics",
            sources=lambda variant: (gsm8k.TEST, gsm8k.TRAIN) if variant == "8-shot" else (gsm8k.TEST,),
        ),
        "docstring": Entry(
            make=docstring.Docstring,
            variants=docstring.VARIANTS,
            about="docstrings of Python functions, CodeXGLUE's code-to-text",
            sources=lambda variant: (docstring.SOURCE,),
            infills=True,
        ),
        "lcc": Entry(
            make=completion.Lcc,
            variants=completion.VARIANTS,
            about="the next line of long files in Python, Java, C#",
            sources=lambda variant: tuple(map(completion.source_of, completion.LANGUAGES)),
        ),
        "lcc-like": Entry(
            make=completion.LccLike,
            variants=completion.VARIANTS,
            about="the next line of a corpus's held-out files: a stand-in for lcc",
            takes=("corpus",),
            needs=("corpus",),
        ),
        "types-like": Entry(
            make=types.TypesLike,
            variants=types.VARIANTS,
            about="what functions of a corpus's held-out Python return, by infilling",
            takes=("corpus",),
            needs=("corpus",),
            infills=True,
        ),
        "perplexity": Entry(
            make=perplexity.Perplexity,
            variants=perplexity.VARIANTS,
            about="a corpus's held-out files, read from left to right, by language",
            takes=("corpus",),
            needs=("corpus",),
        ),
        "context-perplexity": Entry(
            make=context_perplexity.ContextPerplexity,
            variants=context_perplexity.VARIANTS,
            about="perplexity by position in a corpus's long held-out files",
            takes=("corpus",),
            needs=("corpus",),
        ),
        "key-retrieval": Entry(
            make=keys.KeyRetrieval,
            variants=keys.VARIANTS,
            about="one function in a long file of a corpus's held-out Python",
            takes=("corpus",),
            needs=("corpus",),
        ),
        "red-team": Entry(
            make=red_team.RedTeam,
            variants=red_team.VARIANTS,
            about="100 harmful requests and their harmless twins: refusals and false refusals, by rules",
        ),
        "truthfulqa": Entry(
            make=truthfulqa.TruthfulQa,
            variants=truthfulqa.VARIANTS,
            about="817 questions that many answer wrongly, answered; judges of truth and information",
            sources=lambda variant: (truthfulqa.SOURCE, TRUTH, INFO),
        ),
        "truthfulqa-mc": Entry(
            make=truthfulqa.TruthfulQaChoices,
            variants=truthfulqa.VARIANTS,
            about="the same questions, with answers to choose from: MC1, MC2",
            sources=lambda variant: (truthfulqa.CHOICES,),
        ),
        "toxigen": Entry(
            make=toxigen.ToxiGen,
            variants=toxigen.VARIANTS,
            about="6,514 sentences about 13 groups to go on with; a judge of toxicity",
            sources=lambda variant: (TOXIC,),
        ),
        "bold": Entry(
            make=bold.Bold,
            variants=bold.VARIANTS,
            about="23,679 beginnings about 43 groups to go on with; VADER's sentiment",
            sources=lambda variant: tuple(bold.SOURCES.values()),
        ),
    }


TASKS: dict[str, Entry] = _entries()


@dataclass(frozen=True, kw_only=True)
class Named:
    """A task and a prompt variant, as a user writes them: `humaneval` or `humaneval:stripped`."""

    name: str
    variant: str

    @property
    def folder(self) -> str:
        """Where its answers are, below an evaluation's folder."""
        return f"{self.name}.{self.variant}"

    @staticmethod
    def parse(text: str, variant: str | None = None) -> Named:
        """Read NAME or NAME:VARIANT.

        Args:
            text: what the user wrote.
            variant: for a name without one; the task's first if None.

        Raises:
            InputError: there is no such task or variant.
        """
        name, _, asked = text.strip().partition(":")
        if name not in TASKS:
            near = difflib.get_close_matches(name, TASKS, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise InputError(f"no task is named {name!r}{hint}; `midspan eval --doctor` shows all names")
        variants = TASKS[name].variants
        chosen = asked or variant or variants[0]
        if chosen not in variants:
            raise InputError(f"{name} has no prompt variant {chosen!r}; it has {', '.join(variants)}")
        return Named(name=name, variant=chosen)


def make(named: Named, data: Data, settings: dict[str, Any] | None = None) -> Task:
    """A task, ready to be asked."""
    entry = TASKS[named.name]
    taken = {name: value for name, value in (settings or {}).items() if name in entry.takes}
    return entry.make(data=data, variant=named.variant, **entry.options, **taken)


def named_tasks(text: str | Sequence[str], variant: str | None = None) -> list[Named]:
    """Tasks with commas between them, each once."""
    words = text.split(",") if isinstance(text, str) else text
    found = [Named.parse(word, variant) for word in words if word.strip()]
    return list(dict.fromkeys(found))
