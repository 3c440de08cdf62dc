"""The vocabulary inside a GGUF file, read without touching the weights.

A GGUF carries its tokenizer as metadata: `tokenizer.ggml.model` names the kind ("llama" is SentencePiece,
"gpt2" is byte-level BPE), and arrays hold pieces, scores, types and merges. Only the fields in front of the
weights are read, so a file whose download has not reached the weights' end still gives its tokenizer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from midspan.errors import InputError
from midspan.gguf_file import GGUFFile


class PieceType(IntEnum):
    """What a piece is for; SentencePiece's and GGUF's numbers are the same."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


def padding_piece(row: int) -> str:
    """What llama.cpp's converter lists for a row of the embedding that has no token; they are not read back."""
    return f"[PAD{row}]"


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


def read_gguf_vocabulary(path: Path) -> GgufVocabulary:
    """Read the `tokenizer.*` entries of a GGUF file, version 2 or 3.

    Raises InputError for a file that is no GGUF, is cut off, or holds no vocabulary.
    """
    entries = {key: value for key, value in GGUFFile(path).fields.items() if key.startswith("tokenizer.")}
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
    while pieces and types[-1] == PieceType.UNUSED and pieces[-1] == padding_piece(len(pieces) - 1):
        del pieces[-1], scores[-1], types[-1]
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
