"""What the processes of one training agree on before its first step: the leader prepares the run, the others follow it.

The leader alone reads settings, writes the run's folder, makes features and prints. The others wait for its word, open
what it wrote, and never write.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stage3.cli import Stop
from stage3.runs import RunFolder

if TYPE_CHECKING:
    from stage3.batches.dataset import Dataset
    from stage3.peers import Peers


@dataclass(frozen=True)
class Begin:
    """The leader's word that all is prepared, and the step to go on from."""

    step: int | None


class Follower(RunFolder):
    """A run as the processes see it that do not write it: they read checkpoints, and what they say goes nowhere."""

    def set_status(self, state: Any = None, **fields: Any) -> Any:
        """Nothing."""

    def log(self, text: str) -> None:
        """Nothing."""

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Nothing."""

    def cut_metrics(self, step: int) -> int:
        """Nothing."""
        return 0

    def set_best(self, step: int, value: float, metric: str) -> None:
        """Nothing."""

    def clear_best(self) -> None:
        """Nothing."""


class Leader:
    """The first process, and whether the others know that all is prepared."""

    def __init__(self, peers: Peers) -> None:
        self.peers, self.begun = peers, False

    def begin(self, step: int | None) -> None:
        """Let the others open the run and go on from this step; None is a new run."""
        self.begun = True
        self.peers.share(Begin(step))

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Let the others go where this ends, in whatever way, before it has begun."""
        try:
            yield
        finally:
            if not self.begun:
                self.peers.share(None)


def follow(path: Path, peers: Peers, stop: Stop, data: Dataset | None, *, inexact: bool) -> Follower:
    """Train with the leader, which has prepared everything.

    Raises:
        Interrupted: on request.
        PeerGone: another process is gone.
        SystemExit: the leader did not begin; it has said why.
    """
    from stage3.batches.dataset import Dataset
    from stage3.train.trainer import Trainer

    word = peers.share(None)
    if word is None:
        raise SystemExit(0)
    run = Follower.load(path)
    with run.threads():
        trainer = Trainer(run, data or Dataset.load(run.config, progress=False), peers=peers)
        if word.step is not None:
            trainer.resume(run.load_checkpoint(word.step), inexact=inexact)
        trainer.fit(stop)
    return run
