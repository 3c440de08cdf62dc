"""The model that is measured: what it is, and its weights once they are needed.

An evaluation that goes on where everything is answered already reads no weights: questions are made with the
vocabulary alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import xxhash

from midspan.cache import resolve_model
from midspan.engine import Engine, Handle, Request
from midspan.engine.decoder import DecoderKind, open_decoder
from midspan.engine.front import Front
from midspan.engine.remote import RemoteEngine
from midspan.model.precision import held_in
from midspan.model.quant import Bits
from midspan.model.weights import load_model, read_config, tokenizer_path
from midspan.tokenizer import Tokenizer
from midspan.train.base import base_model, open_base


class Subject(Front):
    """A model here, loaded at its first request.

    Args:
        name: what `resolve_model` takes.
        infills: give it sentinels where it has none, as training does: what it scores is where training begins.
        dtype, decoder, bits: as `Engine.load`.
        max_batch: sequences that run at a time.
    """

    def __init__(
        self,
        name: str,
        *,
        infills: bool = False,
        dtype: torch.dtype | None = None,
        decoder: DecoderKind = "torch",
        bits: Bits = 8,
        max_batch: int = 32,
    ) -> None:
        self.path = resolve_model(name)
        self._max_batch = max_batch
        config = read_config(self.path)
        dtype = dtype or held_in(config, "cpu")
        self._dtype, self._decoder, self._bits = dtype, decoder, bits
        if infills:
            base = open_base(str(self.path), dtype)
            tokenizer, positions = base.tokenizer, base.config.max_positions
            self._load: Callable[[], Any] = lambda: base_model(open_base(str(self.path), dtype), dtype)
        else:
            tokenizer = Tokenizer.load(tokenizer_path(self.path))
            positions = config.max_positions
            self._load = lambda: load_model(self.path, dtype=dtype)
        super().__init__(tokenizer, max_positions=positions, speculate=False)
        self.name = name
        self._infills = infills

    @cached_property
    def engine(self) -> Engine:
        """The engine."""
        model = self._load()
        decoder = open_decoder(model, self._decoder, self._bits, self.path)
        return Engine(model, self.tokenizer, decoder=decoder, max_batch=self._max_batch)

    def submit(self, request: Request, on_news: Callable[[], None] | None = None) -> Handle:
        """See `Front.submit`."""
        return self.engine.submit(request, on_news)

    def match(self, prompt: Sequence[int]) -> int:
        """See `Front.match`."""
        return self.engine.match(prompt)

    def identity(self) -> dict[str, Any]:
        """What decides its answers."""
        kernel = "torch" if self._decoder == "torch" else f"{self._decoder}, {self._bits} bits"
        return {
            "model": self.name,
            "weights": fingerprint(self.path),
            "dtype": str(self._dtype).removeprefix("torch."),
            "decoder": kernel,
            "sentinels_added": self._infills,
        }


class RemoteSubject(RemoteEngine):
    """A server's model; the vocabulary and its positions come from a checkpoint here."""

    def __init__(self, name: str, url: str, **options: Any) -> None:
        path = resolve_model(name)
        self.name = name
        super().__init__(
            url, Tokenizer.load(tokenizer_path(path)), max_positions=read_config(path).max_positions, **options
        )

    def identity(self) -> dict[str, Any]:
        """What is known of it: a server does not say which weights it has."""
        return {"model": self.name, "upstream": self.url, "served_as": self.model, "kind": self.kind}


def fingerprint(path: Path) -> str:
    """The identity of a checkpoint's bytes."""
    digest = xxhash.xxh3_128()
    for file in sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]:
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()
