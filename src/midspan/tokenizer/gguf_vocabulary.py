"""The vocabulary inside a GGUF file, read without touching the weights.

    "GGUF" | version u32 | tensors u64 | entries u64 | entry ... entry | tensor table | weights
                                                       `- key, type u32, value; tokenizer.ggml.* are ours

A GGUF carries its tokenizer as metadata: `tokenizer.ggml.model` names the kind ("llama" is SentencePiece,
"gpt2" is byte-level BPE), and arrays hold pieces, scores, types and merges. The file is memory-mapped and
only the metadata in front of the weights is read: for 128,256 pieces and 280,147 merges that takes a fraction
of a second, where the `gguf` library's reader, which makes an array view of every string, takes more than
ten. That is the whole reason for this reader; weights are read with the library (see
`midspan.model.weights`).

Left out: GGUF 1 (32-bit lengths, last written in August 2023), big-endian files, and split files' later
parts. Source of the format: ggml-org/ggml, docs/gguf.md.
"""

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from midspan.errors import InputError


class PieceType(IntEnum):
    """What a piece is for; SentencePiece's and GGUF's numbers are the same."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


_FIXED = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True, kw_only=True)
class GgufVocabulary:
    """A GGUF file's tokenizer entries, as they stand in the file."""

    source: str
    """The file's path, for error sentences."""
    kind: str
    """`tokenizer.ggml.model`: "llama", "gpt2", or a kind that Midspan does not know."""
    pre_tokenizer: str
    """`tokenizer.ggml.pre`: names the regular expressions that cut text into words (kind "gpt2")."""
    pieces: list[str]
    scores: list[float]
    types: list[int]
    merges: list[str]
    entries: Mapping[str, Any]
    """All other `tokenizer.*` entries, by their full key."""

    def token_id(self, role: str) -> int | None:
        """The id that the file gives to a role such as "bos", "eos", "eot" or "fim_pre"; None without one."""
        token_id = self.entries.get(f"tokenizer.ggml.{role}_token_id")
        return token_id if token_id is not None and token_id < len(self.pieces) else None

    def flag(self, name: str, default: bool) -> bool:
        """A yes-or-no entry such as "add_bos_token"."""
        return bool(self.entries.get(f"tokenizer.ggml.{name}", default))

    def special_ids(self) -> set[int]:
        """Ids that user text must never give: all but ordinary and byte pieces, and those with a role."""
        roles = ("bos", "eos", "eot", "eom", "fim_pre", "fim_suf", "fim_mid", "fim_pad", "fim_rep", "fim_sep")
        named = {self.token_id(role) for role in roles} - {None}
        typed = {i for i, kind in enumerate(self.types) if kind not in (PieceType.NORMAL, PieceType.BYTE)}
        return typed | {i for i in named if i is not None}


class _Cursor:
    """Reads GGUF values one after another from a mapped file."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 0

    def fixed(self, code: str, count: int = 1) -> tuple[Any, ...]:
        layout = struct.Struct(f"<{count}{code}")
        values = layout.unpack_from(self._data, self._at)
        self._at += layout.size
        return values

    def string(self) -> str:
        (length,) = struct.unpack_from("<Q", self._data, self._at)
        start = self._at + 8
        self._at = start + length
        if self._at > len(self._data):
            raise struct.error("a string reaches past the end of the file")
        return self._data[start : self._at].decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            return self.fixed(_FIXED[kind])[0]
        element, count = self.fixed("I")[0], self.fixed("Q")[0]
        if count > len(self._data):
            raise struct.error("an array reaches past the end of the file")
        if element in _FIXED:
            return list(self.fixed(_FIXED[element], count))
        return [self.value(element) for _ in range(count)]


def read_gguf_vocabulary(path: Path) -> GgufVocabulary:
    """Read the `tokenizer.*` entries of a GGUF file, version 2 or 3.

    Raises InputError for a file that is no GGUF, is cut off, or holds no vocabulary.
    """
    if path.stat().st_size == 0:  # an empty file cannot be mapped
        raise InputError(f"{path} is empty; fetch it again")
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            entries = _read_entries(path, _Cursor(data))
    except (struct.error, UnicodeDecodeError, KeyError, MemoryError, OverflowError) as error:
        raise InputError(f"{path} is a damaged or cut-off GGUF file ({error}); fetch it again") from error
    if not entries.get("tokenizer.ggml.tokens"):
        raise InputError(
            f"{path} is a GGUF file without a vocabulary (no tokenizer.ggml.tokens); name another file"
        )
    pieces: list[str] = entries.pop("tokenizer.ggml.tokens")
    scores = entries.pop("tokenizer.ggml.scores", [0.0] * len(pieces))
    types = entries.pop("tokenizer.ggml.token_type", [int(PieceType.NORMAL)] * len(pieces))
    if not len(pieces) == len(scores) == len(types):
        raise InputError(
            f"{path} lists {len(pieces)} pieces, {len(scores)} scores and {len(types)} types; "
            "convert the model again"
        )
    return GgufVocabulary(
        source=str(path),
        kind=str(entries.pop("tokenizer.ggml.model", "unnamed")),
        pre_tokenizer=str(entries.pop("tokenizer.ggml.pre", "unnamed")),
        pieces=pieces,
        scores=scores,
        types=types,
        merges=entries.pop("tokenizer.ggml.merges", []),
        entries=entries,
    )


def _read_entries(path: Path, cursor: _Cursor) -> dict[str, Any]:
    if bytes(cursor.fixed("B", 4)) != b"GGUF":
        raise InputError(f"{path} is not a GGUF file: it does not begin with the letters GGUF")
    version, _num_tensors, num_entries = *cursor.fixed("I"), *cursor.fixed("Q"), *cursor.fixed("Q")
    if version not in (2, 3):
        raise InputError(f"{path} is GGUF version {version}; Midspan reads little-endian versions 2 and 3")
    entries = {}
    for _ in range(num_entries):
        key = cursor.string()
        value = cursor.value(cursor.fixed("I")[0])
        if key.startswith("tokenizer."):
            entries[key] = value
    return entries
