"""Sources → documents: repositories, archives and datasets become a corpus with a decision for every file.

`build` makes a corpus folder or brings it up to date, `remove` takes repositories out, `Corpus.open` reads it.
The way of a file: `sources/` lists and reads it, `examine.py` judges it by itself, `relate.py` beside the others,
`store.py` says how it lies on disk, `card.py` what a corpus holds. `engine.py` is where the work runs.
"""

from midspan.corpus.build import build, remove
from midspan.corpus.config import CorpusConfig, Progress, Report
from midspan.corpus.document import HELD_OUT, TRAIN, Document, Reason
from midspan.corpus.store import Corpus, Manifest

__all__ = [
    "HELD_OUT",
    "TRAIN",
    "Corpus",
    "CorpusConfig",
    "Document",
    "Manifest",
    "Progress",
    "Reason",
    "Report",
    "build",
    "remove",
]
