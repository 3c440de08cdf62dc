"""Packed weights say what they were made from, within half a step of their group's scale."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from midspan.model.quant import GROUP, ROWS, Bits, interleave, pack, packed_size, unpack

BITS: tuple[Bits, ...] = (16, 8, 4)


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 70), columns=st.integers(1, 200), bits=st.sampled_from(BITS), seed=st.integers(0, 99))
def test_unpacking_gives_the_matrix_within_the_format_s_step(
    rows: int, columns: int, bits: Bits, seed: int
) -> None:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    data = pack(weight, bits)
    assert data.dtype == torch.uint8
    assert data.numel() == packed_size(rows, columns, bits)
    found = unpack(data, rows, columns, bits)
    if bits == 16:
        assert torch.equal(found, weight.bfloat16().float())
        return
    groups = torch.nn.functional.pad(weight, (0, -columns % GROUP)).view(rows, -1, GROUP)
    errors = torch.nn.functional.pad(found - weight, (0, -columns % GROUP)).view(rows, -1, GROUP)
    step = groups.abs().amax(-1, keepdim=True) / (127 if bits == 8 else 8)
    # 4-bit scales may cut a group's extreme off by a step and more where that lessens the square error.
    assert bool((errors.abs() <= step * (0.51 if bits == 8 else 2.2) + 1e-6).all())


@pytest.mark.parametrize("bits", [8, 4])
def test_packing_what_was_unpacked_changes_nothing(bits: Bits) -> None:
    weight = torch.randn(48, 128, generator=torch.Generator().manual_seed(1))
    once = unpack(pack(weight, bits), 48, 128, bits)
    assert torch.allclose(unpack(pack(once, bits), 48, 128, bits), once, rtol=1e-3, atol=1e-6)


def test_four_bits_are_better_than_the_plain_rule() -> None:
    """The plain rule sets the scale by the extreme value alone (llama.cpp's Q4_0)."""
    weight = torch.randn(256, 512, generator=torch.Generator().manual_seed(2))
    groups = weight.view(-1, GROUP)
    extreme = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
    scale = (extreme / -8).half().float()
    plain = ((groups / scale + 8.5).floor().clamp(0, 15) - 8) * scale
    error = (unpack(pack(weight, 4), 256, 512, 4) - weight).square().mean()
    assert error < 0.95 * (plain - groups).square().mean()


def test_zeros_stay_zero() -> None:
    for bits in BITS:
        assert not unpack(pack(torch.zeros(20, 70), bits), 20, 70, bits).any()


def test_gate_and_up_take_turns_of_sixteen_rows() -> None:
    gate, up = torch.arange(40.0)[:, None], 100 + torch.arange(40.0)[:, None]
    both = interleave(gate, up)[:, 0]
    assert both[:ROWS].tolist() == list(range(16))
    assert both[ROWS : 2 * ROWS].tolist() == list(range(100, 116))
    assert both.numel() == 2 * 48
    assert both[-ROWS:].tolist() == [*range(132, 140), *[0.0] * 8]
