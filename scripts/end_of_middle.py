"""An adapter → the same, whose middles end where they should in SPM, by its row of the end alone.

    python scripts/end_of_middle.py runs/code/adapter --corpus corpora/python-packages --out runs/code/ended

In SPM nothing stands between prefix and middle, so a model that has not been trained for long gives the end a
chance of one in ten where it belongs, and much less elsewhere: right, and never the likeliest token. The row is
moved by what fits best, over final hidden states h of the corpus' own training files,

    h · u = 1 where a token of an SPM middle is foreseen, 0 in PSM and in plain text        row += shift u

That is a regression of 576 numbers on thousands of states, and so it finds more than which layout it is: at ends
h · u is larger than inside of middles.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from midspan.corpus import TRAIN, Corpus, Document
from midspan.files import atomic_folder
from midspan.fim import Draws, FimFormat, infill_example, split
from midspan.model.weights import load_model
from midspan.tokenizer import Tokenizer

KINDS = ("line", "lines", "uniform", "line")
CHARACTERS, MOST, STRIDE, RIDGE = 800, 60, 97, 100.0
"""Of a piece; positions taken of one middle; one file in so many; and the weight of the norm of u."""


def main() -> None:
    """Move the row that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapter", type=Path, help="the folder of an adapter with its vocabulary")
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shift", type=float, default=4.0, help="nats")
    parser.add_argument("--examples", type=int, default=160)
    asked = parser.parse_args()
    tokenizer = Tokenizer.load(asked.adapter)
    states, wanted = [], []
    model = load_model(asked.adapter)
    for ids, count, want in examples(asked.corpus, tokenizer, asked.examples):
        with torch.no_grad():
            hidden_ld = model.hidden(torch.tensor(ids)[None])[0]
        states.append(hidden_ld[-count - 1 : -1])
        wanted.append(torch.full((count,), want))
    u_d = fit(torch.cat(states), torch.cat(wanted))
    fim = FimFormat.detect(tokenizer)
    assert fim is not None
    tensors = load_file(asked.adapter / "adapter_model.safetensors")
    config = json.loads((asked.adapter / "adapter_config.json").read_text(encoding="utf-8"))
    [name] = [name for name in tensors if name.endswith("trainable_tokens_delta")]
    rows = tensors[name].float()
    rows[config["trainable_token_indices"].index(fim.eot_id)] += asked.shift * u_d
    tensors[name] = rows.to(tensors[name].dtype)
    with atomic_folder(asked.out, replace=True) as folder:
        shutil.copytree(asked.adapter, folder, dirs_exist_ok=True)
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    print(f"{asked.out}: the end's row moved by {asked.shift * float(u_d.norm()):.2f}, over {len(states)} texts")


def fit(states_nd: Tensor, wanted_n: Tensor) -> Tensor:
    """The ridge regression of `wanted` on the states."""
    gram_dd = states_nd.T @ states_nd + RIDGE * torch.eye(states_nd.shape[1])
    return torch.linalg.solve(gram_dd, states_nd.T @ wanted_n)


def examples(corpus: Path, tokenizer: Tokenizer, count: int) -> Iterator[tuple[list[int], int, float]]:
    """Token ids, how many of the last of them count, and what is wanted before each of these."""
    fim = FimFormat.detect(tokenizer)
    assert fim is not None, "the vocabulary has no sentinels"
    some = itertools.islice(Corpus.open(corpus).documents(TRAIN), STRIDE - 1, None, STRIDE)
    for number, document in enumerate(itertools.islice((d for d in some if len(d.text) > 1200), count)):
        text = piece(document)
        parts = split(text, Draws(0, 1, number + 1), {KINDS[number % len(KINDS)]: 1.0})
        if not parts.middle.strip() or not parts.prefix.strip():
            continue
        for layout, want in (("spm", 1.0), ("psm", 0.0)):
            example = infill_example(tokenizer, fim, parts, layout)  # type: ignore[arg-type]
            yield example.ids, min(example.num_middle, MOST), want
        if number % len(KINDS) == 0:
            ids = tokenizer.encode(text)
            yield ids, min(len(ids) - 1, MOST), 0.0


def piece(document: Document) -> str:
    """Some lines of a file, from a quarter of it on."""
    lines = document.text.splitlines(keepends=True)
    text = ""
    for line in lines[len(lines) // 4 :]:
        if len(text) >= CHARACTERS:
            break
        text += line
    return text


if __name__ == "__main__":
    main()
