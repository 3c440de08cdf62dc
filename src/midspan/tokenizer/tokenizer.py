"""One tokenizer over SentencePiece, tokenizer.json and GGUF vocabularies, safe for text that users wrote.

    Tokenizer ── names and ids, pieces, bytes, files     this module; `load.py` finds the parts
      └── backend ── SentencePieceBackend                tokenizer.model, GGUF kind "llama"
                 └── BpeBackend                          tokenizer.json, GGUF kind "gpt2"

Two promises that the libraries underneath do not make:

* `encode` never gives a special id, whatever the text says. Sentinels, BOS and EOS are put between encoded
  parts as ids, by whoever builds a prompt or a training example.
* Ids are bytes: `decode_bytes` is the concatenation of `piece_bytes`, so parts can be decoded and joined.
  SentencePiece's implicit leading space is a byte of the ids like any other, dropped only on request.

Left out: training a vocabulary, chat formats (`chat.py`), and truncation or padding stored in a
tokenizer.json.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from midspan.errors import InputError
from midspan.files import atomic_file
from midspan.tokenizer.bpe_backend import Definition
from midspan.tokenizer.fast import FastEncoder, proved
from midspan.tokenizer.gguf_export import gguf_fields
from midspan.tokenizer.load import END_BIAS, Vocabulary, load_vocabulary

_TOKENIZER_FILES = {"tokenizer.model", "added_tokens.json", "special_tokens_map.json", "chat_template.jinja"}


class Tokenizer:
    """Text to ids and ids to bytes; immutable, safe between threads, and picklable."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Use `Tokenizer.load`."""
        self._vocabulary = vocabulary
        self._backend = vocabulary.backend
        self.vocab_size = len(self._backend.pieces)
        """Number of ids. A model's embedding may be larger, padded."""
        self.bos_id = self._backend.ids.get(vocabulary.roles.get("bos_token", ""))
        self.eos_id = self._backend.ids.get(vocabulary.roles.get("eos_token", ""))
        self.add_bos = vocabulary.add_bos and self.bos_id is not None
        """Whether the family's models expect BOS in front of every document."""
        self.has_leading_space = self._backend.has_leading_space
        """Whether `encode` puts an implicit space in front, as SentencePiece does."""
        self.chat_template = vocabulary.chat_template
        """Jinja source of the family's chat format, where the vocabulary's files hold one."""
        self.end_bias = vocabulary.end_bias
        """Nats that decoding adds to the logit of an infill's end, by layout: what training fitted to the model
        (`midspan.train.ends`), and like the chat template beside the vocabulary for want of a better place."""
        self._fast: FastEncoder | None = None

    @staticmethod
    def load(path: str | os.PathLike[str]) -> "Tokenizer":
        """Load a folder, a `tokenizer.model`, a `tokenizer.json` or the vocabulary inside a `.gguf`.

        A file's neighbours `tokenizer_config.json`, `special_tokens_map.json` and `chat_template.jinja` are
        read for the names of BOS and EOS and the chat template. Raises InputError for a path that is none of
        these.
        """
        return Tokenizer(load_vocabulary(Path(path)))

    def encode(self, text: str, *, leading_space: bool = True) -> list[int]:
        """Ids of user text, without BOS and EOS; no special id, whatever the text says.

        `leading_space=False` leaves out SentencePiece's implicit leading space: for text that stands behind a
        sentinel or other text. Byte-level vocabularies have none, so it changes nothing there.
        Raises InputError for a text with lone surrogates, which are no characters.
        """
        if self._fast is not None:
            return self.encode_batch([text], leading_space=leading_space)[0]
        try:
            return self._backend.encode(text, leading_space)
        except (TypeError, RuntimeError) as error:
            _refuse_surrogates([text], error)
            raise

    def encode_batch(self, texts: Sequence[str], *, leading_space: bool = True) -> list[list[int]]:
        """`encode` of each text, on the library's threads."""
        try:
            if self._fast is None:
                return self._backend.encode_batch(texts, leading_space)
            lead = b" " if leading_space and self.has_leading_space else b""
            parts = [lead + text.encode() if text else b"" for text in texts]
        except (TypeError, RuntimeError, UnicodeEncodeError) as error:
            _refuse_surrogates(texts, error)
            raise
        bounds = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        ids, offsets = self.encode_ranges(np.frombuffer(b"".join(parts), np.uint8), bounds[:-1], bounds[1:])
        return [ids[start:end].tolist() for start, end in itertools.pairwise(offsets.tolist())]

    def encode_ranges(
        self, data: np.ndarray, starts: np.ndarray, ends: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids of ranges of a buffer, as arrays, each `encode(text, leading_space=False)` of its text.

        A leading space is a byte like any other here: `encode(text)` is the range that begins with a space in
        front of the text, where `has_leading_space`, and an empty one for an empty text.

        Args:
            data: UTF-8, uint8.
            starts: where each range begins (n), int64, in front of a character.
            ends: where it ends; one that ends before it begins is empty.

        Returns:
            The ids of all ranges, one after the other (uint32), and offsets into them (n + 1, int64).
        """
        if self._fast is not None:
            ids, offsets, left = self._fast.encode(data, starts, ends)
            if not len(left):
                return ids, offsets
            found = [ids[start:end] for start, end in itertools.pairwise(offsets)]
        else:
            left, found = np.arange(len(starts)), [np.empty(0, np.uint32)] * len(starts)
        texts = [data[starts[n] : max(starts[n], ends[n])].tobytes().decode() for n in left]
        for n, of_text in zip(left, self._backend.encode_batch(texts, False), strict=True):
            found[n] = np.array(of_text, np.uint32)
        lengths = [len(of_text) for of_text in found]
        return np.concatenate([*found, np.empty(0, np.uint32)]), np.cumsum([0, *lengths], dtype=np.int64)

    def accelerated(self, texts: Iterable[str] = (), report: Callable[[str], None] | None = None) -> "Tokenizer":
        """A tokenizer that gives the same ids many times faster, or this one where that cannot be.

        Its kernels have to agree with the library on the first megabyte of `texts`; where one id differs, the
        library goes on encoding everything, and `report` (standard error if not given) gets a line.
        """
        try:
            fast = FastEncoder(self._backend)
        except ValueError:
            return self
        trial = Tokenizer(self._vocabulary)
        trial._fast = fast
        reporting = {} if report is None else {"report": report}
        return trial if proved(trial.encode_batch, self.encode_batch, texts, **reporting) else self

    def __getstate__(self) -> dict[str, Any]:
        """The kernels' tables and memory are built again by the process that receives a tokenizer."""
        return self.__dict__ | {"_fast": self._fast is not None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._fast = FastEncoder(self._backend) if state["_fast"] else None

    def can_encode(self, text: str) -> bool:
        """Whether `encode` keeps every byte of the text.

        It may not: SmolLM2 has no token for some control characters, SentencePiece takes "▁" for a space, a
        tokenizer.json may normalise Unicode. Cheap for all known families; others encode and decode.
        """
        try:
            data = text.encode()
            known = self._backend.can_encode(text)
        except UnicodeEncodeError:  # a lone surrogate
            return False
        return self.decode_bytes(self.encode(text), leading_space=True) == data if known is None else known

    @cached_property
    def _bytes_of_pieces(self) -> list[bytes]:
        return self._backend.bytes_of_pieces()

    @cached_property
    def piece_lengths(self) -> np.ndarray:
        """How many bytes each id stands for (`vocab_size`), int64."""
        return np.array([len(data) for data in self._bytes_of_pieces], np.int64)

    def piece_bytes(self, token_id: int) -> bytes:
        """The bytes that an id stands for in text; nothing for special ids. May be part of a character."""
        return self._bytes_of_pieces[self._checked(token_id)]

    def decode_bytes(self, ids: Iterable[int], *, leading_space: bool = False) -> bytes:
        """The bytes of ids: the concatenation of their `piece_bytes`.

        `leading_space=True` says that the ids begin where `encode` put its implicit leading space; that one
        space is dropped. `decode_bytes(encode(text), leading_space=True)` is the text. By default nothing is
        dropped, which is right for generated ids and for the parts of an infill.
        """
        ids = list(ids)
        if ids:
            self._checked(min(ids))
            self._checked(max(ids))
        data = b"".join(map(self._bytes_of_pieces.__getitem__, ids))
        return data[1:] if leading_space and self.has_leading_space and data.startswith(b" ") else data

    def decode(self, ids: Iterable[int], *, leading_space: bool = False) -> str:
        """`decode_bytes` as text; bytes that are no UTF-8, such as half a character, become U+FFFD."""
        return self.decode_bytes(ids, leading_space=leading_space).decode("utf-8", errors="replace")

    def id_of(self, piece: str) -> int | None:
        """The id of a piece as the vocabulary writes it ("Ġdef", "▁<PRE>", "<|im_end|>"), or None."""
        return self._backend.ids.get(piece)

    def piece(self, token_id: int) -> str:
        """The piece of an id as the vocabulary writes it."""
        return self._backend.pieces[self._checked(token_id)]

    def _checked(self, token_id: int) -> int:
        if not 0 <= token_id < self.vocab_size:  # a negative one would count from the end
            raise IndexError(f"{token_id} is no token id: ids are 0 to {self.vocab_size - 1}")
        return token_id

    def is_special(self, token_id: int) -> bool:
        """Whether this id is a control token, a sentinel or another added token: `encode` never gives it."""
        return token_id in self._backend.special_ids

    def with_sentinels(self, pieces: Sequence[str]) -> "Tokenizer":
        """A tokenizer that has these pieces as special tokens.

        New ones get ids `vocab_size`, `vocab_size + 1`, ... in the order given; a piece that the vocabulary
        has keeps its id and becomes special, so that text no longer gives it.
        """
        if not all(pieces):
            raise InputError(
                f"an empty piece cannot be a sentinel; give names with characters, not {list(pieces)}"
            )
        backend = self._backend.with_special(dict.fromkeys(pieces))
        return Tokenizer(replace(self._vocabulary, backend=backend))

    def with_chat_template(self, template: str) -> "Tokenizer":
        """A tokenizer with this chat template (Jinja source); ids do not depend on it."""
        return Tokenizer(replace(self._vocabulary, chat_template=template))

    def with_end_bias(self, nats: Mapping[str, float]) -> "Tokenizer":
        """A tokenizer with another `end_bias`; ids do not depend on it."""
        return Tokenizer(replace(self._vocabulary, end_bias=dict(nats)))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over what determines ids: vocabulary, merges, rules, special tokens, BOS and EOS."""
        settings = json.dumps([self.bos_id, self.eos_id, self.add_bos])
        return hashlib.sha256(self._backend.identity() + settings.encode()).hexdigest()

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write files that `load` and `transformers.AutoTokenizer` read and that give the same ids.

        tokenizer.json and tokenizer_config.json (with the chat template), and tokenizer.model for
        SentencePiece. AutoTokenizer adds BOS where `add_bos` says so. What another tokenizer left in the
        folder under the usual names is removed, since loaders would mix it in; all other files are left
        alone.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config: dict[str, Any] = {
            # The class that takes tokenizer.json as it is; family classes rebuild parts of it.
            "tokenizer_class": "PreTrainedTokenizerFast",
            "add_bos_token": self.add_bos,
            "add_eos_token": False,
            "clean_up_tokenization_spaces": False,
            "bos_token": None,
            "eos_token": None,
            **self._vocabulary.roles,
        }
        if self.chat_template is not None:
            config["chat_template"] = self.chat_template
        if self.end_bias:
            config[END_BIAS] = dict(self.end_bias)
        files = self._backend.files(self._post_processor())
        files["tokenizer_config.json"] = json.dumps(config, indent=2, ensure_ascii=False).encode()
        for name, data in files.items():
            with atomic_file(folder / name) as aside:
                aside.write_bytes(data)
        for name in _TOKENIZER_FILES - files.keys():
            (folder / name).unlink(missing_ok=True)

    def gguf_fields(self, rows: int | None = None) -> dict[str, Any]:
        """The `tokenizer.*` metadata of a GGUF file from which llama.cpp and `load` get the same ids.

        Args:
            rows: rows of the embedding, where it has more than there are ids; the rest is listed as unused,
                since a GGUF has a piece for every row.

        Raises:
            InputError: a pre-tokeniser or a way of merging that GGUF has no name for.
        """
        return gguf_fields(self._vocabulary, self.add_bos, rows or self.vocab_size)

    def _post_processor(self) -> Definition | None:
        """The part of tokenizer.json that adds BOS."""
        if not self.add_bos:
            return None
        bos = self._vocabulary.roles["bos_token"]
        token = {"SpecialToken": {"id": bos, "type_id": 0}}
        first, second = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}
        special = {bos: {"id": bos, "ids": [self.bos_id], "tokens": [bos]}}
        single, pair = [token, first], [token, first, token, second]
        return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special}


def _refuse_surrogates(texts: Sequence[str], error: Exception) -> None:
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as lone:
            raise InputError(
                f"a text holds U+{ord(text[lone.start]):04X} at character {lone.start}, a lone surrogate "
                "and no character; decode its file with errors='replace'"
            ) from error
