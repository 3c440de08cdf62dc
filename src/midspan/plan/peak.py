"""`python -m midspan.plan.peak`: the most memory that a process takes which trains a shallow model.

A pickled recipe, stage, number of layers and of threads come from standard input; bytes before there was a model
and bytes at most go to standard output. It is for `midspan.plan.cpu`, which cannot measure this where it runs.
"""

from __future__ import annotations

import pickle
import sys

import torch

import midspan.train.loop  # noqa: F401  what a run has in memory
from midspan.plan.stage import Stage
from midspan.plan.trial import shallow_trial
from midspan.train.device import peak_memory
from midspan.train.recipe import Recipe

STEPS = 2
"""The optimizer's states come with the first step, and the second has all there is."""


def main() -> None:
    """Read, train, tell."""
    recipe, stage, layers, threads = pickle.load(sys.stdin.buffer)
    assert isinstance(recipe, Recipe)
    assert isinstance(stage, Stage)
    torch.set_num_threads(threads)
    cpu = torch.device("cpu")
    before = peak_memory(cpu) or 0
    passes = min(2, stage.rows_per_step // stage.rows_per_pass)
    trial = shallow_trial(recipe, stage, layers, passes * stage.rows_per_pass)
    for _ in range(STEPS):
        trial.backward()
        trial.step()
    print(before, peak_memory(cpu) or 0)


if __name__ == "__main__":
    main()
