"""Published shapes against published parameter counts."""

from dataclasses import replace

import pytest
import torch

from midspan.errors import InputError
from midspan.model import PRESETS, Llama, ModelConfig

from .shapes import SHAPES

# Llama 2's and Code Llama's parameter counts, with 32,000 pieces and with the 16 of infilling.
COUNTS = {
    ("7b", 32_000): 6_738_415_616,
    ("13b", 32_000): 13_015_864_320,
    ("34b", 32_000): 33_743_970_304,
    ("70b", 32_000): 68_976_648_192,
    ("7b", 32_016): 6_738_546_688,
    ("13b", 32_016): 13_016_028_160,
    ("70b", 32_016): 68_976_910_336,
    ("smollm2-135m", 49_152): 134_515_008,
}


@pytest.mark.parametrize(("name", "vocab_size"), COUNTS)
def test_parameter_counts_of_published_shapes(name: str, vocab_size: int) -> None:
    config = replace(PRESETS[name], vocab_size=vocab_size)
    assert config.num_parameters() == COUNTS[name, vocab_size]
    with torch.device("meta"):
        model = Llama(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == COUNTS[name, vocab_size]


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_survives_its_own_config_json(name: str) -> None:
    config = SHAPES[name].config
    assert ModelConfig.from_hf(config.to_hf(), "config.json") == config


@pytest.mark.parametrize("name", SHAPES)
def test_reads_the_config_that_transformers_writes(name: str) -> None:
    assert ModelConfig.from_hf(SHAPES[name].oracle.to_dict(), "config.json") == SHAPES[name].config


def test_other_architectures_are_named() -> None:
    with pytest.raises(InputError, match="'gpt2'"):
        ModelConfig.from_hf({"model_type": "gpt2"}, "config.json")
