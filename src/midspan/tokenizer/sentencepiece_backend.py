"""SentencePiece vocabularies (Llama 2, Code Llama, TinyLlama, Mistral) through the `sentencepiece` library.

The state is a ModelProto, SentencePiece's own format: a `tokenizer.model` as it is, or one rebuilt from the
pieces, scores and types inside a GGUF of kind "llama".

Special pieces. The library never gives a CONTROL piece for text, but in Code Llama's tokenizer.model the
sentinels are ordinary pieces with merges that lead to them: ▁< PRE > becomes ▁<PRE and then ▁<PRE> (32007),
so the characters " <PRE>" in a user's file would be the sentinel. Every special piece, the sentinels by their
names included, is therefore turned into a CONTROL piece before the library sees the model. The last merge of
such a piece is then impossible and the text stays at the pieces before it (▁<PRE and >), which keep their
ids.

Leading space. The library puts "▁" in front of every text. A suffix or a middle must not have it, and Meta's
code encodes "☺" + text and cuts two ids off. The same model with `add_dummy_prefix` off gives the same ids
without assuming anything about a marker, so there are two processors.

    encode("a b")                       ▁a ▁b      what stands at the beginning of a document
    encode("a b", leading_space=False)  a ▁b       what stands behind a sentinel

One loss is the format's own: "▁" is how a space is written, so a "▁" in the text comes back as a space.

Left out: Unigram models (T5, XLNet) and models that normalise text (NFKC, joined spaces); both are refused.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import sentencepiece
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from sentencepiece import sentencepiece_model_pb2

from midspan.errors import InputError
from midspan.tokenizer.bpe_backend import SENTINELS_BY_NAME, SPACE, Definition, added_token, bpe_definition
from midspan.tokenizer.gguf_vocabulary import GgufVocabulary, PieceType

ModelProto: Any = sentencepiece_model_pb2.ModelProto  # type: ignore[attr-defined]  # made at run time
_BPE = 2  # TrainerSpec.ModelType
_BYTE_PIECES = {f"<0x{byte:02X}>" for byte in range(256)}


def proto_from_file(data: bytes, source: str) -> Any:
    """Parse a `tokenizer.model`.

    Raises InputError for anything that is not SentencePiece's, such as Llama 3's file of the same name.
    """
    proto = ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError:
        proto.Clear()
    if not proto.pieces:
        kind = "tiktoken ranks" if re.match(rb"[A-Za-z0-9+/]+=* \d+\n", data) else "no SentencePiece model"
        raise InputError(f"{source} holds {kind}; name the folder or the tokenizer.json of the same model")
    return proto


def proto_from_gguf(vocabulary: GgufVocabulary) -> Any:
    """Rebuild the ModelProto of a GGUF vocabulary of kind "llama"."""
    proto = ModelProto()
    for piece, score, kind in zip(vocabulary.pieces, vocabulary.scores, vocabulary.types, strict=True):
        proto.pieces.add(piece=piece, score=score, type=kind)
    for i in vocabulary.special_ids():
        if proto.pieces[i].type == PieceType.NORMAL:
            proto.pieces[i].type = PieceType.CONTROL
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    trainer.model_type, trainer.vocab_size = _BPE, len(vocabulary.pieces)
    trainer.byte_fallback = PieceType.BYTE in vocabulary.types
    unknown = vocabulary.types.index(PieceType.UNKNOWN) if PieceType.UNKNOWN in vocabulary.types else 0
    for role, token_id in {
        "unk": unknown,
        **{role: vocabulary.token_id(role) for role in ("bos", "eos")},
    }.items():
        if token_id is not None:
            setattr(trainer, f"{role}_id", token_id)
            setattr(trainer, f"{role}_piece", vocabulary.pieces[token_id])
    proto.pieces[trainer.unk_id].type = PieceType.UNKNOWN
    normalizer.name = "identity"
    normalizer.add_dummy_prefix = vocabulary.flag("add_space_prefix", True)
    normalizer.remove_extra_whitespaces = vocabulary.flag("remove_extra_whitespaces", False)
    normalizer.precompiled_charsmap = bytes(vocabulary.entries.get("tokenizer.ggml.precompiled_charsmap", b""))
    return proto


class SentencePieceBackend:
    """Vocabulary, encoder and piece bytes from a SentencePiece BPE model.

    `pieces[i]` is the piece of id i as the vocabulary writes it.
    """

    def __init__(self, proto: Any, source: str) -> None:
        """Copy a ModelProto, make its special pieces CONTROL, and build the processors."""
        if proto.trainer_spec.model_type != _BPE:
            raise InputError(f"{source} is not a BPE model of SentencePiece; Midspan reads Llama's kind, BPE")
        normalizer = proto.normalizer_spec
        if normalizer.precompiled_charsmap or normalizer.remove_extra_whitespaces:
            raise InputError(
                f"{source} normalises text ({normalizer.name}), which changes code; use another tokenizer"
            )
        self.proto = ModelProto()
        self.proto.CopyFrom(proto)
        for piece in self.proto.pieces:
            if piece.type == PieceType.USER_DEFINED or piece.piece in SENTINELS_BY_NAME:
                piece.type = PieceType.CONTROL
        self.pieces = [piece.piece for piece in self.proto.pieces]
        self.ids = {piece: i for i, piece in enumerate(self.pieces)}
        self.special_ids = frozenset(
            i for i, p in enumerate(self.proto.pieces) if p.type in (PieceType.UNKNOWN, PieceType.CONTROL)
        )
        self.has_leading_space = bool(normalizer.add_dummy_prefix)
        byte_pieces = {p.piece for p in self.proto.pieces if p.type == PieceType.BYTE}
        self._has_all_bytes = byte_pieces == _BYTE_PIECES
        self._source = source
        self._processor = self._bare_processor = self._processor_of(self.proto)
        if self.has_leading_space:
            bare = ModelProto()
            bare.CopyFrom(self.proto)
            bare.normalizer_spec.add_dummy_prefix = False
            self._bare_processor = self._processor_of(bare)

    def _processor_of(self, proto: Any) -> sentencepiece.SentencePieceProcessor:
        try:
            return sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
        except RuntimeError as error:
            raise InputError(f"{self._source} holds a vocabulary that SentencePiece refuses ({error})") from error

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as the model's bytes; the receiving process builds its own processors."""
        return _from_bytes, (bytes(self.proto.SerializeToString()),)

    def encode(self, text: str, leading_space: bool) -> list[int]:
        """Ids of one text."""
        processor = self._processor if leading_space else self._bare_processor
        ids: list[int] = processor.encode(text)
        return ids

    def encode_batch(self, texts: Sequence[str], leading_space: bool) -> list[list[int]]:
        """Ids of many texts, on the library's threads."""
        processor = self._processor if leading_space else self._bare_processor
        ids: list[list[int]] = processor.encode(list(texts))
        return ids

    def bytes_of_pieces(self) -> list[bytes]:
        """The bytes that each piece stands for, specials included as nothing."""
        return [self._piece_bytes(i) for i in range(len(self.pieces))]

    def _piece_bytes(self, i: int) -> bytes:
        if i in self.special_ids:
            return b""
        if self.proto.pieces[i].type == PieceType.BYTE:
            return bytes([int(self.pieces[i][3:5], 16)])
        return str(self.pieces[i]).replace(SPACE, " ").encode()

    def can_encode(self, text: str) -> bool | None:
        """Whether encoding loses nothing; None where only encoding and decoding can tell."""
        return SPACE not in text if self._has_all_bytes else None

    def with_special(self, pieces: Iterable[str]) -> "SentencePieceBackend":
        """A backend where these pieces are special; new ones get the next ids."""
        proto = ModelProto()
        proto.CopyFrom(self.proto)
        ids = dict(self.ids)
        for piece in pieces:
            if piece not in ids:
                ids[piece] = len(ids)
                proto.pieces.add(piece=piece, score=0.0, type=PieceType.CONTROL)
            elif proto.pieces[ids[piece]].type != PieceType.UNKNOWN:
                proto.pieces[ids[piece]].type = PieceType.CONTROL
        proto.trainer_spec.vocab_size = len(ids)
        return SentencePieceBackend(proto, "the tokenizer with sentinels")

    def identity(self) -> bytes:
        """Everything that determines ids, in one canonical form."""
        model = ModelProto(pieces=self.proto.pieces, normalizer_spec=self.proto.normalizer_spec)
        return bytes(model.SerializeToString(deterministic=True))

    def files(self, post_processor: Definition | None) -> dict[str, bytes]:
        """Files that hold this vocabulary, by name."""
        definition = {**self._definition(), "post_processor": post_processor}
        return {
            "tokenizer.model": self.proto.SerializeToString(),
            "tokenizer.json": json.dumps(definition, ensure_ascii=False).encode(),
        }

    def merges(self) -> list[list[str]]:
        """The pairs that a tokenizer.json ranks, best first.

        The library joins the neighbours whose union has the best score. So every way to cut an ordinary piece
        in two pieces becomes a merge, in the order of scores.
        """
        mergeable = {p.piece: p.score for p in self.proto.pieces if p.type == PieceType.NORMAL}
        merges = [
            (-score, self.ids[piece[:cut]], piece[:cut], piece[cut:])
            for piece, score in mergeable.items()
            for cut in range(1, len(piece))
            if piece[:cut] in mergeable and piece[cut:] in mergeable
        ]
        return [[left, right] for _, _, left, right in sorted(merges)]

    def _definition(self) -> Definition:
        """The same vocabulary as a tokenizer.json, for readers without SentencePiece."""
        escape = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
        prepend = [{"type": "Prepend", "prepend": SPACE}] if self.has_leading_space else []
        strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if self.has_leading_space else []
        unescape = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
        return bpe_definition(
            vocab=self.ids,
            merges=self.merges(),
            added_tokens=[added_token(i, self.pieces[i]) for i in sorted(self.special_ids)],
            normalizer={"type": "Sequence", "normalizers": [*prepend, escape]},
            decoder={
                "type": "Sequence",
                "decoders": [unescape, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip],
            },
            unk_token=self.proto.trainer_spec.unk_piece,
            fuse_unk=True,
            byte_fallback=bool(self.proto.trainer_spec.byte_fallback),
        )


def _from_bytes(model: bytes) -> SentencePieceBackend:
    return SentencePieceBackend(ModelProto.FromString(model), "a pickled tokenizer")
