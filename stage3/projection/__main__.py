"""`python -m stage3.projection`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from stage3.cli import Parser, counted, progress, run, say
from stage3.projection.files import STAGES, Parameters, load, summary_of
from stage3.runs import RunFolder
from stage3.storage import to_json

EXAMPLES = (
    "python -m stage3.projection --run runs/first",
    "python -m stage3.projection --run runs/first --checkpoint 120 --neighbors 30 --seed 1",
    "python -m stage3.projection --run runs/first --drift            (needs a run trained with --embed_every 1)",
    "python -m stage3.projection --run runs/first --json",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Make the map of a run's checkpoint, or of its saved epochs, unless it is there; returns the exit code."""
    parser = Parser("projection", "Lay a run's panels out on a map: UMAP, PCA, clusters, neighbors kept.", EXAMPLES)
    defaults = Parameters()
    parser.add_run()
    parser.add_checkpoint()
    parser.add_argument("--drift", action="store_true", help="lay out the saved epochs instead of one checkpoint")
    parser.add_argument("--neighbors", type=int, default=defaults.neighbors, help="UMAP neighborhood; default 15")
    parser.add_argument("--min_dist", type=float, default=defaults.min_dist, help="closest points; default 0.1")
    parser.add_argument("--min_cluster", type=int, default=defaults.min_cluster, help="smallest cluster; 0 by size")
    parser.add_argument("--limit", type=int, default=defaults.limit, help="panels laid out by UMAP; default 20000")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="seed of UMAP; default 0")
    parser.add_json("print the result as one JSON object")
    args = parser.parse(argv)
    parameters = Parameters(**{f.name: getattr(args, f.name) for f in dataclasses.fields(Parameters)})
    folder = RunFolder.load(args.run)

    from stage3.projection import project_run

    with progress("projection, stages", STAGES) as bar:
        path, there = project_run(
            folder, checkpoint=args.checkpoint, drift=args.drift, parameters=parameters, advance=bar.advance
        )
    summary = summary_of(path, load(path))
    if args.json:
        say(to_json(summary))
        return 0
    what = counted(summary["epochs"], "epoch") if args.drift else counted(summary["clusters"], "cluster")
    say(f"{counted(summary['panels'], 'panel')}, {what}, {'there already' if there else 'made now'}: {path}")
    if not args.drift:
        say(f"neighbors kept: {summary['trust']:.3f}, the mean share of 15 nearest panels that stay near on the map")
    return 0


if __name__ == "__main__":
    run(main)
