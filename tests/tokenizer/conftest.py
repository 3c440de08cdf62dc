"""What the tokenizer's tests share beside the vocabularies of `vocabularies.py`."""

from collections.abc import Iterable
from typing import Any

import pytest


def big_ones_slow(names: Iterable[str]) -> list[Any]:
    """Vocabularies of more than 100,000 pieces are marked slow: they take seconds to write and read."""
    return [pytest.param(n, marks=pytest.mark.slow) if n in ("llama-bpe", "qwen2") else n for n in names]
