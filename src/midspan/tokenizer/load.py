"""Where a vocabulary comes from: tokenizer.model, tokenizer.json or GGUF, and the small files beside it.

In a folder with both files the tokenizer.model encodes, and the tokenizer.json says which tokens were added
to it: SentencePiece is the original of the family, keeps a leading space of the text apart from the implicit
one, and needs no pre-tokeniser to stay fast on long texts.

    tokenizer.model | tokenizer.json | .gguf      pieces, merges or scores, special tokens
    tokenizer_config.json                         names of BOS and EOS, whether BOS is added, chat template,
                                                  what is added to the logit of the end of an infill
    special_tokens_map.json, added_tokens.json    the same in older folders
    chat_template.jinja                           the chat template in newer ones
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from midspan.errors import InputError
from midspan.tokenizer.bpe_backend import BpeBackend, definition_from_gguf
from midspan.tokenizer.gguf_vocabulary import GgufVocabulary, read_gguf_vocabulary
from midspan.tokenizer.sentencepiece_backend import SentencePieceBackend, proto_from_file, proto_from_gguf

Backend = SentencePieceBackend | BpeBackend

END_BIAS, GGUF_END_BIAS = "fim_end_bias", "tokenizer.fim_end_bias."
"""Where files say what is added to the logit of an infill's end: in tokenizer_config.json, and in GGUF."""
_USUAL = {
    "bos_token": ("<s>", "<|begin_of_text|>", "<｜begin▁of▁sentence｜>"),
    "eos_token": ("</s>", "<|end_of_text|>", "<｜end▁of▁sentence｜>", "<|endoftext|>"),
}
"""Names of BOS and EOS for a vocabulary that comes without a tokenizer_config.json."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """A backend and what the files around it say."""

    backend: Backend
    roles: dict[str, str]
    """Pieces by role: bos_token, eos_token, unk_token, pad_token, as far as they are known."""
    add_bos: bool
    chat_template: str | None
    end_bias: Mapping[str, float] = field(default_factory=dict)
    """Nats that are added to the logit of an infill's end, by layout (see `Tokenizer.end_bias`)."""


def load_vocabulary(path: Path) -> Vocabulary:
    """Load a folder, a `tokenizer.model`, a `tokenizer.json` or the vocabulary inside a `.gguf`.

    Raises InputError for a path that is none of these, or whose content cannot be used.
    """
    if path.is_dir():
        return _load_folder(path)
    if not path.is_file():
        raise InputError(f"there is no tokenizer at {path}; name a folder, a .model, a .json or a .gguf")
    if path.suffix == ".gguf":
        return _load_gguf(read_gguf_vocabulary(path))
    if path.suffix == ".model":
        return _with_settings(
            SentencePieceBackend(proto_from_file(path.read_bytes(), str(path)), str(path)), path.parent
        )
    if path.suffix == ".json":
        return _with_settings(_load_definition(path), path.parent)
    raise InputError(f"{path} is not a .model, .json or .gguf file; name the tokenizer's file or its folder")


def _load_gguf(vocabulary: GgufVocabulary) -> Vocabulary:
    backend: Backend
    if vocabulary.kind == "llama":
        backend, adds_bos = SentencePieceBackend(proto_from_gguf(vocabulary), vocabulary.source), True
    elif vocabulary.kind == "gpt2":
        backend = BpeBackend(definition_from_gguf(vocabulary), vocabulary.source)
        adds_bos = vocabulary.pre_tokenizer == "llama-bpe"  # llama.cpp's defaults
    else:
        raise InputError(
            f"{vocabulary.source} holds a vocabulary of kind {vocabulary.kind!r}; Midspan knows llama, gpt2"
        )
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    ids = {role: vocabulary.token_id(name) for role, name in names.items()}
    return Vocabulary(
        backend=backend,
        roles={role: vocabulary.pieces[i] for role, i in ids.items() if i is not None},
        add_bos=vocabulary.flag("add_bos_token", adds_bos),
        chat_template=vocabulary.entries.get("tokenizer.chat_template"),
        end_bias={
            key.removeprefix(GGUF_END_BIAS): float(value)
            for key, value in vocabulary.entries.items()
            if key.startswith(GGUF_END_BIAS)
        },
    )


def _load_definition(path: Path) -> BpeBackend:
    definition = _read_json(path)
    try:
        return BpeBackend(definition, str(path))
    except (KeyError, TypeError, AttributeError) as error:  # a section that is absent or of another shape
        raise InputError(
            f"{path} does not have the shape of a tokenizer.json ({error!r}); fetch it again"
        ) from error


def _load_folder(folder: Path) -> Vocabulary:
    model, definition = folder / "tokenizer.model", folder / "tokenizer.json"
    if not model.is_file() and not definition.is_file():
        raise InputError(f"{folder} holds neither tokenizer.model nor tokenizer.json; name the tokenizer's folder")
    try:
        proto = proto_from_file(model.read_bytes(), str(model)) if model.is_file() else None
    except InputError:  # Llama 3 ships tiktoken's ranks under this name, beside a tokenizer.json
        if not definition.is_file():
            raise
        proto = None
    if proto is None:
        return _with_settings(_load_definition(definition), folder)
    backend = SentencePieceBackend(proto, str(model))
    added: dict[str, int] = {}
    if definition.is_file():
        added = {entry["content"]: entry["id"] for entry in _read_json(definition).get("added_tokens") or []}
    elif (folder / "added_tokens.json").is_file():
        added = _read_json(folder / "added_tokens.json")
    backend = backend.with_special(sorted(added, key=added.__getitem__))
    for piece, token_id in added.items():
        if backend.ids[piece] != token_id:
            raise InputError(
                f"{folder} adds the token {piece!r} as id {token_id}, but behind tokenizer.model it is "
                f"{backend.ids[piece]}; remove the file that does not belong to this tokenizer"
            )
    return _with_settings(backend, folder)


def _with_settings(backend: Backend, folder: Path) -> Vocabulary:
    """A tokenizer with the names, BOS rule and chat template that the folder's small files give."""
    config: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            config |= _read_json(folder / name)
    roles: dict[str, str] = {}
    for role in ("bos_token", "eos_token", "unk_token", "pad_token"):
        usual = (piece for piece in _USUAL.get(role, ()) if backend.ids.get(piece) in backend.special_ids)
        token = config[role] if role in config else next(usual, None)  # null says that there is none
        piece = token["content"] if isinstance(token, dict) else token
        if piece is not None and piece in backend.ids:
            roles[role] = piece
    add_bos = config.get("add_bos_token")
    if add_bos is None:
        add_bos = _adds_bos(backend, roles.get("bos_token"))
    template = config.get("chat_template")
    if isinstance(template, list):  # several named templates
        template = next((entry["template"] for entry in template if entry["name"] == "default"), None)
    if (folder / "chat_template.jinja").is_file():
        template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    return Vocabulary(
        backend=backend,
        roles=roles,
        add_bos=add_bos,
        chat_template=template,
        end_bias=_end_bias(config.get(END_BIAS) or {}, folder),
    )


def _end_bias(values: Any, folder: Path) -> dict[str, float]:
    if not isinstance(values, dict) or not all(
        isinstance(value, (int, float)) and math.isfinite(value) for value in values.values()
    ):
        raise InputError(
            f"{folder / 'tokenizer_config.json'} has {END_BIAS} = {values}; give each layout a number"
        )
    return {layout: float(value) for layout, value in values.items()}


def _adds_bos(backend: Backend, bos: str | None) -> bool:
    """What the vocabulary itself says: SentencePiece families do, a tokenizer.json has a template for it."""
    if isinstance(backend, SentencePieceBackend):
        return True
    post_processor = backend.definition.get("post_processor") or {}
    steps = post_processor.get("processors", [post_processor])
    templates = [step["single"] for step in steps if step.get("type") == "TemplateProcessing"]
    return any(template[0].get("SpecialToken", {}).get("id") == bos for template in templates)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); fetch it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__} where an object is expected; fetch it again")
    return content
