"""Hugging Face folders: ours read by transformers, transformers' read by us, and every way to be wrong."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import tokenizers
import torch
import transformers

from midspan.errors import InputError
from midspan.model import ModelConfig
from midspan.model.weights import detect, load_model, read_config, tensor_types, write_hf
from midspan.tokenizer import Tokenizer

from .shapes import SHAPES, model_with, oracle_logits, oracle_with, random_ids, random_state

every_shape = pytest.mark.parametrize("name", SHAPES)
IDS = random_ids(60)


def ours(path: Path) -> torch.Tensor:
    with torch.no_grad():
        return load_model(path)(IDS)


@every_shape
@pytest.mark.parametrize("shard_bytes", [10**9, 20_000])
def test_transformers_reads_what_we_write(name: str, shard_bytes: int, tmp_path: Path) -> None:
    config = SHAPES[name].config
    model = model_with(config, random_state(config))
    folder = tmp_path / "model"
    write_hf(folder, model, config, dtype=torch.float32, max_shard_bytes=shard_bytes, bos_id=1, eos_id=2)
    assert (len(list(folder.glob("*.safetensors"))) > 1) == (shard_bytes == 20_000)
    oracle, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, dtype=torch.float32
    )
    assert not any(report.values())
    assert (oracle.config.bos_token_id, oracle.config.eos_token_id) == (1, 2)
    assert (oracle.generation_config.bos_token_id, oracle.generation_config.eos_token_id) == (1, 2)
    expected = oracle_logits(oracle.eval(), IDS)
    with torch.no_grad():
        torch.testing.assert_close(model(IDS), expected, atol=1e-4, rtol=0)
    assert torch.equal(ours(folder), model(IDS))
    assert read_config(folder) == config
    assert list(tmp_path.iterdir()) == [folder]


@every_shape
@pytest.mark.parametrize("shard_size", ["1GB", "20KB"])
def test_we_read_what_transformers_writes(name: str, shard_size: str, tmp_path: Path) -> None:
    shape = SHAPES[name]
    oracle = oracle_with(shape, random_state(shape.config))
    oracle.save_pretrained(tmp_path, max_shard_size=shard_size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard_size == "20KB")
    torch.testing.assert_close(ours(tmp_path), oracle_logits(oracle, IDS), atol=1e-4, rtol=0)


def test_bfloat16_is_the_default_and_halves_the_file(tmp_path: Path) -> None:
    config = SHAPES["tied"].config
    state = random_state(config)
    write_hf(tmp_path / "model", state, config)
    values = json.loads((tmp_path / "model" / "config.json").read_text())
    assert values["torch_dtype"] == values["dtype"] == "bfloat16"
    assert tensor_types(tmp_path / "model") == {"BF16": config.num_parameters()}
    model = load_model(tmp_path / "model", dtype=torch.bfloat16)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    for name, tensor in model.state_dict().items():
        if name in state:
            assert torch.equal(tensor, state[name].bfloat16())
    oracle = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert oracle.dtype == torch.bfloat16


def test_head_is_tied_by_what_the_file_holds(tmp_path: Path) -> None:
    """Absent, or declared tied and equal: tied. Declared tied and different: its own, as transformers 5."""
    config = SHAPES["tied"].config
    state = random_state(config)
    head = state["model.embed_tokens.weight"].clone()
    untied = replace(config, tied=False)
    folders = {}
    for name, lm_head, declared in (
        ("equal", head, True),
        ("other", head + 0.1, True),
        ("absent", None, False),
    ):
        folders[name] = folder = tmp_path / name
        write_hf(folder, state | {"lm_head.weight": head}, untied, dtype=torch.float32)
        (folder / "config.json").write_text(json.dumps(untied.to_hf() | {"tie_word_embeddings": declared}))
        tensors = state if lm_head is None else state | {"lm_head.weight": lm_head}
        safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for name in folders:
        model = load_model(folders[name])
        assert model.config.tied == (name != "other")
        assert (model.lm_head.weight is model.model.embed_tokens.weight) == (name != "other")
    oracle = transformers.AutoModelForCausalLM.from_pretrained(folders["other"])
    torch.testing.assert_close(ours(folders["other"]), oracle_logits(oracle, IDS), atol=1e-4, rtol=0)


def test_tokenizer_is_written_beside_the_weights(tmp_path: Path) -> None:
    trained = tokenizers.ByteLevelBPETokenizer()
    trained.train_from_iterator(["def f(x):\n    return x\n" * 3], vocab_size=280, special_tokens=["<s>", "</s>"])
    trained.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.load(tmp_path / "tokenizer.json")
    config = replace(SHAPES["tied"].config, vocab_size=tokenizer.vocab_size)
    write_hf(tmp_path / "model", random_state(config), config, tokenizer=tokenizer)
    values = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (values["bos_token_id"], values["eos_token_id"]) == (tokenizer.bos_id, tokenizer.eos_id) == (0, 1)
    oracle = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    text = "def g(y):\n    return y + 1\n"
    assert oracle(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(text)
    assert (
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").config.vocab_size
        == config.vocab_size
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole checkpoint, in shards."""
    config = SHAPES["grouped-query"].config
    write_hf(tmp_path / "model", random_state(config), config, dtype=torch.float32, max_shard_bytes=50_000)
    return tmp_path / "model"


def test_loads_cast_and_nothing_else_is_left(folder: Path) -> None:
    model = load_model(folder, dtype=torch.float16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}
    assert not model.training
    assert detect(folder) == "hf"


def test_missing_shard_is_named(folder: Path) -> None:
    (folder / "model-00002-of-00006.safetensors").unlink()
    with pytest.raises(InputError, match=r"model-00002-of-00006\.safetensors is missing"):
        load_model(folder)


@pytest.mark.parametrize("keep", [0, 5, 100, 20_000])
def test_truncated_shard_is_named(folder: Path, keep: int) -> None:
    shard = folder / "model-00003-of-00006.safetensors"
    shard.write_bytes(shard.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"model-00003-of-00006\.safetensors is damaged or ends early"):
        load_model(folder)


def rewrite(folder: Path, change: dict[str, torch.Tensor | None]) -> Path:
    """The same checkpoint in one file, with tensors replaced or (None) left out."""
    state = dict(load_model(folder).state_dict())
    state |= {name: tensor for name, tensor in change.items() if tensor is not None}
    state = {name: tensor for name, tensor in state.items() if change.get(name, tensor) is not None}
    safetensors.torch.save_file(state, folder / "model.safetensors")
    return folder


def test_missing_unexpected_and_misshapen_tensors_are_named(folder: Path) -> None:
    name = "model.layers.1.self_attn.k_proj.weight"
    with pytest.raises(InputError, match=rf"lacks the tensor {name}"):
        load_model(rewrite(folder, {name: None}))
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"holds the tensor model.layers.0.self_attn.q_norm.weight"):
        load_model(rewrite(folder, {"model.layers.0.self_attn.q_norm.weight": torch.ones(16)}))
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=rf"{name} has shape \(64, 64\).*asks for \(32, 64\)"):
        load_model(rewrite(folder, {name: torch.zeros(64, 64)}))


def test_old_rotary_buffers_are_ignored(folder: Path) -> None:
    load_model(rewrite(folder, {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}))


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SHAPES["tied"].config.to_hf()))
    with pytest.raises(InputError, match=r"neither model.safetensors nor"):
        load_model(tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"only pickled weights \(pytorch_model.bin\)"):
        load_model(tmp_path)


def test_paths_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load_model(tmp_path / "absent")
    with pytest.raises(InputError, match="holds no checkpoint"):
        load_model(tmp_path)
    (tmp_path / "a.txt").touch()
    with pytest.raises(InputError, match=r"a\.txt is not a \.gguf file"):
        load_model(tmp_path / "a.txt")
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"2 \.gguf files; name one"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json cannot be read as JSON"):
        load_model(tmp_path)


def test_nothing_is_written_over_or_left_half_done(folder: Path) -> None:
    config = SHAPES["tied"].config
    with pytest.raises(InputError, match="is there already"):
        write_hf(folder, random_state(config), config)
    target = folder.parent / "new"
    with pytest.raises(ValueError, match="disagree on"):
        write_hf(target, random_state(SHAPES["multi-query"].config), config)

    class Broken:
        def save(self, folder: Path) -> None:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_hf(target, random_state(config), config, tokenizer=Broken())  # type: ignore[arg-type]
    assert list(folder.parent.iterdir()) == [folder]


def test_a_shape_that_config_json_cannot_express_is_refused(tmp_path: Path) -> None:
    config: ModelConfig = replace(SHAPES["tied"].config, qkv_bias=True)
    with pytest.raises(InputError, match="cannot express"):
        write_hf(tmp_path / "model", random_state(config), config)


def test_a_model_is_read_without_torchs_compiler(tmp_path: Path) -> None:
    """Initial values of matrices without storage would import it, for seconds."""
    config = next(iter(SHAPES.values())).config
    write_hf(tmp_path / "model", model_with(config, random_state(config)), config)
    text = (
        "import sys\nfrom midspan.model.weights import load_model\n"
        f"load_model({str(tmp_path / 'model')!r})\nsys.exit('torch._dynamo' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
