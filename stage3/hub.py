"""Model folders in the layout of Hugging Face: where they are, and what using one may raise.

Nothing is downloaded unless HF_HUB_OFFLINE is set to 0: `os.environ` decides, and the default is offline.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by huggingface_hub when it is first imported

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError

from stage3.errors import DataError

FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model")
FAILURES = (  # what loading or running a model that does not fit raises
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, MemoryError, OSError, RuntimeError,
    SafetensorError, TypeError, ValueError,
)  # fmt: skip
MAX_REASON = 300  # characters of another library's message


def local_folder(what: str, model_id: str) -> Path:
    """The folder with a model's files: a folder as given, or the local cache's snapshot of a Hugging Face id.

    Args:
        what: what the model is for, as errors name it.
        model_id: a folder, or an id with or without `@revision`.

    Raises:
        DataError: the model is not on this machine; says how to get it.
    """
    if Path(model_id).is_dir():
        return Path(model_id)
    repo, _, revision = model_id.partition("@")
    try:
        found = snapshot_download(
            repo, revision=revision or None, allow_patterns=list(FILES), local_files_only=constants.HF_HUB_OFFLINE
        )
    except HFValidationError as error:
        raise DataError(f"{what}: {' '.join(str(error).split())}") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        why = (
            "is not on this machine"
            if constants.HF_HUB_OFFLINE
            else f"could not be downloaded ({type(error).__name__})"
        )
        at = f" --revision {revision}" if revision else ""
        raise DataError(
            f"{what}: {repo} {why}. Run `hf download {repo}{at}` on a machine with a network and copy "
            "the folder here, set HF_HUB_OFFLINE=0 to let this program download it, or give the path of a local folder"
        ) from None
    return Path(found)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the bar and the table that transformers prints over weights: missing ones are judged here."""
    from transformers.utils import logging

    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()
