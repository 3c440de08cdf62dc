"""Choosing tokens: against a plain reference, and as a function of the place alone."""

import math

import pytest
import torch
from scipy import stats

from midspan.engine import SampleConfig
from midspan.engine.sample import Place, candidates, choose, unit
from midspan.errors import InputError


def reference_top_p(logits: list[float], temperature: float, p: float) -> list[float]:
    """Code Llama's top-p in plain Python: one probability for each id."""
    weights = [math.exp((x - max(logits)) / temperature) for x in logits]
    probabilities = [w / sum(weights) for w in weights]
    kept, cumulative = {}, 0.0
    for index in sorted(range(len(logits)), key=lambda i: -probabilities[i]):
        if cumulative > p:
            break
        kept[index] = probabilities[index]
        cumulative += probabilities[index]
    return [kept.get(i, 0.0) / sum(kept.values()) for i in range(len(logits))]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("p", [1e-6, 0.5, 0.9, 1.0])
def test_top_p_equals_a_plain_reference(temperature: float, p: float) -> None:
    logits = torch.randn(5, 40) * 3
    ours, ids = candidates(logits, SampleConfig(temperature=temperature, top_p=p))
    for row, found, order in zip(logits.tolist(), ours, ids, strict=True):
        by_id = torch.zeros(40, dtype=torch.float64).index_copy(0, order, found)
        expected = torch.tensor(reference_top_p(row, temperature, p), dtype=torch.float64)
        torch.testing.assert_close(by_id, expected, atol=1e-6, rtol=0)


def test_the_token_that_crosses_p_stays() -> None:
    """Only tokens with more than p before them fall away."""
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.15, 0.1]]))
    kept = [
        int((candidates(logits, SampleConfig(temperature=1.0, top_p=p))[0] > 0).sum()) for p in (0.3, 0.6, 0.8)
    ]
    assert kept == [1, 2, 3]


def test_frequencies_are_the_probabilities() -> None:
    logits, config = torch.randn(1, 12), SampleConfig(temperature=0.8, top_p=0.9, seed=3)
    expected = torch.tensor(reference_top_p(logits[0].tolist(), 0.8, 0.9))
    n = 4000
    chosen = choose(logits.expand(n, -1), config, [Place(7, 0, i) for i in range(n)])
    counts = torch.bincount(torch.tensor(chosen), minlength=12)
    assert bool((counts[expected == 0] == 0).all())
    kept = expected > 0
    assert stats.chisquare(counts[kept].numpy(), (expected[kept] / expected[kept].sum() * n).numpy()).pvalue > 1e-3


def test_a_draw_is_a_function_of_its_place() -> None:
    logits, config = torch.randn(6, 50), SampleConfig(temperature=1.0, seed=5)
    places = [
        Place(sequence, copy, position)
        for sequence in (1, 2**64 - 1)
        for copy, position in ((0, 4), (0, 5), (1, 4))
    ]
    together = choose(logits, config, places)
    assert together == [choose(logits[i : i + 1], config, [places[i]])[0] for i in range(6)]
    units = {unit(seed, place) for seed in (0, 1) for place in places}
    assert len(units) == 12
    near = {unit(2**64 - 1, Place(2**64 - 1 - i, 0, 0)) for i in range(3)}  # no bit of a number is lost
    assert len(near) == 3
    assert all(0 <= u < 1 for u in units)


def test_temperature_zero_is_the_most_probable() -> None:
    logits = torch.randn(3, 9)
    assert choose(logits, SampleConfig(), []) == logits.argmax(-1).tolist()


def test_a_draw_near_one_stays_inside_top_p(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("midspan.engine.sample.unit", lambda *_: 1.0)  # beyond the largest, to be sure
    logits = torch.log(torch.tensor([[0.1, 0.6, 0.3]]))
    assert choose(logits, SampleConfig(temperature=1.0, top_p=0.7), [Place(0, 0, 0)]) == [2]


@pytest.mark.parametrize(
    "values",
    [
        *({"temperature": value} for value in (-0.1, math.nan, math.inf)),
        *({"top_p": value} for value in (0.0, 1.1, math.nan)),
        *({"seed": value} for value in (-1, 2**64)),
    ],
)
def test_bad_values_are_refused(values: dict[str, float]) -> None:
    (name,) = values
    with pytest.raises(InputError, match=name):
        SampleConfig(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{}, {"top_k": 15}, {"top_p": 0.9, "min_p": 1e-9}])
def test_a_temperature_next_to_nothing_is_none(options: dict[str, float]) -> None:
    """A quotient by it would be infinite; two of the largest logits are told apart all the same."""
    logits_nv = torch.randn(3, 297, generator=torch.Generator().manual_seed(1))
    logits_nv[0, :100] = -torch.inf
    places = [Place(0, copy, 0) for copy in range(3)]
    for temperature in (5e-324, 1e-6):
        config = SampleConfig(temperature=temperature, **options)  # type: ignore[arg-type]
        assert choose(logits_nv, config, places) == logits_nv.argmax(-1).tolist()
