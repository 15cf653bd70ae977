"""`python -m stage3.ablate`: every finding of the loss review as an experiment that anyone can run again.

This file is the command. Beside it: `findings` declares the experiments in the words of `terms`, `schedule` trains
their `arms`, and `tables` says what came out, judged by `evidence`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stage3.ablate.findings import FINDINGS, chosen
from stage3.ablate.terms import Arm, Finding
from stage3.config import FIELDS, ConfigError, DataError, NumericError
from stage3.console import Parser, say, to_json

if TYPE_CHECKING:
    from stage3.ablate.evidence import Row
    from stage3.ablate.schedule import Experiment

EXAMPLES = (
    "python -m stage3.ablate --findings all --seeds 5 --jobs 2                 (about a quarter of an hour)",
    "python -m stage3.ablate --findings F2 F3 --seeds 3",
    "python -m stage3.ablate --findings F4 --epochs 20 --out runs/longer",
    "python -m stage3.ablate --out data/samples/evidence --update README.md    (only puts the table there)",
    "python -m stage3.ablate --prepare                                         (only writes the thinned data)",
)
DATA = "data/samples"


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, train what is missing, write the tables; returns the exit code."""
    about = "Train each form against the other over seeds and say which difference shows. Resumes by itself."
    parser = Parser("ablate", about, EXAMPLES, usage="[--findings F1 F2 ...] [--seeds 5] [--out DIR] [--SETTING VALUE]")
    parser.add_argument("--findings", nargs="+", default=["all"], metavar="ID", help=f"all, or {', '.join(FINDINGS)}")
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 to N-1 of each arm; default 5, a verdict needs 3")
    parser.add_argument("--out", default="runs/evidence", help="folder of runs and tables; default runs/evidence")
    parser.add_argument("--jobs", type=int, default=1, help="processes that train at once; default 1")
    parser.add_argument("--update", metavar="FILE", help="put the table of --out between the markers in FILE")
    parser.add_argument("--prepare", action="store_true", help="write the thinned data set and stop")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.add_settings()
    args = parser.parse(argv)
    for name in ("seeds", "jobs"):
        if getattr(args, name) < 1:
            raise ConfigError(f"{name}: {getattr(args, name)} is out of range; from 1")
    if hasattr(args, "seed"):
        raise ConfigError("seed: an experiment runs seeds 0 to N-1. Give --seeds N.")
    tell: Callable[[str], None] = (lambda _: None) if args.json else say
    summary = _update(Path(args.out), Path(args.update), tell) if args.update else _experiment(args, tell)
    if args.json:
        say(to_json(summary))
    if summary.get("failed"):
        shown = ", ".join(summary["failed"][:5])
        raise NumericError(f"{len(summary['failed'])} runs met infinite numbers and count in no comparison: {shown}")
    return 0


def _experiment(args: Any, tell: Callable[[str], None]) -> dict[str, Any]:
    from stage3.ablate import schedule, tables
    from stage3.ablate.arms import config_of, dataset_of
    from stage3.ablate.thinning import write_thinned
    from stage3.train import stopping

    given = {name: value for name, value in vars(args).items() if name in FIELDS}
    if not (given.get("data") or given.get("manifest")):
        given["data"] = DATA
    out, findings = Path(args.out), chosen(args.findings)
    if args.prepare:
        thinned = schedule.thinned_folder(out)
        write_thinned(dataset_of(config_of(Arm("base"), 0, given, thinned)), thinned)
        tell(f"thinned data: {thinned}")
        return {"thinned": str(thinned)}
    with stopping() as stop:
        experiment = schedule.plan(findings, args.seeds, out, given)
        trained = schedule.make_all(experiment.distinct, args.jobs, stop)
    there = len(experiment.distinct) - trained
    tell(f"{trained} runs trained, {there} were there already: {out / 'runs'}")
    again = " ".join(["python -m stage3.ablate", f"--seeds {args.seeds}", *(f"--{k} {v}" for k, v in given.items())])
    rows, failed = tables.write(out, experiment, findings, again, _about(experiment, findings, args.seeds, again))
    for line in _lines(rows):
        tell(line)
    tell(f"tables: {out / 'evidence.md'}, {out / 'evidence.parquet'}")
    return {"out": str(out), "runs": len(experiment.distinct), "trained": trained, "rows": len(rows), "failed": failed}


def _about(experiment: Experiment, findings: Sequence[Finding], seeds: int, again: str) -> dict[str, Any]:
    """What the text says of how it was made."""
    data = experiment.data
    pages = data.pages("test")
    books = data.table.pages["book_id"].to_numpy()[pages]
    config = experiment.distinct[0].config
    names = "all" if len(findings) == len(FINDINGS) else " ".join(f.id for f in findings)
    return {
        "command": f"{again} --findings {names}",
        "data": config.data or config.manifest,
        "runs": len(experiment.distinct),
        "epochs": config.epochs,
        "seeds": seeds,
        "panels": len(data.panel_set.rows_of(pages)),
        "books": len(set(books.tolist())),
    }


def _lines(rows: Sequence[Row]) -> Iterator[str]:
    """The headline of every comparison, for a terminal."""
    from stage3.ablate.evidence import difference, number

    for row in (r for r in rows if r.headline):
        values = f"{number(row.fixed_mean, row.metric)} against {number(row.reviewed_mean, row.metric)}"
        yield f"{row.finding}  {row.fixed} / {row.reviewed}: {row.label} {values}, {difference(row)}: {row.verdict}"


def _update(out: Path, target: Path, tell: Callable[[str], None]) -> Mapping[str, Any]:
    from stage3.ablate.evidence import replaced, short_table
    from stage3.ablate.tables import read_rows
    from stage3.durable import replace_file

    if not target.is_file():
        raise DataError(f"{target}: no such file")
    before = target.read_text(encoding="utf-8")
    try:
        after = replaced(before, short_table(read_rows(out)), str(target))
    except ValueError as error:
        raise DataError(str(error)) from None
    if after != before:
        replace_file(target, after.encode("utf-8"))
    tell(f"{target}: {'table replaced' if after != before else 'the table is as it was'}")
    return {"file": str(target), "changed": after != before}
