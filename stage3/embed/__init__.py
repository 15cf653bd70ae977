"""`python -m stage3.embed`: write the panel embeddings of a run into the store that Stage 4 reads, or check one.

This file is the command. Beside it: `plan` says what an export writes, `exporter` writes it, and `stage4` is the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from stage3.config import FIELDS, ConfigError, DataError, StorageError, nearest
from stage3.console import Parser, counted, progress, say, to_json
from stage3.loading import DATA_SETTINGS, check_features, load_data
from stage3.runs import Run

SPLITS = ("all", "train", "val", "test")
EXAMPLES = (
    "python -m stage3.embed --run runs/first --out first.zarr",
    "python -m stage3.embed --run runs/first --data all/comics --out all.zarr   (again after a stop: it goes on)",
    "python -m stage3.embed --run runs/first --out first.zarr --pages 0:600000  (one part; others may run beside it)",
    "python -m stage3.embed --out first.zarr --verify                           (reads everything, compares hashes)",
)
ABOUT = """Write the fused panel embeddings of a run's best checkpoint as a Zarr store for Stage 4.

X.zarr holds panel_embeddings (pages, 16, dim) and panel_masks (pages, 16); X.metadata.json lists the pages in row
order; X.panels.parquet has a row for each panel. Embeddings are as the encoder gives them, not of length 1: divide by
the norm for cosines. A stopped export goes on with the same command and ends with the same bytes."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, export or verify, print; returns the exit code."""
    parser = Parser("embed", ABOUT, EXAMPLES, usage="--run RUN --out X.zarr [--data FOLDER] [--verify] [--json] ...")
    parser.add_argument("--run", help="folder of the run; left out, --verify checks the store that is there")
    parser.add_argument("--out", required=True, metavar="X.zarr", help="the store")
    parser.add_argument("--split", default="all", help=f"which pages: {', '.join(SPLITS)}; default all")
    parser.add_argument("--checkpoint", type=int, metavar="STEP", help="export this step; default the best")
    parser.add_argument("--pages", metavar="A:B", help="write only these rows of the store, on borders of 100 pages")
    parser.add_argument("--verify", action="store_true", help="read the whole store and name every damaged file")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda; part of what makes bytes equal")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_settings(DATA_SETTINGS)
    args = parser.parse(argv)
    if args.split not in SPLITS:
        raise ConfigError(f"split: {args.split!r} is not one of {', '.join(SPLITS)}.{nearest(args.split, SPLITS)}")
    if not args.run and not args.verify:
        raise ConfigError("name the run to export with --run RUN, or check a store with --verify")
    tell: Callable[[str], None] = (lambda _: None) if args.json else say
    result: dict[str, Any] = {"out": args.out}
    if args.run:
        result |= export(args, tell)
    if args.verify and result.get("finished", True):
        result["damages"] = verify(args.out, tell)
    if args.json:
        say(to_json(result))
    if result.get("damages"):
        many = len(result["damages"])
        raise StorageError(
            f"{args.out}: {counted(many, 'damaged part')}. Run the command that wrote it again to repair it."
        )
    return 0


def export(args: Any, tell: Callable[[str], None]) -> dict[str, Any]:
    """Embed and write; a summary for people and programs."""
    the_run = Run.open(args.run)
    import torch

    from stage3 import evaluation
    from stage3.embed.exporter import Export, run_export
    from stage3.train import stopping
    from stage3.train.trainer import resolve_device

    torch.set_num_threads(the_run.config.threads)
    device = resolve_device(args.device)
    best = the_run.best()
    step = args.checkpoint if args.checkpoint is not None else best.step if best else the_run.load_checkpoint().step
    model = evaluation.load_model(the_run, step).to(device)
    data = load_data(the_run, {k: v for k, v in vars(args).items() if k in FIELDS and k in DATA_SETTINGS})
    check_features(the_run, model.encoder.spec, data)
    job = Export.of(the_run, step, model, data, args.out, args.split, device)
    shard = page_range(args.pages, len(job.pages)) if args.pages else None
    tell(f"exporting {the_run.path}, step {step}, {counted(len(job.pages), 'page')}, to {job.places.zarr}")
    total = shard[1] - shard[0] if shard else len(job.pages)
    with stopping() as stop, progress("embedding pages", total) as bar:
        found = run_export(job, shard=shard, stop=stop, on_pages=bar.advance)
    for line in summary_lines(found, job.places):
        tell(line)
    return found | {"run": str(the_run.path), "step": step, "checkpoint": job.plan["checkpoint"]}


def page_range(text: str, pages: int) -> tuple[int, int]:
    """`A:B` as numbers; an end left out, or beyond the last page, is the last page."""
    first, colon, end = text.partition(":")
    if not colon or not (first or "0").isdecimal() or not (end or "0").isdecimal():
        raise ConfigError(f"pages: {text!r} is not A:B, such as 0:1000")
    if int(first or 0) >= pages:
        raise ConfigError(f"pages: {text!r} starts after the last row; the store has {counted(pages, 'page')}")
    return int(first or 0), min(int(end or pages), pages)


def summary_lines(found: Mapping[str, Any], places: Any) -> Iterator[str]:
    """What was written, in words."""
    if found["panels_cut"]:
        cut = f"{counted(found['panels_cut'], 'panel')} on {counted(found['pages_cut'], 'page')}"
        yield f"left out: {cut}; Stage 4 holds 16 panels a page"
    if not found["finished"]:
        written = f"{counted(found['written'], 'chunk')} written, {found['kept']} were there"
        yield f"{written}; run without --pages to finish the store"
        return
    if not found["written"]:
        yield f"{places.zarr} is complete: {counted(found['chunks'], 'chunk')} as written"
    else:
        yield f"{places.zarr}: {counted(found['pages'], 'page')}, {counted(found['panels'], 'panel')}"
        yield f"{counted(found['written'], 'chunk')} written, {found['kept']} kept from an earlier attempt"
    yield f"beside it: {places.metadata.name} (pages in row order), {places.sidecar.name} (a row a panel)"


def verify(out: str, tell: Callable[[str], None]) -> list[str]:
    """Every damage of a finished store, told one by one.

    Raises:
        DataError: there is no store.
    """
    from stage3.embed.stage4 import Places, damages

    places = Places.of(out)
    if not places.zarr.is_dir():
        raise DataError(f"{places.zarr}: no such store")
    found = []
    for damage in damages(places):
        found.append(damage)
        tell(damage)
    if not found:
        tell(f"{places.zarr}: every file is what was written")
    return found
