"""A model's weights, packed, behind the compiled step."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from midspan.engine.fused.library import LAYER, PRODUCTS, Layer, Memory, Rows, Shape, load
from midspan.engine.fused.weights import in_huge_pages, pack_adapter
from midspan.engine.runner import Part
from midspan.model import KVCache, ModelConfig
from midspan.model.quant import ROWS, Bits, packed_size
from midspan.model.rope import cos_sin
from midspan.model.weights.peft import Adapter


class FusedDecoder:
    """Reads a few tokens at a time; not for several threads of Python at once."""

    def __init__(
        self,
        config: ModelConfig,
        tensors: Mapping[str, Tensor],
        *,
        bits: Bits,
        threads: int | None = None,
        architecture: str = "native",
        base: FusedDecoder | None = None,
    ) -> None:
        """
        Args:
            tensors: as `packed_weights` makes them; as `pack_adapter` does where there is a `base`.
            threads: the machine's, where none is said.
            architecture: the processor to compile for, by the compiler's name of it.
            base: whose tensors this one adds to (see `adapted`).

        Raises:
            WorkError: as `library.load`.
        """
        self.config, self.bits = config, bits
        self.threads = threads or len(os.sched_getaffinity(0))
        self._library = load(architecture)
        self.instructions: str = self._library.midspan_instructions().decode()
        self.max_tokens: int = self._library.midspan_max_tokens()
        """Of all sequences together; more run in turns."""
        self.has_tiles = bool(self._library.midspan_has_tiles())
        """Whether many tokens are products of bfloat16 tiles: whole prompts are then read faster than by torch."""
        self.few = sys.maxsize if self.has_tiles else 16
        self.alike: int = self._library.midspan_alike()
        self._architecture = architecture
        self._tensors: dict[str, Tensor] = in_huge_pages(tensors) if base is None else {**base._tensors, **tensors}
        self._turns = np.zeros((0, config.head_dim), dtype=np.float32)
        layers = (Layer * config.num_layers)()
        for index in range(config.num_layers):
            for name in LAYER:
                setattr(layers[index], name, self._address(f"{index}.{name}"))
            for low, name in zip(layers[index].low, PRODUCTS, strict=True):
                low.down, low.up = (self._address(f"{index}.{name}.{part}") for part in ("down", "up"))
                if low.down is not None:
                    columns = config.intermediate_size if name == "down" else config.hidden_size
                    columns = config.num_heads * config.head_dim if name == "out" else columns
                    low.rank = (
                        self._tensors[f"{index}.{name}.down"].numel() // packed_size(ROWS, columns, 16) * ROWS
                    )
        shape = Shape(
            layers=config.num_layers,
            hidden=config.hidden_size,
            inner=config.intermediate_size,
            heads=config.num_heads,
            kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            vocab=config.vocab_size,
            bits=bits,
            threads=self.threads,
            eps=config.norm_eps,
        )
        others = (self._address(name) for name in ("embedding", "norm", "head"))
        self._handle = self._library.midspan_open(ctypes.byref(shape), ctypes.byref(layers), *others)
        if "rows.ids" in self._tensors:
            assert base is not None
            places = (self._address(f"rows.{name}") for name in ("ids", "row_of", "embedding", "head"))
            rows = Rows(*places, self._tensors["rows.ids"].numel(), base.config.vocab_size)
            self._library.midspan_rows(self._handle, ctypes.byref(rows))

    def adapted(self, adapter: Adapter) -> FusedDecoder:
        """A decoder of this one's weights with an adapter added; both read the same memory.

        Raises:
            InputError: the adapter is of another base.
        """
        tensors = pack_adapter(adapter, self.config, self._tensors, self.bits)
        return FusedDecoder(
            adapter.config,
            tensors,
            bits=self.bits,
            threads=self.threads,
            architecture=self._architecture,
            base=self,
        )

    def _address(self, name: str) -> int | None:
        tensor = self._tensors.get(name)
        return None if tensor is None else tensor.data_ptr()

    def step(self, cache: KVCache, spans: Sequence[Part], *, only_last: bool = True) -> Tensor:
        """Append tokens: logits (rows, vocabulary) float32 of the last token of every span, or of all tokens.

        Raises:
            ValueError: an id that is none, or more tokens than the cache has room for.
        """
        if sum(len(span.ids) for span in spans) <= self.max_tokens:
            return self._step(cache, spans, only_last)
        parts = []
        for span in spans:
            pieces = [span.ids[i : i + self.max_tokens] for i in range(0, len(span.ids), self.max_tokens)]
            found = [self._step(cache, [Part(span.slot, piece)], only_last) for piece in pieces]
            parts += found[-1:] if only_last else found
        return torch.cat(parts)

    def _step(self, cache: KVCache, spans: Sequence[Part], only_last: bool) -> Tensor:
        counts = [len(span.ids) for span in spans]
        starts = [cache.lengths[span.slot] for span in spans]
        end = max(start + count for start, count in zip(starts, counts, strict=True))
        if end > cache.capacity or min(counts) < 1:
            raise ValueError(f"spans of {counts} tokens up to position {end} in a cache of {cache.capacity}")
        ids = np.array([token for span in spans for token in span.ids], dtype=np.int32)
        if ids.min() < 0 or ids.max() >= self.config.vocab_size:
            raise ValueError(f"ids must be 0 to {self.config.vocab_size - 1}")
        table = np.array([(s.slot, start, n) for s, start, n in zip(spans, starts, counts, strict=True)], np.int32)
        wanted = np.cumsum(counts, dtype=np.int32) - 1 if only_last else np.arange(len(ids), dtype=np.int32)
        wanted = np.ascontiguousarray(wanted, dtype=np.int32)
        logits_nv = torch.empty(len(wanted), self.config.vocab_size)
        memory = cache.memory
        strides = memory.stride()
        described = Memory(
            memory.data_ptr(), strides[0], strides[1], strides[2], strides[3], memory.dtype == torch.bfloat16
        )
        self._library.midspan_step(
            self._handle,
            ids.ctypes.data,
            table.ctypes.data,
            len(spans),
            ctypes.byref(described),
            self._turns_to(end).ctypes.data,
            wanted.ctypes.data,
            len(wanted),
            logits_nv.data_ptr(),
        )
        for span in spans:
            cache.lengths[span.slot] += len(span.ids)
        return logits_nv

    def _turns_to(self, end: int) -> np.ndarray:
        """Cosines and sines of positions up to `end` at least, (positions, 2, half a head) in a row."""
        if len(self._turns) < end:
            positions = torch.arange(max(end, 2 * len(self._turns), 512))[None]
            half = self.config.head_dim // 2
            cos, sin = (x[0, 0, :, :half] for x in cos_sin(positions, self.config))
            self._turns = torch.cat((cos, sin), dim=-1).contiguous().numpy()
        return self._turns

    def close(self) -> None:
        """Let the threads go."""
        if self._handle is not None:
            self._library.midspan_close(self._handle)
            self._handle = None

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()
