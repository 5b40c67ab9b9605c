"""Sources: files as people have them, or a named example set, read in chunks as the columns that
the config names.

| module | what it knows |
|---|---|
| `parts` | which files a source is: one, several, a folder, a pattern, a data set of Hugging Face |
| `text` | packing, marks, encodings, and files that are of another kind |
| `delimited`, `lines`, `columnar` | CSV and TSV; JSON Lines and arrays; Parquet and Arrow |
| `cells`, `labels` | how a value is reached and written, and which declared label it means |

A chunk is a pandas frame with a column per config column (text or None), ROW (from 1, in source
order, through all files) and MALFORMED ("" or why the row cannot be read). What a source is, its
bytes say where these are certain; otherwise it is refused in a sentence, never guessed.
"""

from flows.adapters.sources.cells import GIVEN, MALFORMED, ROW, Columns, columns_of
from flows.adapters.sources.source import CHUNK_ROWS, Source, named, read_chunks

__all__ = [
    "CHUNK_ROWS",
    "GIVEN",
    "MALFORMED",
    "ROW",
    "Columns",
    "Source",
    "columns_of",
    "named",
    "read_chunks",
]
