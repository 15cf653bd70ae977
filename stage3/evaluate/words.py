"""An evaluation report as lines for a person."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from stage3.cli import DASH, counted, number, percent

ROWS = {"r1": "R@1", "r5": "R@5", "r10": "R@10", "mrr": "mean reciprocal rank", "median_rank": "median rank"}
WAYS = {
    "i2t": "image → text, in the full gallery",
    "t2i": "text → image, in the full gallery",
    "text_to_panel": "text → fused panel (for information)",
    "image_to_panel": "image → fused panel (for information)",
}
COLLAPSE = {
    "effective_rank": "effective rank",
    "mean_cosine": "mean cosine of all pairs",
    "intra_cosine": "mean cosine within a page",
    "inter_cosine": "mean cosine between pages",
    "page_gap": "page gap (within − between)",
    "uniformity": "uniformity (lower: more spread)",
    "alignment": "alignment (lower: closer pairs)",
}

COLUMNS = ("value", "interval", "frozen", "untrained", "chance")  # in which a number may not be defined
FROZEN = (
    "frozen, untrained: the features that the model reads, centered on the training panels, and the model before its "
    "first step"
)
WITHIN, SAME_PAGE, RECONSTRUCTION = "among the panels of one page", "same-page R-precision", "reconstruction"
TITLES = {  # of every metric in the table: the part in which it stands
    **{
        f"retrieval/{way}_{row}": title.partition(",")[0].partition(" (")[0]
        for way, title in WAYS.items()
        for row in ROWS
    },
    **{f"retrieval/within_page_{way}": WITHIN for way in ("i2t", "t2i")},
    "retrieval/same_page_r_precision": SAME_PAGE,
    **{f"reconstruction/{name}": RECONSTRUCTION for name in ("skill", "rank_r1")},
    **{f"collapse/{name}": f"collapse check ({label.partition(' (')[0]})" for name, label in COLLAPSE.items()},
}


def report_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The report for a person, line by line."""
    chosen = f" (best by {report['selected_by']})" if report["selected_by"] else ""
    yield f"{report['run']}, checkpoint of step {report['step']}{chosen}"
    yield (
        f"{report['split']} split: {counted(report['books'], 'book')}, {counted(report['pages'], 'page')}, "
        f"{counted(report['panels'], 'panel')}; "
        f"gallery of {report['gallery']:,} panels with image and text"
    )
    for note in report["notes"]:
        yield f"note: {note}"
    yield ""
    by = f"{percent(report['level'], 0)} by {report['resampled']}"
    yield f"{'':<36}{'value':>9}  {by:>19}{'frozen':>10}{'untrained':>11}{'chance':>9}"
    for way, title in WAYS.items():
        yield title
        yield from (_line(report, f"retrieval/{way}_{row}", f"  {label}") for row, label in ROWS.items())
    yield WITHIN
    yield _line(report, "retrieval/within_page_i2t", "  image → its text first")
    yield _line(report, "retrieval/within_page_t2i", "  text → its image first")
    yield _line(report, "retrieval/same_page_r_precision", SAME_PAGE)
    yield _frozen_line(report)
    yield from _reconstruction_lines(report)
    yield ""
    yield f"collapse check, {report['panels']:,} fused panel embeddings"
    baselines = [report["baselines"][name] for name in ("frozen", "untrained")]
    most = report["chance"]["collapse/effective_rank_most"]
    for name, label in COLLAPSE.items():
        frozen, untrained = (number(row.get(f"collapse/{name}")) for row in baselines)
        of = f"of at most {most:.0f}" if name == "effective_rank" else ""
        yield f"  {label:<34}{number(report.get(f'collapse/{name}')):>9}  {of:>19}{frozen:>10}{untrained:>11}"
    losses = [f"{n.removeprefix('loss/')} {v:.3f}" for n, v in report.items() if n.startswith("loss/")]
    yield f"losses, in fixed batches: {', '.join(losses)}"
    yield ""
    yield report["added"]["sentence"]
    yield from (way["sentence"] for way in report["against_chance"])
    yield ""
    why = list(_why_dashes(report))
    yield from [f"Why there is a {DASH}:"] if why else []
    for line in why:
        yield from textwrap.wrap(line, 110, initial_indent="  ", subsequent_indent="    ")
    yield "What is compared:"
    for names, meaning in report["spaces"].items():
        yield from textwrap.wrap(f"{names}: {meaning}", 110, initial_indent="  ", subsequent_indent="    ")
    yield from textwrap.wrap(FROZEN, 110, initial_indent="  ", subsequent_indent="    ")
    yield f"next: python -m stage3.diagnose --run {report['run']}"


def _why_dashes(report: Mapping[str, Any]) -> Iterator[str]:
    """One line for each reason why a number is not defined: the columns and parts of the table where it is so."""
    reasons: dict[str, dict[str, dict[str, None]]] = {}
    for name in (n for n in TITLES if n in report["undefined"]):
        for column, reason in report["undefined"][name].items():
            reasons.setdefault(reason, {}).setdefault(TITLES[name], {})[column] = None
    for reason, parts in reasons.items():
        where: dict[tuple[str, ...], list[str]] = {}
        for title, columns_of in parts.items():
            where.setdefault(tuple(c for c in COLUMNS if c in columns_of), []).append(title)
        yield "; ".join(f"{', '.join(columns)} of {', '.join(of)}" for columns, of in where.items()) + f": {reason}"


def _reconstruction_lines(report: Mapping[str, Any]) -> Iterator[str]:
    yield f"{RECONSTRUCTION} of a panel from its page mates"
    if "reconstruction/skill" not in report:
        yield "  not measured: its weight is 0, so its head was not trained"
        return
    yield _line(report, "reconstruction/skill", "  R² (1 perfect, 0 the mean panel)")
    yield _line(report, "reconstruction/rank_r1", "  prediction is nearest to its panel")


def _line(report: Mapping[str, Any], name: str, label: str) -> str:
    share = not name.endswith(("mrr", "median_rank", "skill"))
    show = percent if share else _rank if name.endswith("median_rank") else number
    low, high = report["intervals"].get(name, (math.nan, math.nan))
    between = f"{show(low)} to {show(high)}" if math.isfinite(low) else DASH
    frozen, untrained = (show(report["baselines"][of].get(name)) for of in ("frozen", "untrained"))
    chance = show(report["chance"].get(name))
    return f"{label:<36}{show(report.get(name)):>9}  {between:>19}{frozen:>10}{untrained:>11}{chance:>9}"


def _frozen_line(report: Mapping[str, Any]) -> str:
    main = report["added"]["metric"]
    image, text = (percent(report["baselines"][f"frozen_{name}"].get(main)) for name in ("image", "text"))
    return f"  of frozen image features alone {image}, of text alone {text}"


def _rank(value: float | None) -> str:
    return number(value, ",.1f")
