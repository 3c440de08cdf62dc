"""The texts of a corpus laid out for random access while rows are compiled.

    texts.bin    all texts, UTF-8, one after the other          mapped into memory by every worker
    texts.npy    (documents + 1) offsets into it
    ids.npy      the documents' ids

A Parquet file is read best from front to end; a shuffled epoch wants any document at any time.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from midspan.corpus import Corpus


class Texts:
    """Read access to a layout that `write` made."""

    def __init__(self, folder: Path) -> None:
        self._bytes = np.memmap(folder / "texts.bin", dtype=np.uint8, mode="r")
        self._offsets = np.load(folder / "texts.npy")
        self._ids = np.load(folder / "ids.npy")

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> tuple[int, str]:
        """The id and the text of a document."""
        start, end = self._offsets[index], self._offsets[index + 1]
        return int(self._ids[index]), self._bytes[start:end].tobytes().decode("utf-8")

    @staticmethod
    def write(corpus: Corpus, folder: Path, split: str = "train") -> None:
        """Lay out one split of a corpus, in the corpus's own order."""
        offsets, ids = [0], []
        with (folder / "texts.bin").open("wb") as file:
            for document in corpus.documents(split):
                offsets.append(offsets[-1] + file.write(document.text.encode("utf-8")))
                ids.append(document.id)
        np.save(folder / "texts.npy", np.array(offsets, dtype=np.int64))
        np.save(folder / "ids.npy", np.array(ids, dtype=np.uint64))
