"""The tasks by their names, and what each can be asked with."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from midspan.errors import InputError
from midspan.evaluate.data import Data, Source
from midspan.evaluate.task import Task
from midspan.evaluate.tasks import heldout, humaneval, infilling, mbpp, santacoder


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
    return dict(sorted(found.items()))


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
