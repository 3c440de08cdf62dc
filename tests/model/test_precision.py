import pytest
import torch

from midspan.model import PRESETS, precision
from midspan.model.precision import computed_in, held_in

SEVEN = PRESETS["7b"]


@pytest.mark.parametrize("has", [True, False])
def test_bfloat16_is_replaced_on_processors_without_it_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, has: bool
) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda: has)
    assert computed_in(torch.bfloat16, "cpu") == (torch.bfloat16 if has else torch.float32)
    assert computed_in(torch.bfloat16, "cuda:1") == torch.bfloat16
    assert computed_in(torch.float16, "cpu") == torch.float16


def test_a_model_that_would_fill_the_memory_stays_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda: False)
    size = 4 * SEVEN.num_parameters()
    monkeypatch.setattr(precision, "_memory", lambda: 2 * size)
    assert held_in(SEVEN, "cpu") == torch.float32
    monkeypatch.setattr(precision, "_memory", lambda: 2 * size - 1)
    assert held_in(SEVEN, "cpu") == torch.bfloat16


def test_this_machine_is_told_by_its_flags() -> None:
    try:
        with open("/proc/cpuinfo", encoding="ascii") as file:
            flags = next(line for line in file if line.startswith("flags")).split()
    except (OSError, StopIteration):
        pytest.skip("no processor flags to read here")
    precision.has_bfloat16.cache_clear()
    assert precision.has_bfloat16() == ("avx512_bf16" in flags or "amx_bf16" in flags)
