"""`python -m stage3.data ocr`."""

from __future__ import annotations

from collections.abc import Sequence

from stage3.cli import Parser, say, stopping
from stage3.data.import_command import add_text
from stage3.storage import to_json

EXAMPLES = (
    "python -m stage3.data ocr --data data/mine",
    "python -m stage3.data ocr --data data/mine --text models/manga-ocr",
)


def main(argv: Sequence[str]) -> int:
    """Read the text of panels that have none."""
    about = (
        "Read the text of panels that have none, in a data set that `import` made, and write it into the panel files.\n"
        "Text that is there stays. Running it again reads what is new, and goes on where it was stopped."
    )
    parser = Parser("data", about, EXAMPLES, usage="ocr --data DATASET [--text ocr|FOLDER_OR_ID] [--workers N]")
    parser.add_argument("--data", metavar="DATASET", required=True, help="folder of the data set")
    add_text(parser, "ocr", "")
    parser.add_json()
    args = parser.parse(argv)

    from stage3.data.importers import read_texts

    with stopping() as stop:
        made = read_texts(args.data, args.text, workers=args.workers, stop=stop)
    for line in [to_json({**made.to_dict(), "new": made.new})] if args.json else made.lines():
        say(line)
    return 0
