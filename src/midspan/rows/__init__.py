"""Rows: documents → what a model reads. A row is a pure function of the settings and its number.

`RowsConfig` are the settings, `compile_rows` writes rows to a folder, `Rows` reads them, `Row` is one of them.
"""

from midspan.rows.compile import FORMS, RowsConfig, compile_rows
from midspan.rows.reader import Row, Rows

__all__ = ["FORMS", "Row", "Rows", "RowsConfig", "compile_rows"]
