"""Infilling: what it is, in one place for training, evaluation, the engine and the servers.

`FimFormat` holds a vocabulary's sentinels and the layouts of its family, `infill_prompt` builds a prompt, `Healer`
mends the token at its end, `split` cuts a document by counter-based draws, `document_example` makes a training
example of it.
"""

from midspan.fim.example import Example, FimConfig, document_example, infill_example, plain_example
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
    "document_example",
    "infill_example",
    "infill_prompt",
    "plain_example",
    "split",
    "with_sentinels",
]
