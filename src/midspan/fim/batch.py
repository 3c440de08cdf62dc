"""The documents of a whole window → training examples as arrays: `example.py` at the encoder's speed.

    data       b" def f(x):\\n    return x\\n import os\\n"     texts, one after the other, a space before each
    cuts          [start      a      b        end]                  two a document, at characters
    ranges        prefix | middle | suffix                          all encoded in one call
    examples   BOS PRE prefix SUF suffix MID middle EOT ...         ids of all, one after the other, and bounds

The space before a text is what a SentencePiece vocabulary puts there itself: a range that begins at a document's
beginning takes it along, one that begins at a cut does not, and so suffix and middle go without. Prefix and middle
of SPM are one range, so no piece breaks at their border.

Draws are those of `Draws`, in its order: infill or not, layout, kind of span, two cuts. The paper's cuts, uniform
over characters, are made here for all documents at once; other kinds of span go through `split` one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from midspan.fim.example import FimConfig, bos_of, eos_of
from midspan.fim.format import FimFormat, Layout
from midspan.fim.split import Draws, choose, first_words, split
from midspan.tokenizer import Tokenizer

PLAIN, PSM, SPM = range(3)
_LAYOUTS: tuple[tuple[int, Layout], ...] = ((PSM, "psm"), (SPM, "spm"))
_PREFIX, _MIDDLE, _SUFFIX, _NOTHING = -1, -2, -3, -4  # in a template, where a number from 0 on is an id


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Texts as ranges of one buffer, and what their draws are called."""

    data: np.ndarray
    """UTF-8, uint8; the byte before each text is a space."""
    starts: np.ndarray
    ends: np.ndarray
    """Of the texts in `data` (n), int64."""
    documents: np.ndarray
    """Ids of their documents (n), uint64."""
    pieces: np.ndarray
    """Which piece of its document each is (n), int64; 0 for a whole one."""
    languages: np.ndarray
    """Names of their languages (n), for spans that follow syntax."""

    def __len__(self) -> int:
        return len(self.starts)

    def text(self, n: int) -> str:
        """One of the texts."""
        return self.data[self.starts[n] : self.ends[n]].tobytes().decode()

    def only(self, chosen: np.ndarray) -> Batch:
        """The batch of some of the texts, by number."""
        names = ("starts", "ends", "documents", "pieces", "languages")
        return Batch(data=self.data, **{name: getattr(self, name)[chosen] for name in names})


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Training examples (n), one after the other."""

    ids: np.ndarray
    """Token ids, uint32."""
    bounds: np.ndarray
    """Offsets into the ids (n + 1), int64."""
    forms: np.ndarray
    """PLAIN, PSM or SPM (n), uint8."""
    num_middle: np.ndarray
    """How many of an example's last ids stand for the middle and EOT; 0 for a plain one (n), int64."""


def plain_examples(tokenizer: Tokenizer, batch: Batch) -> Examples:
    """Documents to be read from left to right: BOS document EOS."""
    cuts = np.stack([batch.ends, batch.ends])
    return _examples(tokenizer, None, batch, np.zeros(len(batch), np.uint8), cuts)


def document_examples(
    tokenizer: Tokenizer, fim: FimFormat | None, config: FimConfig, batch: Batch, *, seed: int, epoch: int
) -> Examples:
    """Whole documents as the recipe wants them: infilling at `config.rate`, PSM or SPM, else plain."""
    words = first_words(seed, epoch, batch.documents, batch.pieces, 5)
    units = (words[:3] >> np.uint64(11)).astype(np.float64) * 2.0**-53
    forms = np.where(units[1] < config.spm_rate, SPM, PSM).astype(np.uint8)
    forms[(units[0] >= config.rate) | (fim is None)] = PLAIN
    cuts = np.stack([batch.ends, batch.ends])
    kinds = np.array([choose(config.spans, unit) for unit in units[2]], dtype=object)
    uniform = np.flatnonzero((forms != PLAIN) & (kinds == "uniform"))
    cuts[:, uniform] = _uniform_cuts(
        batch.data, batch.starts[uniform], batch.ends[uniform], words[3, uniform], words[4, uniform]
    )
    for n in np.flatnonzero((forms != PLAIN) & (kinds != "uniform")):
        draws = Draws(seed, epoch, int(batch.documents[n]), int(batch.pieces[n]))
        for _ in range(2):  # infill or not, and layout
            draws.unit()
        parts = split(batch.text(int(n)), draws, config.spans, batch.languages[n])
        cuts[0, n] = batch.starts[n] + len(parts.prefix.encode())
        cuts[1, n] = cuts[0, n] + len(parts.middle.encode())
    return _examples(tokenizer, fim, batch, forms, cuts)


def _examples(
    tokenizer: Tokenizer, fim: FimFormat | None, batch: Batch, forms: np.ndarray, cuts: np.ndarray
) -> Examples:
    """Documents cut in three, each in its form; the first part of a plain one is all of it."""
    joint = forms == PLAIN
    for form, layout in _LAYOUTS:
        if fim is not None and (forms == form).any():
            joint |= (forms == form) & (fim.order(layout)[-1] == "prefix")  # the middle continues the prefix
    first_end = np.where(joint, cuts[1], cuts[0])
    leading = tokenizer.has_leading_space & (first_end > batch.starts)
    starts = np.stack([batch.starts - leading, first_end, cuts[1]], axis=1)
    ends = np.stack([first_end, cuts[1], batch.ends], axis=1)
    ids, offsets = tokenizer.encode_ranges(batch.data, starts.ravel(), ends.ravel())
    templates = _templates(tokenizer, fim)
    literals = (templates >= 0).sum(axis=1)
    bounds = np.concatenate([[0], np.cumsum(np.diff(offsets[::3]) + literals[forms])])
    num_middle = np.diff(offsets)[1::3] + 1
    by_bytes = joint & (forms != PLAIN)
    _count_middles(ids, offsets, np.where(by_bytes, cuts[1] - cuts[0], -1), tokenizer.piece_lengths, num_middle)
    num_middle[forms == PLAIN] = 0
    out = np.empty(bounds[-1], np.uint32)
    _assemble(ids, offsets, templates, forms, out)
    return Examples(ids=out, bounds=bounds, forms=forms, num_middle=num_middle)


def _templates(tokenizer: Tokenizer, fim: FimFormat | None) -> np.ndarray:
    """What an example of each form consists of: ids, and places of its parts."""
    bos, eos = bos_of(tokenizer), eos_of(tokenizer)
    found: list[Sequence[int]] = [[*bos, _PREFIX, *eos], [], []]
    if fim is not None:
        for form, layout in _LAYOUTS:
            if layout in fim.layouts:
                found[form] = [*fim.assemble(layout, [_PREFIX], [_SUFFIX]), _MIDDLE, fim.eot_id]
    templates = np.full((3, max(map(len, found))), _NOTHING, np.int64)
    for form, template in enumerate(found):
        templates[form, : len(template)] = template
    return templates


@njit(cache=True, nogil=True)
def _uniform_cuts(
    data: np.ndarray, starts: np.ndarray, ends: np.ndarray, first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    """Two positions drawn from the characters of each text, as byte offsets in order, (2, n)."""
    cuts = np.empty((2, len(starts)), np.int64)
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    for n in range(len(starts)):
        characters = 0
        for i in range(starts[n], ends[n]):
            characters += (data[i] & 0xC0) != 0x80
        places = np.uint64(characters + 1)
        a = np.int64(((first[n] >> half) * places + ((first[n] & low) * places >> half)) >> half)
        b = np.int64(((second[n] >> half) * places + ((second[n] & low) * places >> half)) >> half)
        a, b = min(a, b), max(a, b)
        if characters == ends[n] - starts[n]:
            cuts[0, n], cuts[1, n] = starts[n] + a, starts[n] + b
            continue
        cuts[0, n] = cuts[1, n] = ends[n]
        seen = 0
        for i in range(starts[n], ends[n]):
            if (data[i] & 0xC0) != 0x80:
                if seen == a:
                    cuts[0, n] = i
                if seen == b:
                    cuts[1, n] = i
                    break
                seen += 1
    return cuts


@njit(cache=True, nogil=True)
def _count_middles(
    ids: np.ndarray, offsets: np.ndarray, sizes: np.ndarray, piece_lengths: np.ndarray, num_middle: np.ndarray
) -> None:
    """For prefix and middle in one range: how many of its last ids hold a byte of the middle, and EOT.

    `sizes` are the bytes of the middles, -1 where the middle is a range of its own.
    """
    for n in range(len(sizes)):
        if sizes[n] >= 0:
            left, i = sizes[n], offsets[3 * n + 1]
            while left > 0 and i > offsets[3 * n]:
                i -= 1
                left -= piece_lengths[ids[i]]
            num_middle[n] = offsets[3 * n + 1] - i + 1


@njit(cache=True, nogil=True)
def _assemble(
    ids: np.ndarray, offsets: np.ndarray, templates: np.ndarray, forms: np.ndarray, out: np.ndarray
) -> None:
    """Lay ids and parts as each example's template says."""
    written = 0
    for n in range(len(forms)):
        for k in range(templates.shape[1]):
            code = templates[forms[n], k]
            if code >= 0:
                out[written] = code
                written += 1
            elif code > _NOTHING:
                part = 3 * n - 1 - code
                for i in range(offsets[part], offsets[part + 1]):
                    out[written] = ids[i]
                    written += 1
