"""`python -m stage3.data export`."""

from __future__ import annotations

from collections.abc import Sequence

from stage3.cli import Parser, counted, say, settings_from
from stage3.storage import to_json

EXAMPLES = (
    "python -m stage3.data export --data data/mine --format coco --out mine.json",
    "python -m stage3.data export --data data/mine --format cvat --out annotations.xml",
    "python -m stage3.data export --data data/mine --format acbf --out books",
)
SETTINGS = ("data", "manifest", "panels", "panel_format", "labels", "remap", "box_order", "skip_bad_rows")
CHOICES = ("coco", "kumiko", "cvat", "acbf")


def main(argv: Sequence[str]) -> int:
    """Write the panels of a data set for other tools."""
    about = (
        "Write the panels of a data set, in reading order and with their texts, for other tools: COCO JSON, Kumiko\n"
        "JSON and CVAT XML as one file that names the images, ACBF as a folder of one CBZ per book with its images."
    )
    usage = f"export --data DATASET --format {'|'.join(CHOICES)} --out PATH"
    parser = Parser("data", about, EXAMPLES, usage=usage)
    parser.add_argument("--format", required=True, choices=CHOICES, metavar="NAME", help=", ".join(CHOICES))
    parser.add_argument("--out", required=True, metavar="PATH", help="the file, or for acbf the folder")
    parser.add_settings(SETTINGS)
    parser.add_json()
    args = parser.parse(argv)

    from stage3.data.exporters import export_panels

    made = export_panels(settings_from(args), args.out, args.format)
    if args.json:
        say(
            to_json(
                {
                    "files": [str(path) for path in made.files],
                    "pages": made.pages,
                    "panels": made.panels,
                    "left_out": made.left_out.counts,
                }
            )
        )
        return 0
    where = str(made.files[0]) if len(made.files) == 1 else f"{len(made.files):,} files in {args.out}"
    say(f"{counted(made.pages, 'page')}, {counted(made.panels, 'panel')} written to {where}")
    for reason, n in made.left_out.counts.items():
        say(f"left out: {counted(n, 'page')} {reason.replace('_', ' ')}, first {made.left_out.first[reason]}")
    return 0
