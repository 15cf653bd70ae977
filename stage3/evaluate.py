"""`python -m stage3.evaluate`: what a run is worth on held-out pages, with intervals and chance levels."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stage3.config import FIELDS, ConfigError, nearest
from stage3.console import Parser, counted, run, say, to_json
from stage3.loading import DATA_SETTINGS, load_data
from stage3.runs import Run

if TYPE_CHECKING:
    from stage3.report import evaluation_report as evaluation_report

SPLITS = ("test", "val", "train", "all")
EXAMPLES = (
    "python -m stage3.evaluate --run runs/first",
    "python -m stage3.evaluate --run runs/first --split val --intervals book",
    "python -m stage3.evaluate --run runs/first --data other/comics        (all pages of other comics)",
    "python -m stage3.evaluate --run runs/first --checkpoint 120 --json",
)
ROWS = {"r1": "R@1", "r5": "R@5", "r10": "R@10", "mrr": "mean reciprocal rank", "median_rank": "median rank"}
WAYS = {
    "i2t": "picture → text, over the whole gallery",
    "t2i": "text → picture, over the whole gallery",
    "text_to_panel": "text → fused panel (for information)",
    "image_to_panel": "picture → fused panel (for information)",
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


def __getattr__(name: str) -> Any:
    """`evaluation_report` under the verb's name; torch is imported only when it is asked for."""
    if name == "evaluation_report":
        from stage3.report import evaluation_report

        return evaluation_report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, evaluate, print; returns the exit code."""
    about = "Measure a run's best checkpoint on held-out pages: retrieval both ways, collapse, reconstruction."
    parser = Parser("evaluate", about, EXAMPLES, usage="--run RUN [--split SPLIT] [--data FOLDER] [--json] ...")
    parser.add_argument("--run", required=True, help="folder of the run, such as runs/first")
    parser.add_argument("--split", help=f"{', '.join(SPLITS)}; default test, or val where no book is held out")
    parser.add_argument("--checkpoint", type=int, metavar="STEP", help="evaluate this step; default the best")
    parser.add_argument("--intervals", default="page", help="what the bootstrap resamples, page or book; default page")
    parser.add_argument("--max_pages", type=int, default=5000, help="evenly spaced pages stand for more; 0 takes all")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or auto; default cpu, where numbers repeat exactly")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_settings(DATA_SETTINGS)
    args = parser.parse(argv)
    for name, known in (("split", SPLITS), ("intervals", ("page", "book"))):
        value = getattr(args, name)
        if value is not None and value not in known:
            raise ConfigError(f"{name}: {value!r} is not one of {', '.join(known)}.{nearest(value, known)}")
    report = _report(args)
    if args.json:
        say(to_json(report))
    else:
        for line in report_lines(report):
            say(line)
    return 0


def _report(args: Any) -> dict[str, Any]:
    the_run = Run.open(args.run)
    import torch

    from stage3.report import evaluation_report
    from stage3.train.trainer import resolve_device

    torch.set_num_threads(the_run.config.threads)
    data = load_data(the_run, {k: v for k, v in vars(args).items() if k in FIELDS and k in DATA_SETTINGS})
    return evaluation_report(
        the_run,
        split=args.split,
        data=data,
        checkpoint=args.checkpoint,
        intervals=args.intervals,
        max_pages=args.max_pages,
        device=resolve_device(args.device),
    )


def report_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The report for a person, line by line."""
    chosen = f" (best by {report['selected_by']})" if report["selected_by"] else ""
    yield f"{report['run']}, checkpoint of step {report['step']}{chosen}"
    yield (
        f"{report['split']} split: {counted(report['books'], 'book')}, {counted(report['pages'], 'page')}, "
        f"{counted(report['panels'], 'panel')}; "
        f"gallery of {report['gallery']:,} panels with picture and text"
    )
    for note in report["notes"]:
        yield f"note: {note}"
    yield ""
    by = f"{100 * report['level']:.0f} % by {report['resampled']}"
    yield f"{'':<36}{'value':>9}  {by:>19}{'chance':>10}"
    for way, title in WAYS.items():
        yield title
        yield from (_line(report, f"retrieval/{way}_{row}", f"  {label}") for row, label in ROWS.items())
    yield "among the panels of one page"
    yield _line(report, "retrieval/within_page_i2t", "  picture → its text first")
    yield _line(report, "retrieval/within_page_t2i", "  text → its picture first")
    yield _line(report, "retrieval/same_page_r_precision", "same-page R-precision")
    yield from _reconstruction_lines(report)
    yield ""
    yield f"collapse check, {report['panels']:,} fused panel embeddings"
    most = report["chance"]["collapse/effective_rank_most"]
    for name, label in COLLAPSE.items():
        of = f"  of at most {most:.0f}" if name == "effective_rank" else ""
        yield f"  {label:<34}{_number(report.get(f'collapse/{name}')):>9}{of}"
    losses = [f"{n.removeprefix('loss/')} {v:.3f}" for n, v in report.items() if n.startswith("loss/")]
    yield f"losses, in fixed batches: {', '.join(losses)}"
    yield ""
    yield "What is compared:"
    for names, meaning in report["spaces"].items():
        yield from textwrap.wrap(f"{names}: {meaning}", 110, initial_indent="  ", subsequent_indent="    ")
    yield f"next: python -m stage3.diagnose --run {report['run']}"


def _reconstruction_lines(report: Mapping[str, Any]) -> Iterator[str]:
    yield "reconstruction of a panel from its page mates"
    if "reconstruction/skill" not in report:
        yield "  not measured: the run gives it weight 0, so its head never learned"
        return
    yield _line(report, "reconstruction/skill", "  skill (1 perfect, 0 the mean panel)")
    yield _line(report, "reconstruction/rank_r1", "  prediction is nearest to its panel")


def _line(report: Mapping[str, Any], name: str, label: str) -> str:
    share = not name.endswith(("mrr", "median_rank", "skill"))
    show = _percent if share else _rank if name.endswith("median_rank") else _number
    low, high = report["intervals"].get(name, (math.nan, math.nan))
    between = f"{show(low)} to {show(high)}" if math.isfinite(low) else "–"
    return f"{label:<36}{show(report.get(name)):>9}  {between:>19}{show(report['chance'].get(name)):>10}"


def _percent(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.1f} %"


def _number(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.3f}"


def _rank(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:,.1f}"


if __name__ == "__main__":
    run(main)
