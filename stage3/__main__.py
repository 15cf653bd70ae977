"""`stage3 COMMAND …` and `python -m stage3`: the commands by name; `python -m stage3.COMMAND` is the same."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from stage3 import cli
from stage3.config import nearest
from stage3.errors import ConfigError

COMMANDS = {
    "data": "import comics, export panels, or check a data set: what is used, what is not, and why",
    "features": "compute the features of a data set ahead of training, in one process or many",
    "train": "train a run, or resume a stopped one",
    "evaluate": "retrieval and reconstruction metrics, with intervals and chance levels",
    "diagnose": "check whether the embeddings of a run or of a store have collapsed",
    "search": "find the panels nearest to words, an image or a panel",
    "projection": "make a 2D map of a run's panels",
    "embed": "export a run's embeddings for Stage 4 as a Zarr store, or verify one",
    "convert": "make a run of a checkpoint of the original trainer",
    "ablate": "repeat every finding of the loss review as an experiment",
    "samples": "draw synthetic comics",
}
USAGE = "usage: stage3 COMMAND …        (or python -m stage3.COMMAND …)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names; without one, list them."""
    given = list(sys.argv[1:] if argv is None else argv)
    if not given or given[0] in ("-h", "--help", "help"):
        for line in listing():
            cli.say(line)
        return 0
    if given[0] == "--version":
        from stage3 import __version__

        cli.say(f"stage3 {__version__}")
        return 0
    name, *rest = given
    if name not in COMMANDS:
        raise ConfigError(f"unknown command {name!r}.{nearest(name, COMMANDS)} Known: {', '.join(COMMANDS)}.")
    sys.argv = [f"stage3 {name}", *rest]  # what the command's own parser reads, and how its help calls it
    command = importlib.import_module(f"stage3.{name}.__main__")
    code: int = command.main(rest)
    return code


def listing() -> list[str]:
    """The commands, one per line."""
    width = max(map(len, COMMANDS))
    return [USAGE, "", *(f"  {name:<{width}}  {about}" for name, about in COMMANDS.items()), "", "Each has --help."]


def script() -> None:
    """The console script `stage3`."""
    cli.run(main)


if __name__ == "__main__":
    script()
