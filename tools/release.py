"""`python -m tools.release`: make again everything that ships: sample comics, tiny weights, the sample run.

Each part is a function of a seed and of the code, so a change of the drawings, the encoders or the defaults is followed
by this one command, and by a line in the CHANGELOG when numbers move.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from stage3.cli import Parser, run, say
from stage3.errors import ConfigError

EXAMPLES = (
    "python -m tools.release                    (everything; tens of minutes)",
    "python -m tools.release --only run         (the sample run alone: a minute)",
)
SAMPLES = Path("data/samples")
WEIGHTS = Path("stage3/features/backbones/weights")
RUN = SAMPLES / "runs" / "sample"
BOOKS, SEED = 80, 0
PARTS = ("samples", "weights", "run")


def main(argv: Sequence[str] | None = None) -> int:
    """Remake the chosen parts, in order; run from the root of the repository."""
    parser = Parser("tools.release", "Make again what ships with the package.", EXAMPLES)
    parser.add_argument("--only", help="samples, weights or run, comma-separated; default all")
    args = parser.parse(argv)
    chosen = args.only.split(",") if args.only else list(PARTS)
    unknown = [part for part in chosen if part not in PARTS]
    if unknown:
        raise ConfigError(f"--only {unknown[0]!r} is not one of {', '.join(PARTS)}")
    if not WEIGHTS.is_dir():
        raise ConfigError("run this from the root of the repository, where stage3/features/backbones/weights is")
    if "samples" in chosen:
        samples()
    if "weights" in chosen:
        weights()
    if "run" in chosen:
        sample_run()
    return 0


def samples() -> None:
    """Draw the sample comics in place of the old ones."""
    from stage3.samples import draw_books

    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "samples"
        draw_books(fresh, BOOKS, SEED, image_format="webp")
        for stale in SAMPLES.glob("facts.*"):
            stale.unlink()
        for part in fresh.iterdir():
            old = SAMPLES / part.name
            if old.is_dir():
                shutil.rmtree(old)
            old.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(part, old)
    say(f"drew {BOOKS} books into {SAMPLES}")


def weights() -> None:
    """Train the tiny backbones on other synthetic comics."""
    from tools import tiny_train

    tiny_train.main(["--out", str(WEIGHTS)])


def sample_run() -> None:
    """Compute and ship the features, train the sample run with default settings, and slim it."""
    from stage3.api import Run
    from stage3.batches.dataset import Dataset
    from stage3.config import Config
    from stage3.evaluate import kept_report
    from stage3.features import export
    from stage3.runs import RunFolder

    for old in (SAMPLES / "features", RUN):
        if old.is_dir():
            shutil.rmtree(old)
    with tempfile.TemporaryDirectory() as cache:
        data = Dataset.load(Config(data=str(SAMPLES), cache_dir=cache))
        export(data.features, SAMPLES / "features")
        about = SAMPLES / "dataset.yaml"
        if "\nfeatures:" not in about.read_text(encoding="utf-8"):
            with about.open("a", encoding="utf-8", newline="\n") as file:
                file.write("features: features\n")
        # fewer rows of metrics to ship; nothing else differs from the defaults
        run = Run.train(RUN, SAMPLES.as_posix(), log_every=4, tell=say)
        slim(RUN)
        run.project()
        kept_report(RunFolder.load(RUN), again=True)
        for lock in RUN.rglob("*lock"):
            lock.unlink()
    size = sum(p.stat().st_size for p in SAMPLES.rglob("*") if p.is_file())
    say(f"{SAMPLES} holds {size / 1e6:.2f} MB with features and run")


def slim(path: Path) -> None:
    """Keep of a finished run only its best checkpoint, without the optimizer that nobody will resume."""
    from stage3.runs import RunFolder

    the_run = RunFolder.load(path)
    best = the_run.best()
    assert best is not None, "the sample run has validation books"
    loaded = the_run.load_checkpoint(best.step)
    for checkpoint in the_run.checkpoints():
        if checkpoint.step != best.step:
            shutil.rmtree(checkpoint.path)
    the_run.save_checkpoint(best.step, {"model": loaded.tensors["model"]}, loaded.state)


if __name__ == "__main__":
    run(main)
