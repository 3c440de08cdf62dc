"""Peaks by name, and what can be measured."""

import mmap
import os

import pytest
import torch

from midspan.train.device import peak_flops, peak_memory, peak_of


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100-PCIE-40GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA H200", 989),
        ("NVIDIA H200 NVL", 835),
        ("NVIDIA GH200 480GB", 989),
        ("NVIDIA B200", 2250),
        ("NVIDIA GB200", 2500),
        ("AMD Instinct MI300X", 1307),
        ("AMD Instinct MI300X VF", 1307),
        ("NVIDIA H100 80GB HBM3 MIG 3g.40gb", None),
        ("NVIDIA A10", None),
        ("NVIDIA A100X", None),
        ("NVIDIA H20", None),
        ("NVIDIA GeForce RTX 4090", None),
        ("NVIDIA H2000", None),
        ("", None),
    ],
)
def test_the_peak_of_a_name(name: str, tera: float | None) -> None:
    assert peak_of(name) == (None if tera is None else tera * 1e12)


def test_a_processor_is_measured() -> None:
    """Its peak is no less than what a product of another shape reaches, within the noise of a shared machine."""
    import time

    peak = peak_flops(torch.device("cpu"), torch.float32)
    assert peak is not None
    x, y = torch.ones((512, 768)), torch.ones((768, 640))
    times = []
    for _ in range(10):
        start = time.perf_counter()
        x @ y
        times.append(time.perf_counter() - start)
    assert 2 * 512 * 768 * 640 / min(times) < 3 * peak
    assert 1e8 < peak < 1e15
    assert peak_flops(torch.device("cpu"), torch.float32) == peak, "measured once"
    assert peak_flops(torch.device("meta"), torch.bfloat16) is None


def test_memory_is_the_process_at_its_largest() -> None:
    before = peak_memory(torch.device("cpu"))
    assert before is not None
    size = max(0, before - _resident()) + (64 << 20)
    block = mmap.mmap(-1, size)  # pages of its own: an allocator might have freed ones at hand
    block.write(b"1" * size)
    after = peak_memory(torch.device("cpu"))
    assert after is not None
    assert before + (32 << 20) < after < before + size + (256 << 20)
    block.close()
    assert peak_memory(torch.device("cpu")) == after, "a peak stays"


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
