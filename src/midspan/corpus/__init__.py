"""Sources → documents: folders and git repositories become a corpus with a decision for every file.

`build` reads sources and writes a corpus folder, `Corpus.open` reads it back. `document.py` says what a
document is, `ingest.py` how a file is judged, `split.py` what is held out, `store.py` how it lies on disk.
"""

from midspan.corpus.build import Progress, build
from midspan.corpus.document import HELD_OUT, TRAIN, Document, Reason
from midspan.corpus.store import Corpus, Manifest

__all__ = ["HELD_OUT", "TRAIN", "Corpus", "Document", "Manifest", "Progress", "Reason", "build"]
