"""What an infilling prompt looks like: sentinel ids and the order of the parts, per model family.

A layout is the order in which the parts of a document are laid before the model. Code Llama trains two, the
paper's section 2.3; everything is built from ids, never from text, so that a file which contains the characters
`<PRE>` stays a file.

    psm    BOS PRE prefix SUF suffix MID             | middle EOT
    spm    BOS PRE SUF suffix MID prefix             | middle EOT      prefix and middle are one string
    line   psm with the hole moved to the start of its line; the line's beginning follows MID and is continued

Other families order the same parts in their own way or have no separate middle sentinel; the table below is
theirs. `FimFormat.detect` finds the family in a vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from midspan.errors import InputError
from midspan.tokenizer import Tokenizer

Layout = Literal["psm", "spm", "line"]
LAYOUTS: tuple[Layout, ...] = ("psm", "spm", "line")

_PSM = ("PRE", "prefix", "SUF", "suffix", "MID")
_SPM = ("PRE", "SUF", "suffix", "MID", "prefix")


@dataclass(frozen=True, kw_only=True)
class Family:
    """How one family of models spells its sentinels and orders the parts."""

    name: str
    prefix: str
    suffix: str
    middle: str | None
    ends: tuple[str, ...]
    """Pieces that end an infill, of which the first that the vocabulary has is the one trained as EOT."""
    psm: tuple[str, ...] | None = _PSM
    spm: tuple[str, ...] | None = None
    bos: bool = True
    """Whether a prompt starts with BOS where the tokenizer adds one."""
    evidence: str | None = None
    """A further piece that must exist, where two families share their sentinels."""


def _same(name: str, form: str, ends: tuple[str, ...], **other: object) -> Family:
    """A family whose three sentinels differ only in one word."""
    spelled = {word: form.format(word) for word in ("prefix", "suffix", "middle")}
    return Family(name=name, **spelled, ends=ends, **other)  # type: ignore[arg-type]


FAMILIES: tuple[Family, ...] = (
    Family(name="code-llama", prefix="▁<PRE>", suffix="▁<SUF>", middle="▁<MID>", ends=("▁<EOT>",), spm=_SPM),
    Family(name="midspan", prefix="<PRE>", suffix="<SUF>", middle="<MID>", ends=("<EOT>",), spm=_SPM),
    _same("starcoder", "<fim_{}>", ("<|endoftext|>", "<|end_of_text|>", "<file_sep>"), spm=_SPM),
    _same("santacoder", "<fim-{}>", ("<|endoftext|>",), spm=_SPM),
    Family(
        name="deepseek-coder",
        prefix="<｜fim▁begin｜>",
        suffix="<｜fim▁hole｜>",
        middle="<｜fim▁end｜>",
        ends=("<｜end▁of▁sentence｜>",),
    ),
    _same(
        "codegemma",
        "<|fim_{}|>",
        ("<|file_separator|>", "<eos>"),
        bos=False,
        evidence="<|file_separator|>",
    ),
    _same(
        "qwen-coder",
        "<|fim_{}|>",
        ("<|endoftext|>", "<|end_of_text|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|im_end|>"),
    ),
    Family(
        name="codestral",
        prefix="[PREFIX]",
        suffix="[SUFFIX]",
        middle=None,
        ends=("</s>",),
        psm=None,
        spm=("SUF", "suffix", "PRE", "prefix"),
    ),
    _same(
        "seed-coder",
        "<[fim-{}]>",
        ("<[end▁of▁sentence]>",),
        psm=None,
        spm=("SUF", "suffix", "PRE", "prefix", "MID"),
    ),
    _same(
        "glm",
        "<|code_{}|>",
        ("<|endoftext|>", "<|user|>"),
        psm=None,
        spm=("SUF", "suffix", "PRE", "prefix", "MID"),
    ),
    _same("falcon-coder", "<|{}|>", ("<|end_of_text|>", "<|endoftext|>")),
)
"""Sentinels and orders as each family's own servers and clients use them; the first match in this order wins."""

CODE_LLAMA_SENTINELS = ("▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>")
MIDSPAN_SENTINELS = ("<PRE>", "<SUF>", "<MID>", "<EOT>")


@dataclass(frozen=True, kw_only=True)
class FimFormat:
    """The sentinels of one vocabulary as ids, and the layouts that its family was trained on."""

    family: Family
    prefix_id: int
    suffix_id: int
    middle_id: int | None
    eot_id: int
    stop_ids: frozenset[int]
    bos_id: int | None
    """BOS where prompts of this vocabulary start with it, else None."""
    end_bias: Mapping[str, float] = field(default_factory=dict)
    """Nats that decoding adds to the logit of `eot_id`, by trained layout (see `Tokenizer.end_bias`)."""

    @staticmethod
    def detect(tokenizer: Tokenizer) -> FimFormat | None:
        """The format of the first family whose sentinels the vocabulary has; None if it cannot infill."""
        for family in FAMILIES:
            spelled = [p for p in (family.prefix, family.suffix, family.middle, family.evidence) if p is not None]
            ends = [i for i in map(tokenizer.id_of, family.ends) if i is not None]
            if not ends or any(tokenizer.id_of(piece) is None for piece in spelled):
                continue
            prefix_id, suffix_id = tokenizer.id_of(family.prefix), tokenizer.id_of(family.suffix)
            assert prefix_id is not None
            assert suffix_id is not None
            return FimFormat(
                family=family,
                prefix_id=prefix_id,
                suffix_id=suffix_id,
                middle_id=tokenizer.id_of(family.middle) if family.middle else None,
                eot_id=ends[0],
                stop_ids=frozenset(ends),
                bos_id=tokenizer.bos_id if family.bos and tokenizer.add_bos else None,
                end_bias=tokenizer.end_bias,
            )
        return None

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """Layouts this vocabulary can be asked for (`line` needs what `psm` needs)."""
        psm: tuple[Layout, ...] = ("psm", "line") if self.family.psm else ()
        return psm + (("spm",) if self.family.spm else ())

    def bias_of_end(self, layout: Layout) -> dict[int, float]:
        """What decoding adds to logits in a layout, by id; nothing where nothing was fitted."""
        nats = self.end_bias.get("spm" if layout == "spm" else "psm", 0.0)
        return {self.eot_id: nats} if nats else {}

    def order(self, layout: Layout) -> tuple[str, ...]:
        """The order of sentinels and parts of a layout, as words.

        Raises:
            InputError: it is no layout, or the family was not trained on it.
        """
        if layout not in LAYOUTS:
            raise InputError(f"there is no layout {layout!r}; use {' or '.join(self.layouts)}")
        order = self.family.spm if layout == "spm" else self.family.psm
        if order is None:
            raise InputError(
                f"the {self.family.name} family has no {layout!r} layout; use {' or '.join(self.layouts)}"
            )
        return order

    def assemble(self, layout: Layout, prefix_ids: Sequence[int], suffix_ids: Sequence[int]) -> list[int]:
        """A prompt from encoded parts: everything up to the first token that the model is to write."""
        parts: dict[str, Sequence[int]] = {
            "PRE": (self.prefix_id,),
            "SUF": (self.suffix_id,),
            "MID": () if self.middle_id is None else (self.middle_id,),
            "prefix": prefix_ids,
            "suffix": suffix_ids,
        }
        ids = [] if self.bos_id is None else [self.bos_id]
        for word in self.order(layout):
            ids += parts[word]
        return ids


def infill_prompt(
    tokenizer: Tokenizer, fim: FimFormat, prefix: str, suffix: str, layout: Layout = "psm"
) -> list[int]:
    """The ids of an infilling prompt, as Meta's `infilling_prompt_tokens` builds them for Code Llama.

    The prefix keeps SentencePiece's implicit leading space and the suffix does without it, so that the parts
    decode to exactly the text that was given.
    """
    suffix_ids = tokenizer.encode(suffix, leading_space=False)
    if layout == "line":
        above, newline, line = prefix.rpartition("\n")
        prompt = fim.assemble(layout, tokenizer.encode(above + newline), suffix_ids)
        return prompt + tokenizer.encode(line, leading_space=False)
    return fim.assemble(layout, tokenizer.encode(prefix), suffix_ids)


def with_sentinels(tokenizer: Tokenizer) -> Tokenizer:
    """A vocabulary that can infill: itself, or with Midspan's four sentinels added at its end.

    SentencePiece vocabularies get Code Llama's spelling, byte-level ones the same words without the space
    mark; llama.cpp and others know both.
    """
    if FimFormat.detect(tokenizer) is not None:
        return tokenizer
    return tokenizer.with_sentinels(CODE_LLAMA_SENTINELS if tokenizer.has_leading_space else MIDSPAN_SENTINELS)
