"""Every finding of the loss review as a repeatable experiment.

`findings` declares the experiments in the words of `terms`, `schedule` trains their `arms`, and `tables` writes the
results, judged by `evidence`; `python -m stage3.ablate` is the command.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stage3.ablate.findings import FINDINGS, chosen
from stage3.ablate.terms import Arm, Finding
from stage3.cli import stopping
from stage3.errors import ConfigError, DataError

if TYPE_CHECKING:
    from stage3.ablate.evidence import Row
    from stage3.ablate.schedule import Experiment

DATA = "data/samples"


def prepare(out: Path | str, settings: Mapping[str, Any]) -> Path:
    """Write the thinned data set of an experiment folder, as its runs would; returns its folder.

    Raises:
        ConfigError, DataError: the data cannot be used.
    """
    from stage3.ablate import schedule
    from stage3.ablate.arms import config_of, dataset_of
    from stage3.ablate.thinning import write_thinned

    thinned = schedule.thinned_folder(Path(out))
    write_thinned(dataset_of(config_of(Arm("base"), 0, _with_data(settings), thinned)), thinned)
    return thinned


def run_experiments(
    findings: Sequence[str] = ("all",),
    seeds: int = 5,
    out: Path | str = "runs/evidence",
    *,
    jobs: int = 1,
    settings: Mapping[str, Any] | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Train the missing runs of each comparison over seeds and write the tables.

    Args:
        findings: ids such as "F1", or "all".
        seeds: seeds 0 to N-1 of each arm; a verdict needs 3.
        out: folder of runs and tables.
        jobs: processes that train at once.
        settings: of `Config`, for all runs.
        tell: called with each line to print.

    Returns:
        `out runs trained rows failed`.

    Raises:
        ConfigError: an unknown finding or setting, or a number out of range.
        DataError: the data cannot be used.
        Interrupted: it was asked to stop; the same call resumes.
    """
    from stage3.ablate import schedule, tables

    for name, value in (("seeds", seeds), ("jobs", jobs)):
        if value < 1:
            raise ConfigError(f"{name}: {value} is out of range; from 1")
    if "seed" in (settings or {}):
        raise ConfigError("seed: an experiment runs seeds 0 to N-1. Use --seeds N.")
    out, wanted, given = Path(out), chosen(findings), _with_data(settings or {})
    with stopping() as stop:
        experiment = schedule.plan(wanted, seeds, out, given)
        trained = schedule.make_all(experiment.distinct, jobs, stop)
    there = len(experiment.distinct) - trained
    tell(f"{trained} runs trained, {there} already present: {out / 'runs'}")
    again = " ".join(["python -m stage3.ablate", f"--seeds {seeds}", *(f"--{k} {v}" for k, v in given.items())])
    rows, failed = tables.write(out, experiment, wanted, again, _about(experiment, wanted, seeds, again))
    for line in _lines(rows):
        tell(line)
    tell(f"tables: {out / 'evidence.md'}, {out / 'evidence.parquet'}")
    return {"out": str(out), "runs": len(experiment.distinct), "trained": trained, "rows": len(rows), "failed": failed}


def _with_data(settings: Mapping[str, Any]) -> dict[str, Any]:
    if settings.get("finetune", "none") != "none":
        raise ConfigError("finetune: experiments compare runs on frozen features. Leave it out.")
    named = settings.get("data") or settings.get("manifest")
    return dict(settings) if named else {"data": DATA, **settings}


def _about(experiment: Experiment, findings: Sequence[Finding], seeds: int, again: str) -> dict[str, Any]:
    """How the results were made, for the text."""
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
        "books": len(set(books)),
    }


def _lines(rows: Sequence[Row]) -> Iterator[str]:
    """The headline of every comparison, for a terminal."""
    from stage3.ablate.evidence import difference, number

    for row in (r for r in rows if r.headline):
        values = f"{number(row.fixed_mean, row.metric)} against {number(row.reviewed_mean, row.metric)}"
        yield f"{row.finding}  {row.fixed} / {row.reviewed}: {row.label} {values}, {difference(row)}: {row.verdict}"


def update_table(out: Path, target: Path, tell: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Put the table of an experiment folder between the markers in a text file.

    Raises:
        DataError: no such file, no markers in it, or no table in the folder.
    """
    from stage3.ablate.evidence import replaced, short_table
    from stage3.ablate.tables import read_rows
    from stage3.storage import replace_file

    if not target.is_file():
        raise DataError(f"{target}: no such file")
    before = target.read_text(encoding="utf-8")
    try:
        after = replaced(before, short_table(read_rows(out)), str(target))
    except ValueError as error:
        raise DataError(str(error)) from None
    if after != before:
        replace_file(target, after.encode("utf-8"))
    tell(f"{target}: {'table replaced' if after != before else 'table unchanged'}")
    return {"file": str(target), "changed": after != before}
