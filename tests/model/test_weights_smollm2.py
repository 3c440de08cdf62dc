"""The embedded default, from its own file: transformers reads the same GGUF and says the same."""

import os
from pathlib import Path

import pytest
import torch
import transformers

from midspan import cache
from midspan.model import PRESETS, KVCache, Llama
from midspan.model.weights import load_model, read_config, tensor_types
from midspan.tokenizer import Tokenizer

PROMPTS = (
    "def fibonacci(n):\n",
    "def is_prime(n: int) -> bool:\n    ",
    "import os\nimport sys\n\ndef main():\n",
    "class Stack:\n    def __init__(self):\n",
    "# Sort a list of numbers\n",
    "SELECT name FROM users WHERE ",
    "for (int i = 0; i < n; i++) {\n",
    "function add(a, b) {\n",
    "The capital of France is",
    "Once upon a time, there was a",
    "Water boils at",
    "1, 2, 3, 4, 5,",
    "<|im_start|>user\nWhat is Python?<|im_end|>\n<|im_start|>assistant\n",
    "In machine learning, a model is",
    "def read_file(path):\n    with open(path) as f:\n",
    "try:\n    value = int(text)\nexcept ",
    "#include <stdio.h>\n\nint main(",
    "A bridge is a structure",
    "if __name__ ==",
    "Dear Sir or Madam,\n\n",
)


@pytest.fixture(scope="module")
def path() -> Path:
    found = Path(os.environ.get("MIDSPAN_SMOLLM2_GGUF") or cache.model_file("smollm2-135m"))
    if not found.is_file():
        pytest.skip(f"{found} is absent; run `midspan models pull smollm2-135m` or set MIDSPAN_SMOLLM2_GGUF")
    return found


@pytest.fixture(scope="module")
def model(path: Path) -> Llama:
    return load_model(path)


def test_shape_and_types_are_the_presets(path: Path) -> None:
    assert read_config(path) == PRESETS["smollm2-135m"]
    assert tensor_types(path) == {"Q4_1": 106_168_320, "Q8_0": 28_311_552, "F32": 35_136}


@pytest.mark.slow
@torch.no_grad()
def test_weights_logits_and_64_greedy_tokens_are_transformers(path: Path, model: Llama) -> None:
    """Each token of ours is the choice of transformers after the same tokens, so its greedy text is ours."""
    oracle = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    ).eval()
    theirs = oracle.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name
    tokenizer = Tokenizer.load(path)
    prompts = [tokenizer.encode(prompt) for prompt in PROMPTS]
    slots = KVCache(model.config, capacity=max(map(len, prompts)) + 64, num_slots=len(prompts))
    last = []
    for slot, prompt in enumerate(prompts):
        last.append(model(torch.tensor([prompt]), cache=slots, slots=slice(slot, slot + 1))[0, -1].argmax())
    written = [torch.stack(last)]
    for _ in range(63):
        written.append(model(written[-1][:, None], cache=slots)[:, -1].argmax(-1))
    for slot, prompt in enumerate(prompts):
        ours = [int(step[slot]) for step in written]
        ids = torch.tensor([prompt + ours])
        expected = oracle(ids, use_cache=False).logits
        torch.testing.assert_close(model(ids), expected, atol=1e-4, rtol=0)
        assert expected[0, len(prompt) - 1 : -1].argmax(-1).tolist() == ours, PROMPTS[slot]
