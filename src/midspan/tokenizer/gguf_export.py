"""A vocabulary as the metadata of a GGUF file: the way back of `gguf_vocabulary.py`.

    SentencePiece                  kind "llama"   pieces, scores, types
    tokenizer.json, byte-level     kind "gpt2"    pieces, types, merges, the name of the pre-tokeniser
    tokenizer.json, "▁" for space  kind "llama"   scores made from the order of the merges

GGUF has no regular expressions, only names for those that llama.cpp knows. The name is found by what the
pre-tokeniser does (`BpeBackend.word_regexes`), whatever way the file spells it. What is not in the table is
refused, because a wrong name would give other ids without a word.

A tokenizer.json ranks pairs and GGUF ranks the pieces that they make. The two agree where every way to make a
piece is a merge and they stand together, as in conversions from SentencePiece. It is checked: the scores have to
give the same merges again.

Lost: Unicode normalisation (Qwen2's NFC), which llama.cpp does not do.
"""

import re
from typing import Any

from midspan.errors import InputError
from midspan.tokenizer.bpe_backend import PRE_TOKENIZERS, BpeBackend, plain_regexes
from midspan.tokenizer.gguf_vocabulary import GgufVocabulary, PieceType, padding_piece
from midspan.tokenizer.load import GGUF_END_BIAS, Vocabulary
from midspan.tokenizer.sentencepiece_backend import SentencePieceBackend, proto_from_gguf

_ROLES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
_LOOKS_CONTROL = re.compile(r"<\|.*\|>|<｜.*｜>|<[a-zA-Z_-]+>|\[[A-Z]+\]")
"""Tokens that llama.cpp's converter takes for control tokens though their entry says otherwise."""


def gguf_fields(vocabulary: Vocabulary, add_bos: bool, rows: int) -> dict[str, Any]:
    """See `Tokenizer.gguf_fields`."""
    backend = vocabulary.backend
    if isinstance(backend, SentencePieceBackend):
        fields = _sentencepiece_fields(backend)
    elif any(step["type"] == "ByteLevel" for step in backend.steps("pre_tokenizer", "pretokenizers")):
        fields = _byte_level_fields(backend)
    else:
        fields = _sentencepiece_fields(_ranked_by_score(backend))
    unused = range(len(backend.pieces), rows)
    fields["tokens"] += map(padding_piece, unused)
    fields["token_type"] += [int(PieceType.UNUSED)] * len(unused)
    if "scores" in fields:
        fields["scores"] += [0.0] * len(unused)
    for role, name in _ROLES.items():
        fields[f"{name}_token_id"] = backend.ids.get(vocabulary.roles.get(role, ""))
    fields |= {"add_bos_token": add_bos, "add_eos_token": False}
    named = {f"tokenizer.ggml.{key}": value for key, value in fields.items() if value is not None}
    if vocabulary.chat_template is not None:
        named["tokenizer.chat_template"] = vocabulary.chat_template
    return named | {GGUF_END_BIAS + layout: nats for layout, nats in vocabulary.end_bias.items()}


def _sentencepiece_fields(backend: SentencePieceBackend) -> dict[str, Any]:
    pieces = backend.proto.pieces
    return {
        "model": "llama",
        "pre": "default",
        "tokens": [piece.piece for piece in pieces],
        "scores": [piece.score for piece in pieces],
        "token_type": [int(piece.type) for piece in pieces],
        "add_space_prefix": backend.has_leading_space,
    }


def _byte_level_fields(backend: BpeBackend) -> dict[str, Any]:
    types = [PieceType.NORMAL if piece else PieceType.UNUSED for piece in backend.pieces]
    for entry in backend.definition["added_tokens"]:
        control = entry["special"] or _LOOKS_CONTROL.fullmatch(entry["content"])
        types[entry["id"]] = PieceType.CONTROL if control else PieceType.USER_DEFINED
    return {
        "model": "gpt2",
        "pre": _pre_tokenizer_name(backend),
        "tokens": [piece or padding_piece(i) for i, piece in enumerate(backend.pieces)],
        "token_type": [int(kind) for kind in types],
        "merges": [" ".join(merge) for merge in backend.definition["model"]["merges"]],
    }


def _pre_tokenizer_name(backend: BpeBackend) -> str:
    cuts = backend.word_regexes()
    for name, regexes in PRE_TOKENIZERS.items():
        if plain_regexes(regexes) == cuts:
            return name
    raise InputError(
        f"the vocabulary cuts words in a way that GGUF has no name for ({'; '.join(cuts)}); Midspan writes "
        f"{', '.join(sorted(PRE_TOKENIZERS))}: convert to hf instead"
    )


def _ranked_by_score(backend: BpeBackend) -> SentencePieceBackend:
    """The same vocabulary for SentencePiece; InputError where its merges are not what scores would give."""
    model = backend.definition["model"]
    merges: list[list[str]] = [list(pair) for pair in model["merges"]]
    last = {left + right: i for i, (left, right) in enumerate(merges)}
    scores: dict[str, float] = {}
    rank = end = -1
    for i, (left, right) in enumerate(merges):
        rank += i > end  # pieces whose merges are interleaved, such as runs of spaces, have one score
        scores.setdefault(left + right, -float(rank))
        end = max(end, last[left + right])
    types = [
        PieceType.CONTROL
        if i in backend.special_ids
        else PieceType.BYTE
        if model.get("byte_fallback") and re.fullmatch(r"<0x[0-9A-F]{2}>", piece)
        else PieceType.NORMAL
        for i, piece in enumerate(backend.pieces)
    ]
    unknown = backend.ids.get(model.get("unk_token") or "<unk>")
    if unknown is not None:
        types[unknown] = PieceType.UNKNOWN
    vocabulary = GgufVocabulary(
        source="the vocabulary",
        kind="llama",
        pre_tokenizer="default",
        pieces=[piece or padding_piece(i) for i, piece in enumerate(backend.pieces)],
        scores=[scores.get(piece, -float(len(merges))) for piece in backend.pieces],
        types=[int(kind) for kind in types],
        merges=[],
        entries={"tokenizer.ggml.add_space_prefix": backend.has_leading_space},
    )
    ranked = SentencePieceBackend(proto_from_gguf(vocabulary), vocabulary.source)
    if ranked.merges() != merges:
        raise InputError(
            "the vocabulary's tokenizer.json merges pairs in an order that a GGUF of kind llama cannot say; put "
            "the tokenizer.model of the same model beside it"
        )
    return ranked
