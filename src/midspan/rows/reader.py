"""Compiled rows as training reads them: mapped into memory, any row at any time.

    rows.json       manifest: fingerprint, number of rows, counts
    tokens.bin      rows of `row_tokens` ids, padded with 0 behind their last segment
    segments.bin    one record a segment: end in its row, length of its middle, form, document
    bounds.npy      (rows + 1) offsets into the segments

Row n is always the same, so the whole state of a reader is how many rows were read, and resuming is a
multiplication.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from midspan.errors import InputError
from midspan.rows.compile import SEGMENT


@dataclass(frozen=True)
class Row:
    """One packed training sequence, without its padding."""

    ids: np.ndarray
    """Token ids (length), int64."""
    segments: np.ndarray
    """Records of `SEGMENT`, one a document."""

    @cached_property
    def bounds(self) -> tuple[int, ...]:
        """0 and the end of each segment."""
        return (0, *map(int, self.segments["end"]))

    def targets(self, loss_on: str) -> np.ndarray:
        """Positions whose next token is trained.

        Args:
            loss_on: `all`: every token but a segment's first; `middle`: the same for documents that are not
                infilled, and only the middle and EOT of those that are.
        """
        chosen = []
        for start, segment in zip(self.bounds, self.segments, strict=False):
            end, num_middle = int(segment["end"]), int(segment["num_middle"])
            first = end - num_middle if loss_on == "middle" and num_middle else start + 1
            chosen.append(np.arange(first - 1, end - 1))
        return np.concatenate(chosen)


class Rows:
    """The rows of a folder that `compile_rows` wrote."""

    def __init__(self, folder: Path) -> None:
        try:
            self.manifest = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
            shape = (self.manifest["num_rows"], self.manifest["row_tokens"])
            self._tokens = np.memmap(
                folder / "tokens.bin", dtype=self.manifest["tokens_type"], mode="r", shape=shape
            )
            self._segments = np.memmap(folder / "segments.bin", dtype=SEGMENT, mode="r")
            self._bounds = np.load(folder / "bounds.npy", mmap_mode="r")
            if self._bounds.shape != (shape[0] + 1,) or self._bounds[-1] != len(self._segments):
                raise ValueError("its files do not belong together")
        except (OSError, EOFError, ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{folder} holds no whole compiled rows ({error}); remove it and train again"
            ) from None

    @property
    def fingerprint(self) -> str:
        """The identity of these rows: corpus, vocabulary and settings."""
        return str(self.manifest["fingerprint"])

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, number: int) -> Row:
        segments = np.array(self._segments[self._bounds[number] : self._bounds[number + 1]])
        return Row(self._tokens[number, : segments["end"][-1]].astype(np.int64), segments)
