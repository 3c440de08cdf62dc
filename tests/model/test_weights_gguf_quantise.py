"""The K types against the gguf package's dequantisation: how much is lost, and the values that are special."""

import gguf
import numpy as np
import pytest

from midspan.model.weights.gguf_quantise import quantise

Kind = gguf.GGMLQuantizationType
LOSSES = {Kind.Q4_K: 0.0714, Kind.Q5_K: 0.0363, Kind.Q6_K: 0.0178}
"""Root mean square error of normal values, relative, as measured of ggml's own quantisation on these values."""


def back(values: np.ndarray, kind: Kind) -> np.ndarray:
    return gguf.quants.dequantize(quantise(values.astype(np.float32), kind), kind)


@pytest.mark.parametrize("kind", LOSSES, ids=lambda kind: kind.name)
def test_little_is_lost(kind: Kind) -> None:
    values = np.random.default_rng(0).normal(size=(64, 1024)) * np.geomspace(1e-2, 10, 64)[:, None]
    restored = back(values, kind)
    errors = np.sqrt(((restored - values) ** 2).mean(axis=1) / (values**2).mean(axis=1))
    assert restored.shape == values.shape
    assert errors.mean() < 1.01 * LOSSES[kind]
    assert errors.max() < 1.1 * LOSSES[kind]


@pytest.mark.parametrize("kind", LOSSES, ids=lambda kind: kind.name)
def test_finer_types_lose_less_than_coarse_ones(kind: Kind) -> None:
    values = np.random.default_rng(1).laplace(size=(16, 512)).astype(np.float32)
    plain = {Kind.Q4_K: Kind.Q4_0, Kind.Q5_K: Kind.Q5_0, Kind.Q6_K: Kind.Q5_1}[kind]
    assert np.abs(back(values, kind) - values).mean() < np.abs(back(values, plain) - values).mean()


@pytest.mark.parametrize("kind", LOSSES, ids=lambda kind: kind.name)
def test_special_values(kind: Kind) -> None:
    assert not back(np.zeros((2, 256)), kind).any()
    for constant in (1.0, -1.0, 1e-3):
        np.testing.assert_allclose(back(np.full((1, 256), constant), kind), constant, rtol=0.025)
    one = np.zeros((1, 256))
    one[0, 37] = -3.0
    restored = back(one, kind)
    assert abs(restored[0, 37] + 3) < 0.1
    assert np.abs(np.delete(restored, 37)).max() < 0.01
    positive = np.random.default_rng(2).uniform(2, 3, (4, 256))
    assert np.abs(back(positive, kind) - positive).max() < 0.11
