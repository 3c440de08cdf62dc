"""The memory that tensors get once `keep_memory` was called, in processes of their own."""

import subprocess
import sys

import pytest

HEAD = """
import torch
from midspan.model.fused import keep_memory
MIB = 1 << 20

def resident():
    with open("/proc/self/status") as file:
        lines = dict(line.split(":") for line in file)
    return int(lines["RssAnon"].split()[0]) * 1024 / MIB

before = torch.ones(3 * MIB)  # of torch's own allocator, freed by ours
if not keep_memory():
    raise SystemExit(3)
del before
"""


def run(text: str) -> None:
    done = subprocess.run([sys.executable, "-c", HEAD + text], capture_output=True, text=True)
    if done.returncode == 3:
        pytest.skip("no C++ compiler, or torch has no headers")
    assert done.returncode == 0, done.stderr


def test_tensors_never_share_memory_and_keep_their_numbers() -> None:
    run("""
import random
random.seed(0)
held = {}
for number in range(3000):
    if held and (random.random() < 0.5 or len(held) > 24):
        name = random.choice(list(held))
        tensor = held.pop(name)
        assert int(tensor.min()) == int(tensor.max()) == name
        del tensor
    size = random.choice([0, 1, 100, MIB // 4, random.randrange(1, 2 * MIB)])
    held[number] = torch.full((size + 1,), number, dtype=torch.int32)
    assert held[number].data_ptr() % 64 == 0
held[0] = torch.arange(MIB, dtype=torch.int32)
held[0].resize_(3 * MIB)
assert held[0][:MIB].equal(torch.arange(MIB, dtype=torch.int32))
""")


def test_a_process_holds_what_its_tensors_were_at_most() -> None:
    """Sizes that change from step to step, with what stays between what goes: kept, and no more than that."""
    run("""
start = resident()
for step in range(40):
    stays = []
    for layer in range(20):
        size = MIB // 2 + 40_000 * ((step * 7 + layer) % 11)
        goes = torch.ones(size + 100_000), torch.ones(size // 2 + 60_000)
        stays.append(torch.ones(size))
        del goes
    most = sum(4 * len(x) for x in stays) / MIB
    del stays
assert 40 < resident() - start < 80, (resident(), start, most)  # 20 of some 2.8 MiB, and two that go
""")


def test_a_size_that_no_machine_has_is_an_error_of_torch_and_no_more() -> None:
    run("""
try:
    torch.empty(1 << 60, dtype=torch.uint8)
except RuntimeError as error:
    assert "allocate" in str(error), error
else:
    raise SystemExit(1)
assert torch.ones(MIB).sum() == MIB
""")


def test_the_profiler_sees_it() -> None:
    run("""
from midspan.plan.cpu import peak_bytes

def work():
    x = torch.ones(MIB)
    y = x + 1
    z = y * 2
    return z.sum()

most, left = peak_bytes(work)
assert 12 * MIB <= most < 12.1 * MIB and left < MIB, (most, left)
""")
