"""Weights into parts: what each rank holds is its part of the base, and no more is read than that."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.train.conftest import TINY
from tests.train.ranks import on_ranks
from torch.distributed.tensor import DTensor

from midspan.errors import InputError
from midspan.model import Llama
from midspan.model.weights import write_hf
from midspan.tokenizer import Tokenizer
from midspan.train import load_recipe, prepare_base
from midspan.train.learner import Learner
from midspan.train.ranks import Ranks


@pytest.mark.parametrize("tied", [True, False])
def test_each_layout_holds_the_base_exactly(
    tiny_recipe: Path, tiny_base: Path, tmp_path: Path, tied: bool
) -> None:
    """Gathered again, every tensor has the base's bits; a vocabulary of 261 is cut unevenly."""
    base = tiny_base
    if not tied:
        base = tmp_path / "untied"
        model = Llama(replace(TINY, tied=False))
        model.initialise(seed=2, std=0.08)
        write_hf(base, model, model.config, tokenizer=Tokenizer.load(tiny_base))
    layouts = [
        ["train.method=full", "parallel.tensor=2", "parallel.sequence=true"],
        ["train.method=full", "parallel.pipeline=2"],
        ["train.method=layers", "parallel.replicate=2"],
        ["train.method=lora", "parallel.pipeline=2", "parallel.context=2"],
    ]

    def gathered(ranks: Ranks) -> list[dict[str, torch.Tensor]]:
        found = []
        for layout in layouts:
            recipe = load_recipe(tiny_recipe, [f"base={base}", "train.rows_per_step=4", *layout])
            learner = Learner(recipe, ranks)
            parts = [p for p in learner.model.parameters() if isinstance(p, DTensor)]
            assert len(parts) == len(list(learner.model.parameters()))
            whole = learner.whole_model()
            assert (whole is None) == (ranks.rank > 0)
            found.append({} if whole is None else {n: p.detach() for n, p in whole.named_parameters()})
        return found

    expected = {n: p.detach() for n, p in prepare_base(str(base), torch.bfloat16)[0].named_parameters()}
    for layout, found in zip(layouts, on_ranks(4, gathered)[0], strict=True):
        for name, tensor in found.items():
            plain = name.replace(".table.frozen", ".weight").replace(".table.rows", ".weight")
            if "lora_" in name:
                assert bool(tensor.any()) == name.endswith("lora_A")
            elif name.endswith(".rows"):
                assert torch.equal(tensor.bfloat16(), expected[plain][257:261])
            else:
                assert torch.equal(tensor.bfloat16(), expected[plain]), f"{name} under {layout}"


def test_a_rank_reads_no_more_than_its_part_of_a_file(tmp_path: Path) -> None:
    """A file of 256 MB, of which each of four ranks holds a quarter: pages of the others are never touched."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    from midspan.train.place import own_part

    rows = 1 << 16
    save_file(
        {"a": torch.arange(rows, dtype=torch.float32)[:, None].expand(-1, 1024).contiguous()}, tmp_path / "a"
    )

    def mapped() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssFile")) // 1024

    def read(ranks: Ranks) -> int:
        from safetensors import safe_open

        mesh = init_device_mesh("cpu", (ranks.world,))
        like = distribute_tensor(torch.empty(rows, 1024, device="meta"), mesh, [Shard(0)], src_data_rank=None)
        with safe_open(tmp_path / "a", framework="pt") as file:
            before = mapped()
            part = own_part(file.get_tensor("a"), like)
            assert part[:, 0].tolist() == [float(ranks.rank * len(part) + i) for i in range(len(part))]
            part.clone()
            return mapped() - before

    for megabytes in on_ranks(4, read):
        assert 60 < megabytes < 80


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("lacks", "lacks the tensor model.norm.weight"),
        ("shape", r"model.norm.weight has shape \(7,\), the configuration asks for \(48,\)"),
        ("more", "holds the tensor other, which its configuration has no place for"),
    ],
)
def test_a_base_that_is_not_whole_is_refused(
    tiny_recipe: Path, tiny_base: Path, tmp_path: Path, change: str, sentence: str
) -> None:
    from safetensors.torch import load_file

    for path in tiny_base.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    if change == "lacks":
        del weights["model.norm.weight"]
    elif change == "shape":
        weights["model.norm.weight"] = torch.ones(7)
    else:
        weights["other"] = torch.ones(7)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})

    def load(ranks: Ranks) -> str:
        try:
            Learner(load_recipe(tiny_recipe, [f"base={tmp_path}"]), ranks)
        except InputError as error:
            return str(error)
        return "loaded"

    import re

    for said in on_ranks(2, load):
        assert re.search(sentence, said), said
