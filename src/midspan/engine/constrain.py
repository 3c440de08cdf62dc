"""Texts of a given form: one of several strings, a regular expression, or JSON of a schema.

A constraint starts a `Walk` for each text. Before a token it says which may come, after it takes note. Choices are
a matter of bytes and need nothing; expressions and schemas are compiled by `llguidance`, an extra, which knows how
tokens and characters interlock.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from midspan.errors import InputError
from midspan.fim import Healer
from midspan.tokenizer import Tokenizer


class Walk(Protocol):
    """One text on its way."""

    done: bool
    """The text is complete and nothing may follow."""

    @property
    def may_end(self) -> bool:
        """Whether the text is complete as it is."""

    def allowed(self) -> Tensor:
        """Ids that may come next, beside the end where it may come; none where it has to."""

    def take(self, token_id: int) -> None:
        """A token was written."""


class Constraint(Protocol):
    """What a text must be."""

    def begin(self) -> Walk:
        """A new text."""


class Choice:
    """One of several strings."""

    def __init__(self, options: Sequence[str], healer: Healer, tokenizer: Tokenizer) -> None:
        if not options or not all(options):
            raise InputError("a choice needs at least one option, and none that is empty")
        self._options, self._healer, self._tokenizer = [o.encode() for o in options], healer, tokenizer

    def begin(self) -> Walk:
        """See `Constraint.begin`."""
        return _ChoiceWalk(self._options, self._healer, self._tokenizer)


class _ChoiceWalk:
    def __init__(self, options: Sequence[bytes], healer: Healer, tokenizer: Tokenizer) -> None:
        self._left, self._healer, self._tokenizer = list(options), healer, tokenizer
        self.done = False

    def allowed(self) -> Tensor:
        """See `Walk.allowed`."""
        ids = {i for left in self._left if left for i in self._healer.within(left)}
        return torch.tensor(sorted(ids), dtype=torch.long)

    def take(self, token_id: int) -> None:
        """See `Walk.take`."""
        data = self._tokenizer.piece_bytes(token_id)
        self._left = [left[len(data) :] for left in self._left if left.startswith(data)]
        self.done = not any(self._left)

    @property
    def may_end(self) -> bool:
        """See `Walk.may_end`."""
        return b"" in self._left


class Grammar:
    """A regular expression, or JSON of a schema, through llguidance."""

    def __init__(
        self, tokenizer: Tokenizer, *, regex: str | None = None, schema: Mapping[str, Any] | str | None = None
    ):
        """
        Raises:
            InputError: llguidance is not installed, or refuses the expression or schema.
        """
        try:
            import llguidance
        except ImportError:
            raise InputError(
                "regular expressions and JSON schemas need llguidance; install it with "
                "`pip install 'midspan[grammar]'`"
            ) from None
        if (regex is None) == (schema is None):
            raise InputError("a grammar is either a regular expression or a JSON schema; give one of them")
        self._tokenizer = _wrapped(tokenizer)
        if regex is not None:
            self._grammar = llguidance.LLMatcher.grammar_from_regex(regex)
        else:
            text = schema if isinstance(schema, str) else json.dumps(schema)
            try:
                self._grammar = llguidance.LLMatcher.grammar_from_json_schema(text)
            except ValueError as error:
                raise InputError(f"the JSON schema cannot be used ({error}); simplify it") from None
        fault = llguidance.LLMatcher.validate_grammar(self._grammar, self._tokenizer)
        if fault:
            raise InputError(f"the grammar cannot be used: {fault.splitlines()[0]}")

    def begin(self) -> Walk:
        """See `Constraint.begin`."""
        return _GrammarWalk(self._tokenizer, self._grammar)


class _GrammarWalk:
    def __init__(self, tokenizer: Any, grammar: str) -> None:
        import llguidance
        import llguidance.numpy

        self._numpy = llguidance.numpy
        self._matcher = llguidance.LLMatcher(tokenizer, grammar)
        self._mask = self._numpy.allocate_token_bitmask(1, tokenizer.vocab_size)
        self._vocab_size, self._eos = tokenizer.vocab_size, tokenizer.eos_token
        self.done = False

    def allowed(self) -> Tensor:
        """See `Walk.allowed`; the end of the text is the vocabulary's own end."""
        self._numpy.fill_next_token_bitmask(self._matcher, self._mask, 0)
        bits = np.unpackbits(self._mask[0].view(np.uint8), bitorder="little")[: self._vocab_size]
        ids = np.flatnonzero(bits)
        return torch.from_numpy(ids[ids != self._eos])

    @property
    def may_end(self) -> bool:
        """See `Walk.may_end`."""
        return bool(self._matcher.is_accepting())

    def take(self, token_id: int) -> None:
        """See `Walk.take`."""
        self._matcher.consume_token(token_id)
        self.done = bool(self._matcher.is_stopped()) or not len(self.allowed())


class _Plain:
    """The fields and the call that llguidance's `TokenizerWrapper` reads."""

    def __init__(self, tokenizer: Tokenizer, eos: int, tokens: list[bytes]) -> None:
        self._tokenizer, self.tokens = tokenizer, tokens
        self.eos_token_id, self.bos_token_id = eos, tokenizer.bos_id
        self.special_token_ids = [i for i in range(tokenizer.vocab_size) if tokenizer.is_special(i)]

    def __call__(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, leading_space=False)


_WRAPPED: dict[str, Any] = {}


def _wrapped(tokenizer: Tokenizer) -> Any:
    """Llguidance's view of a vocabulary, built once: bytes of all ids, special ones marked."""
    if tokenizer.fingerprint not in _WRAPPED:
        import llguidance

        eos = tokenizer.eos_id if tokenizer.eos_id is not None else tokenizer.vocab_size - 1
        tokens = [
            b"\xff" + tokenizer.piece(i).encode() if tokenizer.is_special(i) else tokenizer.piece_bytes(i)
            for i in range(tokenizer.vocab_size)
        ]

        plain = _Plain(tokenizer, eos, tokens)
        _WRAPPED[tokenizer.fingerprint] = llguidance.LLTokenizer(llguidance.TokenizerWrapper(plain))
    return _WRAPPED[tokenizer.fingerprint]
