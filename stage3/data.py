"""`python -m stage3.data check`: what is in a data set, what is left out of it, and why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stage3 import console
from stage3.config import Config, ConfigError, DataError, StorageError, nearest

ACTIONS = ("check",)
SETTINGS = (
    "data",
    "manifest",
    "panels",
    "panel_format",
    "labels",
    "remap",
    "box_order",
    "keep_labels",
    "max_panels",
    "max_skip_fraction",
    "max_megapixels",
    "limit_pages",
    "val_fraction",
    "test_fraction",
    "split_seed",
    "cache_dir",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Check a data set; returns 2 only when nothing is left to train on."""
    parser = console.Parser(
        "data",
        "Reads a data set as a training run would and reports what it finds: pages kept and left out by reason, how "
        "panel files were found, panels a page, text, anomalies with their first paths, and the split by book.",
        [
            "python -m stage3.data check --data data/samples",
            "python -m stage3.data check --manifest pages.csv --panels vlm_json --labels labels.json",
            "python -m stage3.data check --manifest pages.csv --panels ocr --panel-format ocr --remap E:\\x=/data/x",
            "python -m stage3.data check --data data/samples --json > report.json",
        ],
    )
    parser.add_argument("action", metavar="check", help="read everything and report")
    parser.add_settings(SETTINGS)
    parser.add_argument("--config", help="YAML file of settings; flags win over it")
    parser.add_argument("--json", action="store_true", help="print the whole report as one line of JSON")
    parser.add_argument("--out", help="also write the whole report to this JSON file")
    parser.add_argument("--refresh", action="store_true", help="read all files again, whatever the cache holds")
    args = parser.parse(argv)
    if args.action not in ACTIONS:
        raise ConfigError(
            f"unknown action {args.action!r}.{nearest(args.action, ACTIONS)} Known: {', '.join(ACTIONS)}."
        )
    return check(console.settings_from(args, config=args.config), args.json, args.out, args.refresh)


def check(config: Config, as_json: bool, out: str | None, refresh: bool) -> int:
    """Read the data set, print and save the report."""
    from stage3 import readers
    from stage3.readers.cache import damage_problem, nothing_left

    report = readers.read(config, refresh=refresh).report
    text = console.to_json(report.to_dict())
    if out:
        try:
            Path(out).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise StorageError(f"{out}: cannot be written: {error.strerror}") from None
    refused = damage_problem(report, config)
    if as_json:
        console.say(text)
    else:
        for line in readers.report_lines(report):
            console.say(line)
        if refused and report.pages_kept:
            console.say(f"A training run would refuse to start: {refused}")
        if out:
            console.say(f"Report written to {out}")
    if problem := nothing_left(report):
        raise DataError(problem)
    return 0


if __name__ == "__main__":
    console.run(main)
