"""`python -m stage3.diagnose`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from stage3.cli import Parser, given, run, say
from stage3.diagnose import diagnose_run, diagnose_store, diagnosis_lines
from stage3.errors import ConfigError
from stage3.runs import RunFolder
from stage3.runs.data import DATA_SETTINGS, load_data
from stage3.storage import to_json

EXAMPLES = (
    "python -m stage3.diagnose --run runs/first",
    "python -m stage3.diagnose --run runs/first --split val --json",
    "python -m stage3.diagnose --embeddings X.zarr",
    "python -m stage3.diagnose --run runs/first || echo 'do not export this one'",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, diagnose, print; exit code 3 when something has collapsed or training made things worse, else 0."""
    about = (
        "Do panels differ, page mates show, image and text match, and is the model no worse than its frozen features? "
        "Exit code 3 if embeddings have collapsed or are worse than the features, else 0."
    )
    parser = Parser("diagnose", about, EXAMPLES, usage="--run RUN | --embeddings X.zarr [--json] ...")
    parser.add_run("folder of a run; its best checkpoint is diagnosed on pages it was not trained on", required=False)
    parser.add_argument("--embeddings", metavar="X.zarr", help="Zarr store that `stage3 embed` wrote")
    parser.add_split(None, "default test, or val if no book is held out")
    parser.add_checkpoint()
    parser.add_json()
    parser.add_settings(DATA_SETTINGS)
    args = parser.parse(argv)
    if bool(args.run) == bool(args.embeddings):
        raise ConfigError("give either --run RUN or --embeddings X.zarr")
    if args.run:
        folder = RunFolder.load(args.run)

        data = load_data(folder, given(args, DATA_SETTINGS))
        found, about_it = diagnose_run(folder, split=args.split, checkpoint=args.checkpoint, data=data)
    else:
        found, about_it = diagnose_store(args.embeddings)
    for line in [to_json(asdict(found) | about_it)] if args.json else diagnosis_lines(found, about_it):
        say(line)
    return found.exit_code


if __name__ == "__main__":
    run(main)
