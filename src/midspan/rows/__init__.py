"""Rows: documents → what a model reads. A row is a pure function of the settings and its number.

`RowsConfig` are the settings, a `Source` is a corpus or a file of conversations and its share, `compile_rows`
writes rows to a folder, `Rows` reads them, `Row` is one of them.
"""

from midspan.rows.compile import compile_rows, rows_fingerprint
from midspan.rows.conversations import Conversations
from midspan.rows.mixture import DOCUMENTS, Source, check_shares, epochs
from midspan.rows.reader import Row, Rows
from midspan.rows.segments import FORMS, RowsConfig

__all__ = [
    "DOCUMENTS",
    "FORMS",
    "Conversations",
    "Row",
    "Rows",
    "RowsConfig",
    "Source",
    "check_shares",
    "compile_rows",
    "epochs",
    "rows_fingerprint",
]
