"""A document → the ids of one training example; `batch.py` does the same for a window of documents at once.

    plain   BOS document EOS
    psm     BOS PRE prefix SUF suffix MID middle EOT
    spm     BOS PRE SUF suffix MID prefix+middle EOT

Prefix and middle of an SPM example are encoded as one string, so no piece is broken at their border (section
2.3 of the paper), unless the family's order has MID between them; suffix and middle never get SentencePiece's
implicit leading space. Decoding the parts gives the document back byte for byte. Loss falls on every token
unless a recipe says otherwise, and EOT is always trained: it is what teaches a model to stop.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from midspan.errors import InputError
from midspan.fim.format import FimFormat
from midspan.fim.split import SPANS, Split
from midspan.fim.trees import grammars
from midspan.tokenizer import Tokenizer

Form = Literal["plain", "psm", "spm"]


@dataclass(frozen=True, kw_only=True)
class FimConfig:
    """How documents become infilling examples; the defaults are the paper's."""

    rate: float = 0.9
    """Share of the whole (uncut) documents that are turned into infilling examples."""
    spm_rate: float = 0.5
    """Share of the infilling examples in the SPM layout; the others are PSM."""
    spans: Mapping[str, float] = field(default_factory=lambda: {"uniform": 1.0})
    """Share of each way of choosing the middle: `uniform` (the paper), `line`, `lines`, `short`, `tree`."""

    def __post_init__(self) -> None:
        for name in ("rate", "spm_rate"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(f"fim.{name} is {getattr(self, name)}; it must lie between 0 and 1")
        for kind, share in self.spans.items():
            if kind not in SPANS or not 0 <= share < math.inf:
                raise InputError(f"fim.spans has {kind} = {share}; shares of {', '.join(SPANS)} are expected")
        if sum(self.spans.values()) <= 0:
            raise InputError("fim.spans has no share above 0; give at least one, such as uniform = 1.0")

    def check(self, fim: FimFormat) -> None:
        """Make sure that a vocabulary's family has the layouts that are asked for, and spans what they need.

        Raises:
            InputError: something is lacking; the sentence names the share that does without it.
        """
        for layout, share, remedy in (("psm", 1 - self.spm_rate, 1), ("spm", self.spm_rate, 0)):
            if share > 0 and self.rate > 0 and layout not in fim.layouts:
                raise InputError(
                    f"fim.spm_rate is {self.spm_rate}, but the {fim.family.name} family has no {layout!r} layout; "
                    f"give fim.spm_rate the value {remedy}"
                )
        if self.spans.get("tree", 0) > 0 and not grammars():
            raise InputError(
                f"fim.spans has tree = {self.spans['tree']}, which needs tree-sitter and its grammars; install "
                "them with `pip install 'midspan[tree]'`, or take tree out"
            )


@dataclass(frozen=True, slots=True)
class Example:
    """One infilling example."""

    ids: list[int]
    form: Form
    num_middle: int
    """How many of the last ids stand for the middle and EOT."""


def bos_of(tokenizer: Tokenizer) -> list[int]:
    """BOS, for the families whose documents start with it."""
    return [tokenizer.bos_id] if tokenizer.add_bos and tokenizer.bos_id is not None else []


def eos_of(tokenizer: Tokenizer) -> list[int]:
    """The id that ends a plain document, where the vocabulary has one."""
    return [] if tokenizer.eos_id is None else [tokenizer.eos_id]


def infill_example(tokenizer: Tokenizer, fim: FimFormat, parts: Split, layout: Literal["psm", "spm"]) -> Example:
    """A split document in one of the two trained layouts."""
    suffix_ids = tokenizer.encode(parts.suffix, leading_space=False)
    if fim.order(layout)[-1] == "prefix":  # the middle continues the prefix: no sentinel between them
        joint_ids = tokenizer.encode(parts.prefix + parts.middle)
        num_middle = count_middle(tokenizer, joint_ids, len(parts.middle.encode()))
        return Example([*fim.assemble(layout, joint_ids, suffix_ids), fim.eot_id], layout, num_middle + 1)
    prompt = fim.assemble(layout, tokenizer.encode(parts.prefix), suffix_ids)
    middle_ids = tokenizer.encode(parts.middle, leading_space=False)
    return Example([*prompt, *middle_ids, fim.eot_id], layout, len(middle_ids) + 1)


def count_middle(tokenizer: Tokenizer, joint_ids: list[int], middle_bytes: int) -> int:
    """How many of the last ids of an encoded prefix+middle hold a byte of the middle."""
    count = 0
    while middle_bytes > 0 and count < len(joint_ids):
        count += 1
        middle_bytes -= len(tokenizer.piece_bytes(joint_ids[-count]))
    return count
