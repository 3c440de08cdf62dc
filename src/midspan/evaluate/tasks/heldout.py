"""Infilling and reading files that training never saw: the task that any corpus with a held-out split gives.

    file ──window──► passage ──┬── line    from a line's first character that is not blank to its end
                               ├── lines   2 to 5 whole lines, likewise from the first character
                               └── span    1 to 60 characters anywhere

A file that fits the window is a passage whole; of a longer one, a run of whole lines that fits is taken, as an
editor would show it to the model. Every passage has one hole of each kind, asked in every layout, and is read
once from left to right. Files are taken from the corpus's groups in turn, so that no package dominates.

All choices are counter-based draws keyed by (seed, round, document): the same for every model that shares the
vocabulary's bytes, whatever was chosen before. Where a corpus has fewer files than passages are wanted, further
rounds take other windows and holes of the same files.

What the model writes is taken raw, until it ends by itself or its budget is spent: no line is cut off and no
space stripped. A `line` is scored a second time, cut where the line ends: what an editor shows that asks for one
line, and what SantaCoder's benchmark scores.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Literal, get_args

from midspan.corpus import Corpus, Document
from midspan.engine.front import Front
from midspan.errors import InputError
from midspan.evaluate.data import Data
from midspan.evaluate.metrics import bits, edit_similarity
from midspan.evaluate.task import EXACT, Answer, Evidence, Hole, Metric, Question, Scores, Task
from midspan.evaluate.tasks.perplexity import BITS_PER_BYTE, in_turn, reading
from midspan.fim import Draws, Split, infill_example
from midspan.tokenizer import Tokenizer

Kind = Literal["line", "lines", "span"]
KINDS: tuple[Kind, ...] = get_args(Kind)
TrainedLayout = Literal["psm", "spm"]
"""Layouts that have training examples, and so a true continuation to score."""
LAYOUTS: tuple[TrainedLayout, ...] = get_args(TrainedLayout)

MIN_VISIBLE = 3
"""Visible characters that a `line` needs: a closing bracket tells little."""
MAX_LINES = 5
MAX_SPAN = 60
MAX_MIDDLE = 240
"""Characters of a hole, so that a budget of MAX_WRITTEN tokens is enough for a right answer."""
MIN_WRITTEN, MAX_WRITTEN = 16, 96
"""A model may write twice the tokens of the true middle, but at least and at most so many."""
ROUNDS = 8
_MARGIN = 16
"""Tokens of the window that are left for sentinels and for pieces broken at the hole."""


@dataclass(frozen=True, kw_only=True)
class HeldOutConfig:
    """How much is asked."""

    per_kind: int = 50
    """Passages, and so holes of each kind."""
    max_tokens: int = 256
    """Tokens of a passage with its sentinels, at most: about 20 lines, as an editor sends them around a cursor."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.per_kind < 1:
            raise InputError(f"per_kind is {self.per_kind}; it must be at least 1")
        if self.max_tokens < 64:
            raise InputError(f"max_tokens is {self.max_tokens}; a passage needs at least 64")


@dataclass(frozen=True, slots=True)
class Passage:
    """A file or a window of it, and its holes as (start, end) characters of `text`."""

    document: Document
    offset: int
    """Characters of the document before the passage."""
    text: str
    holes: dict[Kind, tuple[int, int]]

    def split(self, kind: Kind) -> Split:
        """The passage around one of its holes."""
        start, end = self.holes[kind]
        return Split(self.text[:start], self.text[start:end], self.text[end:])

    @property
    def places(self) -> set[tuple[int, Kind, int, int]]:
        """The holes as places of the document."""
        at = self.offset
        return {(self.document.id, kind, at + a, at + b) for kind, (a, b) in self.holes.items()}


def passages(corpus: Corpus, tokenizer: Tokenizer, config: HeldOutConfig) -> list[Passage]:
    """The passages of a task; fewer than `per_kind` only where the corpus has too few places to ask about.

    Raises:
        InputError: the corpus has no held-out file that can be asked about.
    """
    found: list[Passage] = []
    asked: set[tuple[int, Kind, int, int]] = set()
    for round_ in range(ROUNDS):
        before = len(found)
        for document in in_turn(corpus, config.seed, round_):
            passage = passage_of(document, tokenizer, config, round_)
            if passage is not None and not asked & passage.places:
                found.append(passage)
                asked |= passage.places
            if len(found) == config.per_kind:
                return found
        if len(found) == before:
            break
    if not found:
        raise InputError(
            f"{corpus.folder} has no held-out file to evaluate on; build it with --held-out or --held-out-share"
        )
    return found


def passage_of(document: Document, tokenizer: Tokenizer, config: HeldOutConfig, round_: int) -> Passage | None:
    """The passage of a document in a round; None where its text cannot be asked about in every kind."""
    draws = Draws(config.seed, ROUNDS + round_, document.id)
    start, end = _window(document.text, tokenizer, config.max_tokens - _MARGIN, draws)
    text = document.text[start:end]
    if not tokenizer.can_encode(text):
        return None
    line, lines, span = _line(text, draws), _lines(text, draws), _span(text, draws)
    if line is None or lines is None or span is None:
        return None
    return Passage(document, start, text, {"line": line, "lines": lines, "span": span})


def _window(text: str, tokenizer: Tokenizer, budget: int, draws: Draws) -> tuple[int, int]:
    """Characters of the whole text, or of whole lines that are at most about `budget` tokens together."""
    ids = tokenizer.encode(text)
    if len(ids) <= budget:
        return 0, len(text)
    starts = [start for start, _, _ in _lines_of(text)] + [len(text)]
    bytes_before = accumulate((len(text[a:b].encode()) for a, b in pairwise(starts)), initial=0)
    ends = list(accumulate(len(tokenizer.piece_bytes(i)) for i in ids))
    tokens_before = [bisect_right(ends, number) for number in bytes_before]
    first = draws.below(max(1, bisect_right(tokens_before, tokens_before[-1] - budget)))
    after = bisect_right(tokens_before, tokens_before[first] + budget) - 1
    return starts[first], starts[after]


def _lines_of(text: str) -> list[tuple[int, int, int]]:
    """Each line in characters: start, first character that is not blank, end (before the line feed)."""
    lines, start = [], 0
    for line in text.split("\n"):
        end = start + len(line)
        lines.append((start, end - len(line.lstrip()), end))
        start = end + 1
    return lines


def _line(text: str, draws: Draws) -> tuple[int, int] | None:
    """One line from its first character that is not blank."""
    holes = [
        (code, end)
        for _, code, end in _lines_of(text)
        if len("".join(text[code:end].split())) >= MIN_VISIBLE and end - code <= MAX_MIDDLE
    ]
    return holes[draws.below(len(holes))] if holes else None


def _lines(text: str, draws: Draws) -> tuple[int, int] | None:
    """Two to five whole lines that neither begin nor end with a blank one."""
    lines = _lines_of(text)
    for number in range(2 + draws.below(MAX_LINES - 1), 1, -1):  # fewer, where so many are not to be had
        holes = [
            (first[1], last[2])
            for first, last in zip(lines, lines[number - 1 :], strict=False)
            if first[1] < first[2] and last[1] < last[2] and last[2] - first[1] <= MAX_MIDDLE
        ]
        if holes:
            return holes[draws.below(len(holes))]
    return None


def _span(text: str, draws: Draws) -> tuple[int, int] | None:
    """Characters anywhere."""
    if not text:
        return None
    length = min(1 + draws.below(MAX_SPAN), len(text))
    start = draws.below(len(text) - length + 1)
    return start, start + length


METRICS = (
    EXACT,
    Metric(name="exact line", score="exact_line", unit="%", kind="share"),
    Metric(name="edit similarity", score="similarity", unit="of 100"),
    BITS_PER_BYTE,
    Metric(
        name="bits with the end", score="all_bits", unit="bits/byte", better="lower", kind="ratio", per="bytes"
    ),
    Metric(name="bits of the end", score="end_bits", unit="bits", better="lower"),
    Metric(name="ended by itself", score="ended", unit="%", kind="share"),
)
"""`bits per byte` are those of the true middle; `bits with the end` are per byte too, and pay for stopping."""
VARIANTS = ("both", "spm", "psm")


@dataclass(frozen=True, kw_only=True)
class HeldOut(Task):
    """The task: every hole in every layout, greedily, and every passage read once."""

    data: Data
    corpus: Path | None = None
    vocabulary: Tokenizer | None = None
    """Which cuts files into windows; the model's own if None."""
    per_kind: int = 50
    window: int = 256
    variant: str = "both"
    name: str = "heldout"
    metrics: tuple[Metric, ...] = METRICS

    def questions(self, model: Front) -> list[Question]:
        """See `Task`.

        Raises:
            InputError: the vocabulary has no sentinels, or its family was trained on none of the layouts.
        """
        fim, tokenizer = model.fim, model.tokenizer
        asked = LAYOUTS if self.variant == "both" else tuple(each for each in LAYOUTS if each == self.variant)
        layouts = [layout for layout in asked if fim is not None and layout in fim.layouts]
        if fim is None or not layouts:
            raise InputError(
                f"this model's vocabulary cannot infill in the layouts {', '.join(asked)}; train it first, or ask "
                "the task `perplexity`"
            )
        corpus = self.data.corpus(self.corpus, self.name)
        config = HeldOutConfig(per_kind=self.per_kind, max_tokens=self.window)
        chosen = passages(corpus, self.vocabulary or tokenizer, config)
        found = []
        for passage in chosen:
            for kind in KINDS:
                for layout in layouts:
                    part = passage.split(kind)
                    size = infill_example(tokenizer, fim, part, layout).num_middle - 1
                    found.append(_question(passage, kind, layout, part, size))
        once = {(passage.document.id, passage.offset): passage for passage in chosen}
        return found + [_reading(passage, tokenizer) for passage in once.values()]

    def score(self, question: Question, answer: Answer, evidence: Evidence) -> Scores:
        """See `Task`."""
        nats = answer.nats or []
        if "truth" not in question.row:
            return {"bits": bits(sum(nats)), "bytes": float(question.row["bytes"])}
        truth, (inside, end) = question.row["truth"], nats
        line = {"exact_line": float(answer.text.split("\n")[0] == truth)} if question.row["kind"] == "line" else {}
        return line | {
            "exact": float(answer.text == truth),
            "similarity": float(edit_similarity(answer.text, truth)),
            "bits": bits(inside),
            "all_bits": bits(inside + end),
            "end_bits": bits(end),
            "bytes": float(len(truth.encode())),
            "ended": float(answer.reason == "eot"),
        }


def _question(passage: Passage, kind: Kind, layout: TrainedLayout, part: Split, size: int) -> Question:
    document = passage.document
    return Question(
        id=f"{document.id:016x}/{passage.offset + len(part.prefix)}+{len(part.middle)}/{kind}/{layout}",
        prompt=Hole(prefix=part.prefix, suffix=part.suffix, layout=layout, heal=True, middle=part.middle),
        row={"group": document.group, "path": document.path, "kind": kind, "layout": layout, "truth": part.middle},
        groups=(f"{layout} all", f"{layout} {kind}"),
        cluster=f"{document.id:016x}",
        max_tokens=min(max(MIN_WRITTEN, 2 * size), MAX_WRITTEN),
    )


def _reading(passage: Passage, tokenizer: Tokenizer) -> Question:
    document = passage.document
    name = f"{document.id:016x}/{passage.offset}/read"
    return reading(passage.text, tokenizer, name, ("left to right",), f"{document.id:016x}")
