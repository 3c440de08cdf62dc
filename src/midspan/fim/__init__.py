"""Infilling: what it is, in one place for training, evaluation, the engine and the servers.

`FimFormat` holds a vocabulary's sentinels and the layouts of its family, `infill_prompt` builds a prompt, `Healer`
mends the token at its end, `split` cuts a document by counter-based draws, `infill_example` makes a training
example of it, `document_examples` the examples of a whole batch of documents.
"""

from midspan.fim.batch import Batch, Examples, document_examples, plain_examples
from midspan.fim.example import Example, FimConfig, infill_example
from midspan.fim.format import LAYOUTS, FimFormat, Layout, infill_prompt, with_sentinels
from midspan.fim.heal import Healer
from midspan.fim.split import Draws, Split, split

__all__ = [
    "LAYOUTS",
    "Batch",
    "Draws",
    "Example",
    "Examples",
    "FimConfig",
    "FimFormat",
    "Healer",
    "Layout",
    "Split",
    "document_examples",
    "infill_example",
    "infill_prompt",
    "plain_examples",
    "split",
    "with_sentinels",
]
