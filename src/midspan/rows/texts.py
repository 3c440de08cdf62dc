"""The texts of a source laid out for random access while rows are compiled.

    texts.bin       all texts, UTF-8, one after the other, a space before each
    offsets.bin     (documents + 1) int64: where each text's space stands
    ids.bin         the documents' ids, uint64
    languages.bin   numbers of their languages' names, uint16
    texts.json      how many, how many were left out, the names of languages

A Parquet file is read best from front to end; a shuffled epoch wants any document at any time. Everything is
written in one pass and mapped into memory, so neither writing nor reading holds more than a text at a time. It
takes as much disk as the corpus has text, until the rows are there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from midspan.corpus import Document
from midspan.files import write_json
from midspan.tokenizer import Tokenizer

_BUFFER = 1 << 20


class Texts:
    """Read access to a layout that `write` made."""

    def __init__(self, folder: Path) -> None:
        about = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
        self.left_out = int(about["left_out"])
        """Documents that the vocabulary cannot write without loss."""
        self.languages: list[str] = about["languages"]
        self.data = mapped(folder / "texts.bin", np.uint8)
        self.offsets = mapped(folder / "offsets.bin", np.int64)
        self.ids = mapped(folder / "ids.bin", np.uint64)
        self.language_numbers = mapped(folder / "languages.bin", np.uint16)

    def __len__(self) -> int:
        return len(self.ids)

    @staticmethod
    def write(documents: Iterable[Document], tokenizer: Tokenizer, folder: Path) -> None:
        """Lay out documents in their own order, without those whose bytes the vocabulary has no tokens for."""
        languages: dict[str, int] = {}
        end = left_out = 0
        with ExitStack() as stack:
            data, offsets, ids, numbers = (
                stack.enter_context((folder / f"{name}.bin").open("wb", _BUFFER))
                for name in ("texts", "offsets", "ids", "languages")
            )
            offsets.write(np.int64(0).tobytes())
            for document in documents:
                if not tokenizer.can_encode(document.text):
                    left_out += 1
                    continue
                end += data.write(b" " + document.text.encode("utf-8"))
                offsets.write(np.int64(end).tobytes())
                ids.write(np.uint64(document.id).tobytes())
                number = languages.setdefault(document.language, len(languages))
                numbers.write(np.uint16(number).tobytes())
        write_json(folder / "texts.json", {"left_out": left_out, "languages": [*languages]})


def mapped(path: Path, kind: type[np.generic]) -> np.ndarray:
    """A file as an array; an empty one cannot be mapped."""
    return np.memmap(path, dtype=kind, mode="r") if path.stat().st_size else np.empty(0, kind)
