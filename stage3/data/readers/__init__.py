"""Files to rows: every format of comics on disk becomes the same panel table.

`load(config)` reads a data set (or its cached table), `source_of(config)` says where its parts are, and `READERS` holds
one reader per format.

How to add a reader. Write a module with a function `page(value, source, note) -> RawPage`: `value` is one page as the
format has it, and the function only says where boxes, texts and the page size stand (see `rules.RawPage`); it repairs
nothing, because coercion, clamping, dropping, order and the cut are `rules.finish`, once for all formats. It raises
`PageProblem(code, detail)` for a page that has no list of panels, and calls `note(code, detail)` for an oddity it read
past. A format with all pages in one file also brings `items(path)`, which yields (canonical id, page) one at a time.
Then add a line to `READERS`, the name to `config.PANEL_FORMATS`, and a row to the format table of the tests.
"""

from __future__ import annotations

from stage3.data.readers.cache import load, read, stamp
from stage3.data.readers.formats import READERS, Reader
from stage3.data.readers.jsonfile import PageProblem
from stage3.data.readers.report import report_lines
from stage3.data.readers.source import DataSource, source_of

__all__ = ["READERS", "DataSource", "PageProblem", "Reader", "load", "read", "report_lines", "source_of", "stamp"]
