"""Training: a recipe → a run. One loop for every stage, full or LoRA.

`load_recipe` reads a stage, `train` runs it in a folder, `prepare_base` gives the model that a stage starts from;
`lineage.py` runs stages that stand on each other.
"""

from midspan.train.base import prepare_base
from midspan.train.loop import train
from midspan.train.recipe import Recipe, load_recipe
from midspan.train.run import read_recipe

__all__ = ["Recipe", "load_recipe", "prepare_base", "read_recipe", "train"]
