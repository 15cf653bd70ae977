"""`python -m stage3.features`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stage3.cli import Parser, run, say, settings_from, stopping
from stage3.config import FIELDS, spec_of
from stage3.errors import ConfigError, Interrupted, StorageError
from stage3.storage import to_json

EXAMPLES = (
    "python -m stage3.features build --data data/mine --vision_backbone siglip --device cuda",
    "python -m stage3.features build --data data/mine --verify             (computes nothing, says what lacks)",
    "python -m stage3.features build --data data/mine --shard 3/100        (one of 100 tasks, counted from 0)",
    "torchrun --nproc-per-node 4 -m -- stage3.features build --data data/mine      (several processes)",
    "python -m stage3.features build --data data/mine --engine ray         (a Ray cluster, or all of this machine)",
)
ABOUT = """Compute the features of a data set ahead of training, which finds them by the same settings and cache_dir.

The work is split into fixed shards. One process, several under torchrun, the tasks of an array (--shard i/n) and a Ray
cluster leave the same files, bit for bit on one kind of machine; the same command goes on after a stop or a kill."""
SETTINGS = tuple(
    n for n in FIELDS if spec_of(n).group in ("data", "features") or n in ("device", "precision", "threads")
)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, build or verify, print; returns the exit code."""
    usage = "build (--data FOLDER | --manifest FILE.csv --panels FOLDER) [--shard i/n] [--verify] [--json] ..."
    parser = Parser("features", ABOUT, EXAMPLES, usage=usage)
    parser.add_argument("action", metavar="build", choices=("build",), help="compute what the store lacks")
    parser.add_config()
    parser.add_argument("--shard", metavar="i/n", help="compute only every n-th shard, from i (0 to n - 1)")
    parser.add_argument("--engine", default="torch", choices=("torch", "ray"), metavar="ENGINE", help="torch or ray")
    parser.add_argument("--actors", type=int, default=0, metavar="N", help="size of Ray's pool; default one per device")
    parser.add_argument("--verify", action="store_true", help="compute nothing; check every segment, say what lacks")
    parser.add_json()
    parser.add_settings(SETTINGS)
    args = parser.parse(argv)
    config = settings_from(args, config=args.config)
    if args.actors < 0 or (args.actors and args.engine != "ray"):
        raise ConfigError("actors: a number of actors from 1 goes with --engine ray")
    if args.shard and (args.engine == "ray" or args.verify):
        raise ConfigError(f"shard: does not go with {'--verify' if args.verify else '--engine ray'}. Drop one of them.")
    import torch

    torch.set_num_threads(config.threads)
    return _verify(config, args.json) if args.verify else _build(config, args)


def _build(config: Any, args: Any) -> int:
    from stage3.features import command

    if args.engine == "ray":
        from stage3.features import ray_engine

        report: Any = ray_engine.build(config, args.actors)
    else:
        share = command.share_of(args.shard) if args.shard else None
        try:
            with stopping() as stop:
                report = command.build(config, share=share, stop=stop, tell=(lambda _: None) if args.json else say)
        except Interrupted as stopped:
            from stage3.peers import code_of_stop

            return code_of_stop(stopped, say)
    if report is not None:  # the first process prints
        say(to_json(report.to_dict()) if args.json else report.sentence())
    return 0


def _verify(config: Any, as_json: bool) -> int:
    from stage3.features import command

    found = command.verify(config)
    if as_json:
        say(to_json(found.to_dict()))
    if not found.complete:
        raise StorageError(f"{found.root}: {found.sentence()}. The same command without --verify computes what lacks.")
    if not as_json:
        say(f"{found.root}: {found.sentence()}")
    return 0


if __name__ == "__main__":
    run(main)
