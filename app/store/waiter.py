"""`python -m app.store.waiter RUN TICKET`: waits for a place to train in, then trains there.

A place is a lock that ends with its holder, so at most `PLACES` runs train at once, however many are started in one
instant and however any of them ends. Runs that wait are served in the order in which they came, also when the explorer
has ended meanwhile.

    runs/.queue/  place-0 place-1   one lock per place
                  TICKET-NAME       one per waiting run, locked by the process that waits
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from stage3.errors import InUse, Stage3Error
from stage3.runs import RunFolder
from stage3.storage import Lock, make_folder

PLACES = 2  # runs that train at once: each takes a core
QUEUED = "queued.json"  # in the folder of a run that waits
POLL_SECONDS = 0.25
CANCELED = "canceled before it started"


def queue_of(runs: Path) -> Path:
    """The folder with the places and tickets of a folder of runs."""
    return runs / ".queue"


def main(run_path: str, ticket: str) -> int:
    """Wait, train, and give the place back; the trainer's exit code."""
    run = RunFolder.load(run_path)
    place = wait(run, ticket)
    if place is None:
        return 75
    try:
        return train(run)
    finally:
        place.release()


def wait(run: RunFolder, ticket: str) -> Lock | None:
    """A place, held; None where the run was canceled first."""
    queue = queue_of(run.path.parent)
    make_folder(queue)
    mine = Lock(queue / f"{ticket}-{run.name}")
    mine.acquire()
    try:
        while True:
            if run.stop_requested:
                run.clear_stop()
                run.set_status("stopped", message=CANCELED)
                return None
            if _is_first(mine.path) and (place := _free_place(queue)) is not None:
                return place
            if not (run.path / QUEUED).exists():
                run.write_json(QUEUED, {"ticket": ticket})
            time.sleep(POLL_SECONDS)
    finally:
        (run.path / QUEUED).unlink(missing_ok=True)
        mine.path.unlink(missing_ok=True)
        mine.release()


def _is_first(mine: Path) -> bool:
    """Whether no older ticket is held; tickets of dead processes are thrown away."""
    for path in sorted(p for p in mine.parent.iterdir() if not p.name.startswith("place-")):
        if path.name >= mine.name:
            return True
        if Lock(path).is_held():
            return False
        path.unlink(missing_ok=True)
    return True


def _free_place(queue: Path) -> Lock | None:
    for number in range(PLACES):
        place = Lock(queue / f"place-{number}")
        with suppress(InUse):
            place.acquire(patience=0.1)  # a look at it by another process takes it for an instant
            return place
    return None


def train(run: RunFolder) -> int:
    """The trainer as a child of this process, which outlives it to hold the place: signals go to both, it obeys."""
    if sys.platform != "win32":
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)  # not SIG_IGN, which the child would inherit
    return subprocess.call([sys.executable, "-m", "stage3.train", "--run", str(run.path.resolve())])


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1], sys.argv[2]))
    except Stage3Error as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from None
