"""Any format into any other, and what is refused before anything is written."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
import transformers

from midspan.errors import InputError
from midspan.fim import with_sentinels
from midspan.model.weights import load_model, read_config, write_hf
from midspan.model.weights.convert import convert
from midspan.tokenizer import Tokenizer
from vocabularies import byte_vocabulary

from .shapes import SHAPES, oracle_logits, random_state

VOCABULARY = with_sentinels(byte_vocabulary([("i", "n")]))
CONFIG = replace(SHAPES["tied"].config, vocab_size=264, max_positions=4096)
IDS = torch.randint(264, (1, 50), generator=torch.Generator().manual_seed(2))
TARGETS = {"hf": "hf", "gguf": "model.gguf", "meta": "meta"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder."""
    write_hf(tmp_path / "run" / "model", random_state(CONFIG), CONFIG, tokenizer=VOCABULARY, dtype=torch.float32)
    return tmp_path / "run"


@torch.no_grad()
@pytest.mark.parametrize(("first", "second"), list(product(TARGETS, TARGETS)))
def test_there_and_further(first: str, second: str, run: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    one = convert(
        run, tmp_path / "1" / TARGETS[first] if first != "gguf" else tmp_path / "1.gguf", first, kind="f32"
    )
    two = convert(
        one.path,
        tmp_path / "2.gguf" if second == "gguf" else tmp_path / "2",
        second,
        kind="f32",
        progress=lambda done, total: told.append((done, total)),
    )
    assert (two.format, two.notes, set(two.stored_as)) == (second, [], {"F32"})
    assert two.bytes > 4 * CONFIG.num_parameters()
    assert told[-1] == (CONFIG.num_parameters(),) * 2
    assert read_config(two.path) == CONFIG
    assert torch.equal(load_model(two.path)(IDS), load_model(run / "model")(IDS))
    tokenizer = Tokenizer.load(two.path)
    assert tokenizer.encode("def f(x): in\t\n") == VOCABULARY.encode("def f(x): in\t\n")
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.add_bos) == (VOCABULARY.bos_id, VOCABULARY.eos_id, True)


def test_transformers_loads_what_went_through_gguf(run: Path, tmp_path: Path) -> None:
    convert(run, tmp_path / "a.gguf", "gguf", kind="bf16")
    convert(tmp_path / "a.gguf", tmp_path / "hf", "hf", kind="f32")
    oracle = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32).eval()
    with torch.no_grad():
        ours = load_model(tmp_path / "a.gguf")(IDS)
    torch.testing.assert_close(oracle_logits(oracle, IDS), ours, atol=1e-4, rtol=0)
    ids = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")("def f(in): 1").input_ids
    assert ids == [VOCABULARY.bos_id, *VOCABULARY.encode("def f(in): 1")]


def test_defaults_notes_and_shards(run: Path, tmp_path: Path) -> None:
    assert set(convert(run, tmp_path / "a.gguf", "gguf").stored_as) == {"F16", "F32"}
    assert set(convert(run, tmp_path / "b", "hf").stored_as) == {"BF16"}
    write_hf(tmp_path / "bare", random_state(CONFIG), replace(CONFIG, max_positions=333))
    result = convert(tmp_path / "bare", tmp_path / "c", "meta", num_shards=2)
    assert len(list((tmp_path / "c").glob("*.pth"))) == 2
    assert "no tokenizer was written" in result.notes[0]
    assert "context of 333 positions: readers take 4096" in result.notes[1]


@pytest.mark.parametrize(
    ("target", "to", "options", "sentence"),
    [
        ("x", "onnx", {}, "no format 'onnx'"),
        ("x", "hf", {"kind": "q8_0"}, "hf stores f32, f16 or bf16, not 'q8_0'"),
        ("x.gguf", "gguf", {"kind": "q3"}, "no storage type 'q3'"),
        ("x", "gguf", {}, r"name it .*x\.gguf"),
        ("x.gguf", "gguf", {"num_shards": 2}, "leave --shards out"),
        ("no/x.gguf", "gguf", {}, r"no does not exist"),
        ("x", "meta", {"num_shards": 3}, "not 3"),
        ("run", "hf", {}, "run is there already"),
        ("run/model/config.json", "meta", {}, "is there already"),
    ],
)
def test_refusals_leave_nothing(
    target: str, to: str, options: dict[str, object], sentence: str, run: Path, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=sentence):
        convert(run, tmp_path / target, to, **options)  # type: ignore[arg-type]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_damaged_source_and_values_too_large_leave_nothing(run: Path, tmp_path: Path) -> None:
    state = random_state(CONFIG)
    state["model.layers.1.mlp.up_proj.weight"] *= 1e6
    write_hf(tmp_path / "large", state, CONFIG, tokenizer=VOCABULARY, dtype=torch.float32)
    for to, target in (("hf", "a"), ("gguf", "a.gguf"), ("meta", "a")):
        with pytest.raises(InputError, match=r"too large for [fF]16; use bf16 or f32"):
            convert(tmp_path / "large", tmp_path / target, to, kind="f16")
    weights = run / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(InputError, match="damaged or ends early"):
        convert(run, tmp_path / "a.gguf", "gguf")
    write_hf(tmp_path / "bare", random_state(CONFIG), CONFIG)
    with pytest.raises(InputError, match="holds neither tokenizer"):
        convert(tmp_path / "bare", tmp_path / "a.gguf", "gguf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare", "large", "run"]
