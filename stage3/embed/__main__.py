"""`python -m stage3.embed`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import Any

from stage3.cli import Parser, counted, given, run, say
from stage3.embed import export_run, verify
from stage3.errors import ConfigError, Interrupted, StorageError
from stage3.runs import RunFolder
from stage3.runs.data import DATA_SETTINGS, load_data
from stage3.storage import to_json

EXAMPLES = (
    "python -m stage3.embed --run runs/first --out first.zarr",
    "python -m stage3.embed --run runs/first --data all/comics --out all.zarr   (resumes a stopped export)",
    "python -m stage3.embed --run runs/first --out first.zarr --pages 0:600000  (one part; others may run in parallel)",
    "torchrun --nproc-per-node 4 -m -- stage3.embed --run runs/first --out first.zarr     (four processes, same bytes)",
    "python -m stage3.embed --out first.zarr --verify                           (reads everything, compares hashes)",
)
ABOUT = """Write the fused panel embeddings of a run's best checkpoint as a Zarr store for Stage 4.

X.zarr holds panel_embeddings (pages, 16, dim) and panel_masks (pages, 16); X.metadata.json lists the pages in row
order; X.panels.parquet has one row per panel. Embeddings are as the encoder gives them, not normalized: divide by the
norm for cosines. The same command resumes a stopped export and ends with the same bytes."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, export or verify, print; returns the exit code."""
    parser = Parser("embed", ABOUT, EXAMPLES, usage="--run RUN --out X.zarr [--data FOLDER] [--verify] [--json] ...")
    parser.add_run("folder of the run; not needed with --verify", required=False)
    parser.add_argument("--out", required=True, metavar="X.zarr", help="the store to write or verify")
    parser.add_split("all", "pages to export; default all")
    parser.add_checkpoint()
    parser.add_argument("--pages", metavar="A:B", help="write only these rows of the store, in multiples of 100")
    parser.add_argument("--verify", action="store_true", help="read all of the store and name every damaged file")
    parser.add_device("auto", "; equal bytes need the same device")
    parser.add_json()
    parser.add_settings(DATA_SETTINGS)
    args = parser.parse(argv)
    if not args.run and not args.verify:
        raise ConfigError("give the run to export with --run RUN, or verify a store with --verify")
    if not args.run:
        return _reported(args, {"out": args.out}, (lambda _: None) if args.json else say)
    from stage3.features import usable_device
    from stage3.peers import code_of_stop, joined

    folder = RunFolder.load(args.run)
    with joined(lambda: usable_device(args.device)) as peers:
        tell: Callable[[str], None] = say if peers.leads and not args.json else lambda _: None
        try:
            found = export_run(
                folder,
                args.out,
                checkpoint=args.checkpoint,
                data=peers.leader_first(lambda: load_data(folder, given(args, DATA_SETTINGS))),
                split=args.split,
                pages=args.pages,
                device=args.device,
                tell=tell,
                peers=peers,
            )
        except Interrupted as stopped:
            return code_of_stop(stopped, tell)
        return _reported(args, {"out": args.out} | found, tell) if peers.leads else 0


def _reported(args: Namespace, summary: dict[str, Any], tell: Callable[[str], None]) -> int:
    """Verify the store where that was asked for, and print what was done."""
    if args.verify and summary.get("finished", True):
        summary["damages"] = verify(args.out, tell)
    if args.json:
        say(to_json(summary))
    if summary.get("damages"):
        many = counted(len(summary["damages"]), "damaged part")
        raise StorageError(f"{args.out}: {many}. Repeat the command that wrote the store to repair it.")
    return 0


if __name__ == "__main__":
    run(main)
