"""The errors that this package raises for what a person can mend, each with the exit code that a command ends with."""


class Stage3Error(Exception):
    """An error with a message for the person at the keyboard; `exit_code` is what a command ends with."""

    exit_code = 2


class ConfigError(Stage3Error, ValueError):
    """A setting is unknown, out of range, or contradicts another."""


class DataError(Stage3Error, ValueError):
    """The input data cannot be used as it is."""


class NumericError(Stage3Error, ArithmeticError):
    """Training met non-finite numbers it could not step over."""

    exit_code = 3


class StorageError(Stage3Error, OSError):
    """Writing or reading a run failed: disk full, no permission, damaged files, a folder in use."""

    exit_code = 4


class InUse(StorageError):
    """Another process is writing this folder; asking for it twice is the person's to mend, not the disk's."""

    exit_code = 2


class NotThere(StorageError):
    """A checkpoint was asked for that the run does not have; nothing is damaged."""

    exit_code = 2


class Interrupted(Stage3Error):
    """The work was stopped on request; the same command resumes it."""

    exit_code = 75
