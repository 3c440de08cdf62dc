"""Published runs: the planner's tokens a second and memory beside what others measured."""

import pytest

from midspan.model.flops import flops_per_token
from midspan.plan.anchors import ANCHORS, SHAPES, Anchor

TARGETS = [anchor for anchor in ANCHORS if anchor.target]


@pytest.mark.parametrize("anchor", TARGETS, ids=lambda anchor: anchor.name)
def test_speed_within_a_fifth(anchor: Anchor) -> None:
    assert anchor.tokens_per_second is not None
    assert anchor.speed() == pytest.approx(anchor.tokens_per_second, rel=0.20)


@pytest.mark.parametrize("anchor", [a for a in ANCHORS if a.memory_gib], ids=lambda anchor: anchor.name)
def test_memory_within_15_percent(anchor: Anchor) -> None:
    assert anchor.memory() == pytest.approx(anchor.memory_gib, rel=0.15)


def test_published_ratios_hold() -> None:
    """What a technique gains is harder to agree with than a speed that was fitted."""
    named = {anchor.name: anchor for anchor in ANCHORS}

    def gain(after: str, before: str) -> tuple[float, float]:
        a, b = named[after], named[before]
        assert a.tokens_per_second is not None
        assert b.tokens_per_second is not None
        return a.speed() / b.speed(), a.tokens_per_second / b.tokens_per_second

    h100 = "torchtitan Llama 3.1 8B{}, {} x H100"
    for after, before in (
        (h100.format(" compile", 8), h100.format(" eager", 8)),
        (h100.format(" compile float8", 8), h100.format(" compile", 8)),
        (h100.format(" compile", 128), h100.format(" compile", 8)),
        ("torchtitan 13b selective, 64 x A100", "torchtitan 13b none, 64 x A100"),
    ):
        ours, theirs = gain(after, before)
        assert ours == pytest.approx(theirs, rel=0.08)


def test_mfu_is_the_fields() -> None:
    """IBM and torchtitan state their share of the peak beside their speed; the same formula must give it."""
    assert 9600 * flops_per_token(SHAPES["7b"], 4096) / 989e12 == pytest.approx(0.46, abs=0.015)
    assert 4550 * flops_per_token(SHAPES["7b"], 4096) / 312e12 == pytest.approx(0.68, abs=0.01)
    assert 6667 * flops_per_token(SHAPES["llama3-8b"], 8192) / 989e12 == pytest.approx(0.39, abs=0.01)
