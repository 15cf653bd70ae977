"""Nothing waits for the disk: a test run syncs tens of thousands of files, and none of its tests cuts the power.

Whether and in which order a file is synced is asked of `os.fsync` itself, see `disk_faults`, which is called as ever.
"""

import os


def begin() -> None:
    """From now on in this process and its forks."""
    os.fsync = _unsynced


def _unsynced(descriptor: int) -> None:
    os.fstat(descriptor)  # one that is closed is an error, as ever
