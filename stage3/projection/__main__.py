"""`python -m stage3.projection`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from stage3.cli import Parser, counted, given, percent, progress, run, say
from stage3.errors import ConfigError
from stage3.projection.files import Parameters, load, summary_of
from stage3.runs import RunFolder
from stage3.storage import to_json

EXAMPLES = (
    "python -m stage3.projection --run runs/first",
    "python -m stage3.projection --run runs/first --checkpoint 120 --neighbors 30 --seed 1",
    "python -m stage3.projection --run runs/first --drift            (needs a run trained with --embed_every 1)",
    "python -m stage3.projection --run runs/first --atlas first.parquet   (for Embedding Atlas; prints its command)",
    "python -m stage3.projection --run runs/first --json",
)
OWN = ("max_megapixels", "cache_dir")  # what the settings of a run do not decide for whoever looks at it


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, make the map unless it exists, print; returns the exit code."""
    parser = Parser("projection", "Make a 2D map of a run's panels: UMAP, PCA, clusters, neighbors kept.", EXAMPLES)
    defaults = Parameters()
    parser.add_run()
    parser.add_checkpoint()
    parser.add_argument("--drift", action="store_true", help="map all saved epochs instead of one checkpoint")
    parser.add_argument(
        "--neighbors",
        type=int,
        default=defaults.neighbors,
        metavar="N",
        help="neighbors per panel for UMAP; default 15",
    )
    parser.add_argument(
        "--min_dist", type=float, default=defaults.min_dist, metavar="X", help="UMAP's min_dist; default 0.1"
    )
    parser.add_argument(
        "--min_cluster",
        type=int,
        default=defaults.min_cluster,
        metavar="N",
        help="smallest cluster; default 0, chosen by size",
    )
    parser.add_argument(
        "--limit", type=int, default=defaults.limit, metavar="N", help="panels that UMAP fits; default 20000"
    )
    parser.add_argument("--seed", type=int, default=defaults.seed, metavar="N", help="seed of UMAP; default 0")
    parser.add_argument("--again", action="store_true", help="make the map again even if there is one")
    parser.add_argument(
        "--alone", action="store_true", help="do not start from an older map of the same panels, nor align with it"
    )
    parser.add_argument(
        "--beside",
        action="append",
        default=[],
        metavar="FOLDER",
        help="another folder of runs in which to look for an older map of the same panels; repeatable",
    )
    parser.add_argument(
        "--atlas", metavar="X.parquet", help="also write the map as a file that Embedding Atlas opens as it is"
    )
    parser.add_json()
    parser.add_settings(OWN)
    args = parser.parse(argv)
    if args.atlas and args.drift:
        raise ConfigError("--atlas writes the map of one checkpoint; leave out --drift")
    parameters = Parameters(**{f.name: getattr(args, f.name) for f in dataclasses.fields(Parameters)})
    folder = RunFolder.load(args.run)
    folder = RunFolder(folder.path, folder.config.replace(**given(args, OWN)))

    from stage3.projection import atlas_of_run, project_run

    notes: list[str] = []
    with progress("projection, percent", 100) as bar:
        path, there = project_run(
            folder,
            checkpoint=args.checkpoint,
            drift=args.drift,
            parameters=parameters,
            align=not args.alone,
            roots=[Path(folder) for folder in args.beside],
            again=args.again,
            advance=bar.advance,
            say=notes.append,
        )
    summary = summary_of(path, load(path)) | {"notes": notes}
    if args.atlas:
        summary["atlas"] = atlas_of_run(folder, args.atlas, checkpoint=args.checkpoint, parameters=parameters)
    if args.json:
        say(to_json(summary))
        return 0
    for note in notes:
        say(f"note: {note}")
    what = counted(summary["epochs"], "epoch") if args.drift else counted(summary["clusters"], "cluster")
    say(f"{counted(summary['panels'], 'panel')}, {what}, {'already present' if there else 'written'}: {path}")
    if not args.drift:
        if aligned := summary["aligned_to"]:
            how_far = f"half of the panels moved at most {percent(aligned['moved'])} of its width"
            say(f"aligned with {aligned['file']}: {how_far}")
        say(f"neighbors kept: {summary['trust']:.3f} of a panel's 15 nearest are among its 15 nearest on the map")
    if args.atlas:
        say(f"see it in Embedding Atlas: {summary['atlas']}")
    return 0


if __name__ == "__main__":
    run(main)
