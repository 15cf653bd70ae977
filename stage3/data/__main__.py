"""`python -m stage3.data check`, `import`, `ocr` and `export`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from stage3.cli import Parser, run, say, settings_from
from stage3.errors import DataError
from stage3.storage import to_json

EXAMPLES = (
    "python -m stage3.data import comics --out data/mine       (import --help says more)",
    "python -m stage3.data ocr --data data/mine",
    "python -m stage3.data export --data data/mine --format coco --out mine.json",
    "python -m stage3.data check --data data/samples",
    "python -m stage3.data check --manifest pages.csv --panels vlm_json --labels labels.json",
    "python -m stage3.data check --manifest pages.csv --panels ocr --panel-format ocr --remap E:\\x=/data/x",
    "python -m stage3.data check --data data/samples --json > report.json",
)
ACTIONS = ("check", "import", "ocr", "export")
SETTINGS = (
    "data",
    "manifest",
    "panels",
    "panel_format",
    "labels",
    "remap",
    "box_order",
    "box_unit",
    "keep_labels",
    "max_panels",
    "max_skip_fraction",
    "skip_bad_rows",
    "max_without_box",
    "max_without_image",
    "allow_remote_images",
    "max_megapixels",
    "limit_pages",
    "val_fraction",
    "test_fraction",
    "split_seed",
    "cache_dir",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Import comics, read their text, export their panels, or check a data set."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == ["import"]:
        from stage3.data import import_command

        return import_command.main(given[1:])
    if given[:1] == ["ocr"]:
        from stage3.data import ocr_command

        return ocr_command.main(given[1:])
    if given[:1] == ["export"]:
        from stage3.data import export_command

        return export_command.main(given[1:])
    return _check(given)


def _check(argv: Sequence[str]) -> int:
    """Check a data set; only a data set without a usable page is an error."""
    about = (
        "import: comics in any format of the field become a data set folder. ocr: text is read from\n"
        "the images of panels that have none. export: panels for other tools.\n"
        "check: read a data set as training would and report what it finds: pages kept and left out by reason, how\n"
        "panel files were found, panels per page, text, anomalies with their first paths, and the split by book."
    )
    usage = "check (--data FOLDER | --manifest FILE.csv --panels FOLDER) [--json] [--out FILE] ..."
    parser = Parser("data", about, EXAMPLES, usage=usage)
    about_action = "import comics, read their text, export panels, or check a data set"
    parser.add_argument("action", metavar="check|import|ocr|export", choices=ACTIONS, help=about_action)
    parser.add_settings(SETTINGS)
    parser.add_config()
    parser.add_json()
    parser.add_argument("--out", metavar="FILE", help="also write the report to this JSON file")
    parser.add_argument("--refresh", action="store_true", help="read all files again, ignoring the cache")
    args = parser.parse(argv)
    config = settings_from(args, config=args.config)

    from stage3.data.check import check
    from stage3.data.readers.cache import nothing_left, refusal
    from stage3.data.readers.report import report_lines
    from stage3.data.readers.sight import format_hint
    from stage3.data.readers.source import source_of

    report = check(config, out=args.out, refresh=args.refresh)
    for line in [to_json(report.to_dict())] if args.json else report_lines(report):
        say(line)
    if not args.json:
        refused = refusal(report, config)
        if refused and report.pages_kept:
            say(f"Training would refuse to start: {refused}{format_hint(source_of(config))}")
        if args.out:
            say(f"Report written to {args.out}")
    if problem := nothing_left(report):
        raise DataError(f"{problem}{format_hint(source_of(config))}")
    return 0


if __name__ == "__main__":
    run(main)
