"""Infilling: what it is, in one place for training, evaluation, the engine and the servers.

`FimFormat` holds a vocabulary's sentinels and the layouts of its family, `infill_prompt` builds a prompt, `Healer`
mends the token at its end, `split` cuts a document by counter-based draws, `infill_example` makes a training
example of it. The examples of a whole batch of documents are made by `fim.batch`, which is imported by itself: it
is compiled, and a server need not wait for that.
"""

from midspan.fim.example import Example, FimConfig, infill_example
from midspan.fim.format import LAYOUTS, FimFormat, Layout, infill_prompt, with_sentinels
from midspan.fim.heal import Healer
from midspan.fim.split import Draws, Split, split

__all__ = [
    "LAYOUTS",
    "Draws",
    "Example",
    "FimConfig",
    "FimFormat",
    "Healer",
    "Layout",
    "Split",
    "infill_example",
    "infill_prompt",
    "split",
    "with_sentinels",
]
