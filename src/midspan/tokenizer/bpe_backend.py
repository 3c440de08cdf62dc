"""Byte-pair encoding through the `tokenizers` library: byte-level vocabularies and every `tokenizer.json`.

The state is a *definition*, the content of a tokenizer.json; a GGUF vocabulary of kind "gpt2" is first turned
into one. From it an *engine* is built that differs in one respect: it does not know the special tokens.

    definition ──┬── saved as it is: tokenizer.json, with all special tokens
                 └── engine: no added_tokens, special pieces and merges that make them taken out of the model

The library looks for added tokens in every text that it encodes, also with `add_special_tokens=False`, so a
user's file that holds the characters `<|endoftext|>` would end its own document. An engine that has no such
id cannot emit it, whatever the text is. This holds for tokens marked "not special" too: Qwen marks its fim
tokens so, and DeepSeek-Coder 13 letters (õ, ÷, Á, ...) that both the library and llama.cpp take for single
bytes; here those letters are the two bytes that they are in UTF-8.

Bytes without a token. A vocabulary may lack some of the 256 byte symbols (SmolLM2 lacks 21; 8 of them occur
in UTF-8). llama.cpp keeps such a symbol in its place while merging and skips it at the end; the library drops
it before merging, which lets its neighbours merge. Cutting words at these symbols, as one more step of the
pre-tokeniser, gives llama.cpp's ids in the engine and in the saved file.

Leading space. Llama-2-style files prepend "▁" to the text, by a Prepend normaliser or a Metaspace
pre-tokeniser. Metaspace does not when the text begins with a space, so that "x" and " x" get the same ids and
cannot both be given back. The engine always prepends, as SentencePiece does.

Left out: model types other than BPE, and byte-level files with `add_prefix_space` (RoBERTa), each refused.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import tokenizers

from midspan.errors import InputError
from midspan.tokenizer.gguf_vocabulary import GgufVocabulary, PieceType

Definition = dict[str, Any]

SPACE = "▁"  # U+2581, how SentencePiece writes a space inside a piece
SENTINELS_BY_NAME = frozenset({"▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>", "<step>"})
"""Code Llama's control pieces, which its vocabulary lists as ordinary ones (`<step>`: 70B - Instruct)."""
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")

_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(256) if byte not in set(_PRINTABLE)]
BYTE_OF_SYMBOL = {chr(byte): byte for byte in _PRINTABLE} | {chr(256 + i): byte for i, byte in enumerate(_OTHERS)}
"""GPT-2's alphabet: printable Latin-1 characters stand for themselves, the other 68 bytes from U+0100 on."""
_IN_UTF8 = frozenset(range(256)) - {0xC0, 0xC1} - set(range(0xF5, 0x100))

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS_OF_GPT4 = (
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,%d}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_WORDS_OF_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
PRE_TOKENIZERS: dict[str, tuple[str, ...]] = {
    "smollm": (r"\p{N}", _WORDS_OF_GPT2),
    "starcoder": (r"\p{N}", _WORDS_OF_GPT2),
    "llama-bpe": (_WORDS_OF_GPT4 % 3,),
    "qwen2": (_WORDS_OF_GPT4 % 1,),
    "gpt-2": (_WORDS_OF_GPT2,),
    "deepseek-coder": (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"),
}
"""Regular expressions by the name in `tokenizer.ggml.pre`, applied in turn, each match cut out as a word.
Facts from llama.cpp's src/llama-vocab.cpp and the families' own tokenizer.json files."""


_ABSENT = r"[\x{"
"""How the expression begins that cuts out bytes without a token."""


def plain_regexes(regexes: Iterable[str]) -> tuple[str, ...]:
    """Regular expressions in one spelling: line ends escaped, no `{1,1}`."""
    return tuple(regex.replace("\r", r"\r").replace("\n", r"\n").replace("{1,1}", "") for regex in regexes)


def _steps(part: Definition | None, key: str) -> list[Definition]:
    """The steps of a normaliser or pre-tokeniser, whether or not it is a Sequence."""
    if part is None:
        return []
    return list(part[key]) if part["type"] == "Sequence" else [part]


def _sequence(steps: list[Definition], key: str) -> Definition | None:
    return {"type": "Sequence", key: steps} if steps else None


def _split(regex: str, behavior: str = "Isolated") -> Definition:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": False}


def added_token(token_id: int, content: str, *, control: bool = True) -> Definition:
    """An entry of `added_tokens` for a token that is matched literally; `control` if it stands for no text."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": token_id, "content": content, **flags, "special": control}


def bpe_definition(
    *, vocab: dict[str, int], merges: list[list[str]], added_tokens: list[Definition], **parts: Any
) -> Definition:
    """A tokenizer.json with a BPE model; `parts` are its other sections and the model's flags."""
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": parts.pop("unk_token", None),
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": parts.pop("fuse_unk", False),
        "byte_fallback": parts.pop("byte_fallback", False),
        "ignore_merges": parts.pop("ignore_merges", False),
        "vocab": vocab,
        "merges": merges,
    }
    head = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added_tokens}
    return {
        **head,
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        **parts,
        "model": model,
    }


def definition_from_gguf(vocabulary: GgufVocabulary) -> Definition:
    """A GGUF vocabulary of kind "gpt2" as a tokenizer.json.

    Raises InputError for a pre-tokeniser that is not in `PRE_TOKENIZERS`.
    """
    regexes = PRE_TOKENIZERS.get(vocabulary.pre_tokenizer)
    if regexes is None:
        raise InputError(
            f"{vocabulary.source} names the pre-tokeniser {vocabulary.pre_tokenizer!r}; "
            f"Midspan knows {', '.join(sorted(PRE_TOKENIZERS))}"
        )
    vocab = {piece: i for i, piece in enumerate(vocabulary.pieces)}
    if len(vocab) < len(vocabulary.pieces):
        raise InputError(f"{vocabulary.source} lists a piece of its vocabulary twice; convert the model again")
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    steps = [*(_split(regex) for regex in regexes), byte_level]
    absent = [symbol for symbol, byte in BYTE_OF_SYMBOL.items() if byte in _IN_UTF8 and symbol not in vocab]
    if absent:
        codes = [f"\\x{{{ord(symbol):X}}}" for symbol in absent]
        steps.append(_split("[" + "".join(codes) + "]", "Removed"))
    return bpe_definition(
        vocab=vocab,
        merges=[merge.split(" ", 1) for merge in vocabulary.merges],
        added_tokens=[
            added_token(i, vocabulary.pieces[i], control=vocabulary.types[i] != PieceType.USER_DEFINED)
            for i in sorted(vocabulary.special_ids())
        ],
        pre_tokenizer=_sequence(steps, "pretokenizers"),
        decoder={**byte_level, "use_regex": True},
        ignore_merges=vocabulary.pre_tokenizer == "llama-bpe",
    )


def _with_leading_space(
    definition: Definition, leading_space: bool
) -> tuple[Definition | None, Definition | None]:
    """Normaliser and pre-tokeniser that prepend "▁", or that do not."""
    normalizers, pre_tokenizers = [], []
    for step in _steps(definition["normalizer"], "normalizers"):
        if step["type"] != "Prepend" or leading_space:
            normalizers.append(step)
    for step in _steps(definition["pre_tokenizer"], "pretokenizers"):
        if _prepends(step):
            if leading_space:
                normalizers.append({"type": "Prepend", "prepend": SPACE})
            step = {**step, "prepend_scheme": "never"}
            step.pop("add_prefix_space", None)
        pre_tokenizers.append(step)
    return _sequence(normalizers, "normalizers"), _sequence(pre_tokenizers, "pretokenizers")


def _prepends(step: Definition) -> bool:
    """Whether a step puts a space in front; older Metaspace steps say so by `add_prefix_space`."""
    if step["type"] == "Prepend":
        return True
    scheme = step.get("prepend_scheme", "always" if step.get("add_prefix_space", True) else "never")
    return bool(step["type"] == "Metaspace" and scheme != "never")


class BpeBackend:
    """BPE vocabulary, encoder and piece bytes from a tokenizer.json's content.

    `pieces[i]` is the piece of id i as the vocabulary writes it, "" where the file has no such id.
    """

    def __init__(self, definition: Definition, source: str) -> None:
        """Check a definition and build its engine; `source` names it in error sentences."""
        model = definition.get("model")
        if not isinstance(model, dict) or model.get("type", "BPE") != "BPE" or "merges" not in model:
            kind = model.get("type", "nameless") if isinstance(model, dict) else "missing"
            raise InputError(f"{source} holds a {kind} model; Midspan reads tokenizer.json files with a BPE model")
        definition = {"normalizer": None, "pre_tokenizer": None, "decoder": None, **definition}
        steps = _steps(definition["pre_tokenizer"], "pretokenizers")
        byte_level = [step for step in steps if step["type"] == "ByteLevel"]
        if any(step.get("add_prefix_space", True) for step in byte_level):
            raise InputError(
                f"{source} uses add_prefix_space, which no Llama family does; choose another tokenizer"
            )
        added = {entry["content"]: entry for entry in definition.get("added_tokens") or []}
        for piece in SENTINELS_BY_NAME & model["vocab"].keys() - added.keys():
            added[piece] = added_token(model["vocab"][piece], piece)
        merges = [m.split(" ", 1) if isinstance(m, str) else m for m in model["merges"]]
        merges = [m for m in merges if added.keys().isdisjoint((*m, m[0] + m[1]))]
        self.definition = definition | {
            "added_tokens": sorted(added.values(), key=lambda entry: entry["id"]),
            "model": {**model, "merges": merges},
        }
        self.ids: dict[str, int] = model["vocab"] | {piece: entry["id"] for piece, entry in added.items()}
        self.pieces = [""] * (1 + max(self.ids.values(), default=-1))
        for piece, i in self.ids.items():
            self.pieces[i] = piece
        absent = {i for i, piece in enumerate(self.pieces) if not piece}
        self.special_ids = frozenset(absent | {entry["id"] for entry in added.values()})
        self.has_leading_space = any(map(_prepends, [*_steps(definition["normalizer"], "normalizers"), *steps]))
        self.composes = any(step["type"] == "NFC" for step in self.steps("normalizer", "normalizers"))
        """Whether the vocabulary's normaliser composes characters (e and an accent become é)."""
        self._is_byte_level = bool(byte_level)
        self._byte_fallback = bool(model.get("byte_fallback"))
        self._engine = self._build_engine(source)
        self._bare_engine = self._engine
        if self.has_leading_space:
            self._bare_engine = self._shell(leading_space=False)
            self._bare_engine.model = self._engine.model  # shared, not copied

    def steps(self, section: str, key: str) -> list[Definition]:
        """The steps of the definition's normaliser or pre-tokeniser."""
        return _steps(self.definition[section], key)

    def word_regexes(self) -> tuple[str, ...]:
        """The pre-tokeniser as regular expressions applied in turn, whatever way the file spells them.

        They compare with `plain_regexes`; a step that is none is there as JSON. What cuts out bytes without a
        token is left out.
        """
        found = []
        for step in self.steps("pre_tokenizer", "pretokenizers"):
            regex = step["pattern"].get("Regex") if step["type"] == "Split" else None
            if regex is not None and step["behavior"] == "Isolated" and not step.get("invert"):
                found.append(regex)
            elif step["type"] == "Digits" and step["individual_digits"]:
                found.append(r"\p{N}")
            elif step["type"] == "ByteLevel" and step.get("use_regex", True):
                found.append(_WORDS_OF_GPT2)
            elif step["type"] != "ByteLevel" and not (regex or "").startswith(_ABSENT):
                found.append(json.dumps(step))
        return plain_regexes(found)

    def _build_engine(self, source: str) -> tokenizers.Tokenizer:
        model = self.definition["model"]
        model = {
            **model,
            "vocab": {piece: i for piece, i in model["vocab"].items() if i not in self.special_ids},
            "dropout": None,
            "unk_token": None,
        }
        try:
            return self._shell(leading_space=True, model=model)
        except Exception as error:  # the library raises bare Exception for a definition that it cannot use
            raise InputError(f"{source} is not a tokenizer.json that can be used ({error})") from error

    def _shell(self, *, leading_space: bool, model: Definition | None = None) -> tokenizers.Tokenizer:
        """The definition's normaliser and pre-tokeniser around `model` or an empty one; no added tokens."""
        normalizer, pre_tokenizer = _with_leading_space(self.definition, leading_space)
        shell = bpe_definition(
            vocab={},
            merges=[],
            added_tokens=[],
            normalizer=normalizer,
            pre_tokenizer=pre_tokenizer,
            decoder=None,
        )
        return tokenizers.Tokenizer.from_str(json.dumps({**shell, "model": model or shell["model"]}))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as the definition; the receiving process builds its own engine."""
        return BpeBackend, (self.definition, "a pickled tokenizer")

    def encode(self, text: str, leading_space: bool) -> list[int]:
        """Ids of one text."""
        engine = self._engine if leading_space else self._bare_engine
        return engine.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str], leading_space: bool) -> list[list[int]]:
        """Ids of many texts, on the library's threads."""
        engine = self._engine if leading_space else self._bare_engine
        return [encoding.ids for encoding in engine.encode_batch_fast(list(texts), add_special_tokens=False)]

    def bytes_of_pieces(self) -> list[bytes]:
        """The bytes that each piece stands for, specials included as nothing."""
        to_bytes = self._byte_level_bytes if self._is_byte_level else self._metaspace_bytes
        return [b"" if i in self.special_ids else to_bytes(piece) for i, piece in enumerate(self.pieces)]

    def _byte_level_bytes(self, piece: str) -> bytes:
        if not BYTE_OF_SYMBOL.keys() >= set(piece):  # a word that was added to the vocabulary as it is written
            return piece.encode()
        return bytes(BYTE_OF_SYMBOL[symbol] for symbol in piece)

    def _metaspace_bytes(self, piece: str) -> bytes:
        byte = _BYTE_PIECE.fullmatch(piece) if self._byte_fallback else None
        return bytes([int(byte[1], 16)]) if byte else piece.replace(SPACE, " ").encode()

    @cached_property
    def _encodable_bytes(self) -> bytes | None:
        """Bytes that survive encoding, if the definition is one where that decides; otherwise None."""
        composes_at_most = all(step["type"] == "NFC" for step in self.steps("normalizer", "normalizers"))
        if self._is_byte_level and composes_at_most:
            ordinary = self.ids.keys() - {self.pieces[i] for i in self.special_ids}
            return bytes(byte for symbol, byte in BYTE_OF_SYMBOL.items() if symbol in ordinary)
        return None

    def can_encode(self, text: str) -> bool | None:
        """Whether encoding loses nothing; None where only encoding and decoding can tell."""
        if self._encodable_bytes is None:
            return None
        if self.composes and not unicodedata.is_normalized("NFC", text):
            return False
        return not text.encode().translate(None, self._encodable_bytes)

    def with_special(self, pieces: Iterable[str]) -> "BpeBackend":
        """A backend where these pieces are special; new ones get the next ids."""
        added = list(self.definition["added_tokens"])
        next_id = len(self.pieces)
        for piece in pieces:
            token_id = self.ids.get(piece, next_id)
            if token_id not in self.special_ids:
                added.append(added_token(token_id, piece))
            next_id = max(next_id, token_id + 1)
        return BpeBackend({**self.definition, "added_tokens": added}, "the tokenizer with sentinels")

    def identity(self) -> bytes:
        """Everything that determines ids, in one canonical form."""
        parts = {key: self.definition[key] for key in ("normalizer", "pre_tokenizer", "model")}
        parts["special"] = sorted((i, self.pieces[i]) for i in self.special_ids)
        return json.dumps(parts, sort_keys=True).encode()

    def files(self, post_processor: Definition | None) -> dict[str, bytes]:
        """Files that hold this vocabulary, by name."""
        definition = self.definition | {"truncation": None, "padding": None, "post_processor": post_processor}
        return {"tokenizer.json": json.dumps(definition, ensure_ascii=False).encode()}
