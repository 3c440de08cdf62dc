"""A vocabulary as the tables that the kernels read: classes of characters, merges, whole words.

Everything comes from the backend that has to be met. Which characters are letters is asked of the library itself,
whose Unicode version decides; merges and ranks are its own, with those that lead to special pieces taken out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from tokenizers import Regex
from tokenizers.normalizers import Replace

from midspan.tokenizer.bpe_backend import BYTE_OF_SYMBOL, PRE_TOKENIZERS, SPACE, BpeBackend, Definition
from midspan.tokenizer.fast_merges import Alphabet, Merges, eights_of, merges_to_other, table
from midspan.tokenizer.fast_words import (
    CJK,
    LETTER,
    NUMBER,
    PUNCTUATION,
    WHITE,
    deepseek,
    deepseek_classes,
    gpt2,
    gpt4,
    gpt_classes,
)
from midspan.tokenizer.gguf_vocabulary import PieceType
from midspan.tokenizer.sentencepiece_backend import SentencePieceBackend

_CODES = 0x110000
_ASSIGNED = 0x40000  # no plane above has a character of any class
_SMOLLM, _DEEPSEEK = PRE_TOKENIZERS["smollm"], PRE_TOKENIZERS["deepseek-coder"]
_CLASSES = {LETTER: r"\p{L}", NUMBER: r"\p{N}", WHITE: r"\s", PUNCTUATION: r"\p{P}", CJK: _DEEPSEEK[3][:-1]}

Tables = tuple[Alphabet, Merges]


def tables_of(backend: BpeBackend | SentencePieceBackend) -> Tables | None:
    """The tables of a vocabulary, or None where it is of a shape that the kernels do not know."""
    if isinstance(backend, SentencePieceBackend):
        return _of_sentencepiece(backend)
    steps = backend.steps("pre_tokenizer", "pretokenizers")
    normalizers = backend.steps("normalizer", "normalizers")
    model = backend.definition["model"]
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        return None
    vocab = {piece: i for piece, i in model["vocab"].items() if i not in backend.special_ids}
    if any(step["type"] == "ByteLevel" for step in steps):
        words = _words(backend.word_regexes())
        if words is None or any(step["type"] != "NFC" for step in normalizers):
            return None
        return _of_byte_level(vocab, model, *words)
    if all(_keeps_whole(step) for step in steps) and all(_only_escapes(step) for step in normalizers):
        merges = [(left, right) for left, right in model["merges"]]
        byte_ids = {piece: vocab[piece] for piece in map("<0x{:02X}>".format, range(256)) if piece in vocab}
        fallback = byte_ids if model.get("byte_fallback") else {}
        return _of_pieces(vocab, merges, fallback) if not model.get("ignore_merges") else None
    return None


def _words(regexes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray] | None:
    """The transducer of a family, by its regular expressions, and the classes of characters that it reads."""
    if regexes in (_SMOLLM, _SMOLLM[1:]):
        return gpt2(digits=len(regexes) - 1), gpt_classes(character_classes(), any_case=False)
    if regexes == PRE_TOKENIZERS["llama-bpe"]:
        return gpt4(digits=3), gpt_classes(character_classes(), any_case=True)
    if regexes == (PRE_TOKENIZERS["qwen2"][0].replace("{1,1}", ""),):
        return gpt4(digits=1), gpt_classes(character_classes(), any_case=True)
    if regexes == _DEEPSEEK:
        return deepseek(), deepseek_classes(character_classes())
    return None


def _keeps_whole(step: Definition) -> bool:
    return bool(step["type"] == "Metaspace" and step.get("replacement") == SPACE and step.get("split") is False)


def _only_escapes(step: Definition) -> bool:
    """Whether a normaliser does what SentencePiece does: "▁" in front, and for every space."""
    escape = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    return step in (escape, {"type": "Prepend", "prepend": SPACE})


@cache
def character_classes() -> np.ndarray:
    """Bits of LETTER ... CJK for every code point, uint8, as the library's regular expressions see them."""
    codes = np.array([*range(0xD800), *range(0xE000, _ASSIGNED)], np.uint32)
    every = codes.tobytes().decode("utf-32-le")
    classes = np.zeros(_CODES, np.uint8)
    for bit, pattern in _CLASSES.items():
        others = Replace(Regex(pattern), "").normalize_str(every)
        inside = np.setdiff1d(codes, np.frombuffer(others.encode("utf-32-le"), np.uint32), assume_unique=True)
        classes[inside] |= bit
    return classes


def _merges(
    vocab: Mapping[str, int],
    pairs: Sequence[tuple[str, str]],
    symbols: np.ndarray,
    fallback: np.ndarray,
    ranks: np.ndarray | None = None,
) -> Merges:
    """Merges by their pieces, the best first; `ranks` where some are equal."""
    keys = np.array([vocab[left] << 32 | vocab[right] for left, right in pairs], np.int64)
    merged = np.array([vocab[left + right] for left, right in pairs], np.int64)
    ranks = np.arange(len(pairs)) if ranks is None else ranks
    found = table(keys, ranks << 32 | merged)
    return Merges(found, symbols, fallback, **_whole([], []))


def _whole(words: Sequence[bytes], ids: Sequence[int]) -> dict[str, np.ndarray]:
    data = np.frombuffer(b"".join(words) + bytes(16), np.uint8)
    bounds = np.cumsum([0, *map(len, words)], dtype=np.int64)
    return {
        "whole": data,
        "whole_eights": eights_of(data),
        "whole_bounds": bounds,
        "whole_ids": np.array(ids, np.int64),
    }


def _of_byte_level(
    vocab: Mapping[str, int], model: Definition, transducer: np.ndarray, classes: np.ndarray
) -> Tables:
    symbols = np.full(256, -1, np.int32)
    for symbol, byte in BYTE_OF_SYMBOL.items():
        symbols[byte] = vocab.get(symbol, -1)
    alphabet = Alphabet(transducer, classes, np.empty((0, 0), np.bool_), np.empty((0, 2), np.int64))
    merges = _merges(vocab, model["merges"], symbols, np.empty(0, np.int32))
    if model.get("ignore_merges"):
        spelled = {i: piece for piece, i in vocab.items() if BYTE_OF_SYMBOL.keys() >= set(piece)}
        words = [bytes(BYTE_OF_SYMBOL[symbol] for symbol in piece) for piece in spelled.values()]
        whole = _whole(words, [*spelled])
        other = merges_to_other(merges, whole["whole"], whole["whole_bounds"], whole["whole_ids"])
        kept = np.flatnonzero(other)
        merges = merges._replace(**_whole([words[n] for n in kept], whole["whole_ids"][kept].tolist()))
    return alphabet, merges


def _of_sentencepiece(backend: SentencePieceBackend) -> Tables | None:
    """SentencePiece joins the neighbours whose union scores best, so every way to cut a piece is a merge."""
    normalizer, trainer = backend.proto.normalizer_spec, backend.proto.trainer_spec
    if not normalizer.escape_whitespaces or trainer.treat_whitespace_as_suffix:
        return None
    scores = {p.piece: p.score for p in backend.proto.pieces if p.type == PieceType.NORMAL}
    known = {PieceType.NORMAL, PieceType.UNKNOWN, PieceType.CONTROL, PieceType.BYTE}
    if any(p.type not in known for p in backend.proto.pieces):
        return None
    ids = {piece: backend.ids[piece] for piece in scores}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in sorted(scores, key=scores.__getitem__, reverse=True)
        for cut in range(1, len(piece))
        if piece[:cut] in ids and piece[cut:] in ids
    ]
    _, ranks = np.unique([-scores[left + right] for left, right in merges], return_inverse=True)
    fallback = {p.piece: i for i, p in enumerate(backend.proto.pieces) if p.type == PieceType.BYTE}
    return _of_pieces(ids, merges, fallback, ranks)


def _of_pieces(
    vocab: Mapping[str, int],
    merges: Sequence[tuple[str, str]],
    fallback: Mapping[str, int],
    ranks: np.ndarray | None = None,
) -> Tables | None:
    """A vocabulary that merges characters; `fallback` are the ids of bytes by their pieces, <0x00> ... <0xFF>."""
    ordinary = [piece for piece in vocab if piece not in fallback]
    if any(char not in vocab for char in {char for piece in ordinary for char in piece}):
        return None  # SentencePiece can merge such a character, but it has no id of its own here
    pairs = {(a, b) for piece in ordinary for a, b in zip(map(ord, piece), map(ord, piece[1:]), strict=False)}
    near = np.zeros((128, 128), np.bool_)
    mark, blank = ord(SPACE), ord(" ")
    for a, b in pairs:
        if max(x if x != mark else blank for x in (a, b)) < 128:
            near[blank if a == mark else a, blank if b == mark else b] = True
    near_by = np.array([a << 32 | b for a, b in pairs], np.int64)
    symbols = np.full(_CODES, -1, np.int32)
    for piece in ordinary:
        if len(piece) == 1:
            symbols[ord(piece)] = vocab[piece]
    bytes_ = np.array([fallback.get(f"<0x{byte:02X}>", -1) for byte in range(256)], np.int32)
    alphabet = Alphabet(np.empty(0, np.int64), np.empty(0, np.uint8), near, table(near_by, near_by))
    return alphabet, _merges(vocab, merges, symbols, bytes_, ranks)
