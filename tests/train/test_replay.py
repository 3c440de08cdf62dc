"""A pass in places of unchanging shape is the pass as it is; that a GPU can record it, `benchmarks/gpu` checks."""

import numpy as np
import pytest
import torch
from tests.model.shapes import BASE

from midspan.model import Llama, ModelConfig
from midspan.model.lora import LoraConfig, add_lora
from midspan.rows import Row
from midspan.rows.segments import SEGMENT
from midspan.train.objective import Objective, Pass, join
from midspan.train.replay import FixedPass

CPU = torch.device("cpu")
SMALL = ModelConfig(**BASE | {"num_kv_heads": 2}, tied=True)


def _row(*ends: int, seed: int) -> Row:
    segments = np.zeros(len(ends), SEGMENT)
    segments["end"] = ends
    return Row(np.random.default_rng(seed).integers(0, SMALL.vocab_size, ends[-1]), segments)


def _objective(method: str) -> Objective:
    model = Llama(SMALL)
    model.initialise(0)
    if method == "lora":
        add_lora(model, LoraConfig(rank=4), [1, 5], seed=0)
        for name, parameter in model.named_parameters():
            if name.endswith("lora_B"):
                torch.nn.init.normal_(parameter, std=0.02)
    return Objective(model)


def _gradients(objective: Objective, one: Pass) -> list[torch.Tensor]:
    loss = objective(one)
    trained = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    return [loss.detach(), *torch.autograd.grad(loss, trained)]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_filled_pass_has_the_loss_and_the_gradients_of_the_plain_one(method: str) -> None:
    objective = _objective(method)
    places = FixedPass(64, 12, 32, CPU)
    for rows in (
        [_row(7, 20, 31, seed=0), _row(32, seed=1)],
        [_row(3, seed=2), _row(2, 5, seed=3)],  # three quarters of it are filling
    ):
        one = join(rows)
        places.fill(one)
        filled = places.parts()
        assert filled.ids_bl.shape == (1, 64)
        assert len(filled.at_n) == 64
        assert filled.segments.ends_d.diff().max() <= 32
        for found, expected in zip(_gradients(objective, filled), _gradients(objective, one), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_pass_of_too_many_documents_is_known() -> None:
    places = FixedPass(64, 4, 32, CPU)
    assert places.holds(join([_row(10, 20, 32, seed=0), _row(32, seed=1)]))
    assert not places.holds(join([_row(10, 20, 25, 32, seed=0), _row(32, seed=1)]))
    assert not places.holds(join([_row(1, 2, 3, seed=0)]))  # two documents of filling
