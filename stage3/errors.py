"""The errors that this package raises for what a person can fix, each with the exit code that a command ends with."""


class Stage3Error(Exception):
    """An error with a message for the person at the keyboard; `exit_code` is what a command ends with.

    Example:
        >>> isinstance(ConfigError("no such setting"), Stage3Error), ConfigError.exit_code
        (True, 2)
    """

    exit_code = 2


class ConfigError(Stage3Error, ValueError):
    """A setting is unknown, out of range, or contradicts another.

    Example:
        >>> from stage3 import Config
        >>> Config(epochs=-1)
        Traceback (most recent call last):
        stage3.errors.ConfigError: epochs: -1 is out of range: must be from 0 to 10000
    """


class DataError(Stage3Error, ValueError):
    """The input data cannot be used as it is.

    Example:
        >>> from stage3 import Run
        >>> Run.load("runs/nowhere")
        Traceback (most recent call last):
        stage3.errors.DataError: runs/nowhere: no such run
    """


class NumericError(Stage3Error, ArithmeticError):
    """Training met non-finite numbers it could not step over.

    Example:
        >>> NumericError("loss is NaN").exit_code
        3
    """

    exit_code = 3


class StorageError(Stage3Error, OSError):
    """Writing or reading a run failed: disk full, no permission, damaged files, a folder in use.

    Example:
        >>> StorageError("disk full").exit_code
        4
    """

    exit_code = 4


class InUse(StorageError):
    """Another process is writing this folder; asking for it twice is the person's to fix, not the disk's."""

    exit_code = 2


class NotThere(StorageError):
    """A checkpoint was asked for that the run does not have; nothing is damaged."""

    exit_code = 2


class Interrupted(Stage3Error):
    """The work was stopped on request; the same command resumes it.

    Example:
        >>> Interrupted("stopped after step 10").exit_code
        75
    """

    exit_code = 75


class PeerGone(Interrupted):
    """Another process of the same training ended before its time; the same command resumes it.

    Its exit code tells `torchrun` to start all processes again, as often as `--max-restarts` allows.
    """

    exit_code = 76
