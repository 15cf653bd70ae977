"""`python -m stage3.data import`."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stage3.cli import Parser, given, say, stopping
from stage3.config import Config
from stage3.errors import ConfigError, DataError
from stage3.storage import to_json

if TYPE_CHECKING:
    from stage3.data.importers import Summary
    from stage3.data.table import DataReport

EXAMPLES = (
    "python -m stage3.data import comics --out data/mine",
    "python -m stage3.data import one.cbz two.cbz --out data/mine --panels none",
    "python -m stage3.data import Manga109_released_2023_12_07 --out data/manga109",
    "python -m stage3.data import instances.json --images scans --out data/mine --panel_class cell",
)


def main(argv: Sequence[str]) -> int:
    """Import comics into a data set folder, and report on it as `check` does."""
    about = (
        "Import comics into a data set folder: CBZ, ZIP and folders of images; COCO, YOLO, mokuro, Magi, Manga109,\n"
        "Kumiko, Label Studio, CVAT, LabelMe, ACBF and CoMix. Running it again adds what is new, and goes on where it\n"
        "was stopped. What each format may hold: docs/import.md."
    )
    usage = "import SOURCE... --out DATASET [--panels find|none|FOLDER_OR_ID] [--format NAME] [--images FOLDER] ..."
    parser = Parser("data", about, EXAMPLES, usage=usage)
    parser.add_argument("sources", metavar="SOURCE", nargs="+", help="a file or folder of comics or annotations")
    parser.add_argument(
        "--out", metavar="DATASET", required=True, help="folder of the data set, new or of an earlier import"
    )
    parser.add_argument(
        "--panels",
        default="find",
        metavar="HOW",
        help="for pages without boxes: find them, none (a page is one panel), or the folder or id of a detector that "
        "transformers can load; default find",
    )
    parser.add_argument("--format", default="", metavar="NAME", help="the format, where a source could be in several")
    parser.add_argument("--images", metavar="FOLDER", help="where the images lie, if not beside their annotations")
    parser.add_argument(
        "--panel_class", action="append", default=[], metavar="NAME", help="a class that is a panel; repeatable"
    )
    parser.add_argument(
        "--min_score", type=float, default=0.5, metavar="VALUE", help="lowest score of a box, 0 to 1; default 0.5"
    )
    parser.add_argument(
        "--min_confidence",
        type=float,
        metavar="VALUE",
        help="pages stay one panel where the found panels, each counted by its confidence, cover a smaller share of "
        "the page, 0 to 1; default 0.2",
    )
    parser.add_argument("--right_to_left", action="store_true", help="read all pages from right to left, as manga")
    parser.add_argument("--left_to_right", action="store_true", help="read all pages from left to right")
    parser.add_argument("--box_size", metavar="WxH", help="size in pixels of the images that boxes were made on")
    parser.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="panels|texts",
        help="what annotations say of panels or of texts is not used; repeatable",
    )
    parser.add_argument(
        "--sample",
        type=int,
        default=0,
        metavar="N",
        help="import about N pages alone, spread over all sources, into a folder of their own: to look at before all",
    )
    parser.add_settings(("cache_dir",))
    parser.add_json()
    args = parser.parse(argv)
    direction = _direction(args)
    box_size = _size(args.box_size)
    if args.sample < 0:
        raise ConfigError(f"sample: {args.sample} is out of range: must be 0 (all pages) or more")
    lines: list[str] = []

    from stage3.data.check import check
    from stage3.data.importers import import_comics

    config = Config.layered((given(args, ("cache_dir",)), "command line"), ({"data": args.out}, "out"))
    with stopping() as stop:
        summary = import_comics(
            args.sources,
            args.out,
            panels=args.panels,
            format=args.format,
            images=args.images,
            panel_classes=args.panel_class,
            min_score=args.min_score,
            **({} if args.min_confidence is None else {"min_confidence": args.min_confidence}),
            right_to_left=direction,
            box_size=box_size,
            ignore=args.ignore,
            sample=args.sample,
            tell=lines.append if args.json else say,
            stop=stop,
        )
    report = check(config)
    if args.json:
        made = {
            **summary.to_dict(),
            "recognized": lines,
            "new": summary.new,
            "kept": summary.kept,
            "lines": summary.lines(),
            "next": next_command(config, report),
        }
        say(to_json({"import": made, "check": report.to_dict()}))
    else:
        _print(summary, report, config)
    return _settled(report, config)


def _direction(args: argparse.Namespace) -> bool | None:
    if args.right_to_left and args.left_to_right:
        raise ConfigError("right_to_left and left_to_right contradict each other. Drop one.")
    return True if args.right_to_left else False if args.left_to_right else None


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,6})[xX×](\d{1,6})", text.strip(), re.ASCII)
    if found is None:
        raise ConfigError(f"box_size: {text!r} is not valid: expected WIDTHxHEIGHT in pixels, such as 720x1024")
    return int(found[1]), int(found[2])


def _print(summary: Summary, report: DataReport, config: Config) -> None:
    from stage3.data.readers.report import report_lines

    for line in ["", *summary.lines(), "", *report_lines(report)]:
        say(line)
    if report.pages_kept:
        for line in ["", "Next:", f"  {next_command(config, report)}"]:
            say(line)


def next_command(config: Config, report: DataReport) -> str:
    """What a person would type to train on the data set; a single book is trained on without validation."""
    name = (
        re.sub(r"[^\w.-]+", "-", config.data.rstrip("/\\").replace("\\", "/").rpartition("/")[2]).strip("-.") or "mine"
    )
    alone = " --val_fraction 0 --test_fraction 0" if "problem" in report.facts.get("splits", {}) else ""
    return f"python -m stage3.train --run runs/{name} --data {shlex.quote(config.data)}{alone}"


def _settled(report: DataReport, config: Config) -> int:
    from stage3.data.readers.cache import nothing_left

    if problem := nothing_left(report):
        raise DataError(problem)
    return 0
