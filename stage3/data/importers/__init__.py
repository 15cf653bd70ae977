"""Own comics into a data set folder, from any format of the field.

`import_comics(sources, out)` recognizes what lies in the sources, reads it into one intermediate form (`page.Page`),
finds panels where a source has none, and writes the folder that everything else reads, so that nothing downstream knows
of formats.

How to add a format. Write a module in `formats` with a `FORMAT`: its name, what it is called and looks like,
`claims(sight)` (is a file of this format, by its name and first bytes: see `sight.Sight`), and `read(reading)`, which
yields pages. A reader says where boxes, texts and images stand and in which size the coordinates count; it repairs
nothing: scaling, cutting to the page, the order of reading and which panel a text belongs to are `assemble`, once for
all formats. It raises `SourceProblem(code, detail)` for a file that cannot be used, gives a page a `problem` where only
that page cannot, and calls `reading.note(code, detail)` for an oddity. Then add it to `formats.FORMATS`, its codes to
`summary.CODES`, a row to `docs/formats.md` and its round to `tests/data/test_import_formats.py`.
"""

from stage3.data.importers.importing import import_comics
from stage3.data.importers.summary import Summary
from stage3.data.importers.texts import TextsRead, read_texts

__all__ = ["Summary", "TextsRead", "import_comics", "read_texts"]
