"""Adapters of one lineage → one adapter of the lineage's base, in half precision, as the package ships it.

    python scripts/ship.py runs/code/adapter runs/long-context/adapter --corpus corpora/python-packages \\
        --out src/midspan/shipped/midspan-135m

Corrections of the same matrix add up, W + s1 B1 A1 + s2 B2 A2, so the ranks stand side by side: A = [A1; A2] and
B = [s1 B1, s2 B2]. Rows of the vocabulary, positions and vocabulary are the last adapter's. What decoding adds to
the end of middles is fitted to the whole, as behind every stage, on files of the corpus that it was trained on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from midspan.corpus import Corpus
from midspan.files import atomic_folder
from midspan.model.weights import load_model
from midspan.rows import Source
from midspan.tokenizer import Tokenizer
from midspan.train.ends import end_bias
from midspan.train.objective import Objective

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
BESIDE = ("positions.json", "tokenizer.json", "tokenizer_config.json")


def main() -> None:
    """Join the adapters that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapters", type=Path, nargs="+", help="folders, in the order of training")
    parser.add_argument("--corpus", type=Path, required=True, help="what the last adapter was trained on")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    settings = [json.loads((folder / CONFIG).read_text(encoding="utf-8")) for folder in asked.adapters]
    tensors = [load_file(folder / TENSORS) for folder in asked.adapters]
    joined = dict(tensors[-1])
    for name in (name for name in tensors[0] if name.endswith("lora_A.weight")):
        up = name.replace("lora_A", "lora_B")
        scales = [one["lora_alpha"] / one["r"] for one in settings]
        joined[name] = torch.cat([one[name].float() for one in tensors])
        joined[up] = torch.cat(
            [scale * one[up].float() for one, scale in zip(tensors, scales, strict=True)], dim=1
        )
    rank = sum(one["r"] for one in settings)
    config = settings[-1] | {
        "r": rank,
        "lora_alpha": float(rank),
        "base_model_name_or_path": settings[0]["base_model_name_or_path"],
    }
    with atomic_folder(asked.out, replace=True) as folder:
        half = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in joined.items()}
        save_file(half, folder / TENSORS, metadata={"format": "pt"})
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        for name in BESIDE:
            if (asked.adapters[-1] / name).is_file():
                (folder / name).write_bytes((asked.adapters[-1] / name).read_bytes())
        tokenizer = Tokenizer.load(folder)
        source = Source(corpus=Corpus.open(asked.corpus), name="corpus", share=1.0)
        fitted = end_bias(Objective(load_model(folder, dtype=torch.float32)), tokenizer, [source])
        tokenizer.with_end_bias(fitted or {}).save(folder)
    print(f"the end's logit in decoding: {fitted}")
    print(f"{asked.out}: rank {rank}, {sum(p.stat().st_size for p in asked.out.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
