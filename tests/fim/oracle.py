"""One document at a time, as the paper says it: what the examples of a batch have to equal."""

from typing import Literal

from midspan.fim import Draws, Example, FimConfig, FimFormat, infill_example, split
from midspan.fim.example import bos_of, eos_of
from midspan.tokenizer import Tokenizer


def plain_example(tokenizer: Tokenizer, text: str) -> Example:
    """A document to be read from left to right."""
    return Example(bos_of(tokenizer) + tokenizer.encode(text) + eos_of(tokenizer), "plain", 0)


def document_example(
    tokenizer: Tokenizer, fim: FimFormat | None, config: FimConfig, text: str, draws: Draws
) -> Example:
    """A whole document as the recipe wants it: infilling at `config.rate`, PSM or SPM, else plain."""
    if fim is None or draws.unit() >= config.rate:
        return plain_example(tokenizer, text)
    layout: Literal["psm", "spm"] = "spm" if draws.unit() < config.spm_rate else "psm"
    return infill_example(tokenizer, fim, split(text, draws, config.spans, "python"), layout)
