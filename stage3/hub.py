"""Model folders in the layout of Hugging Face: where they are, and what using one may raise.

Nothing is downloaded unless HF_HUB_OFFLINE is set to 0: `os.environ` decides, and the default is offline.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


class ModelFolder:
    """A `transformers` model of this machine, and one-line errors that name it.

    No remote code, safetensors only, image processors in their Pillow version.

    Args:
        kind: what the model is for, as errors name it: "detector".
        name: a folder or a Hugging Face id, with or without `@revision`.

    Raises:
        DataError: the model is not here, or has no safetensors weights.
    """

    def __init__(self, kind: str, name: str) -> None:
        self.kind, self.name = kind, name
        self.folder = local_folder(f"{kind} {name!r}", name)
        if not list(self.folder.glob("*.safetensors")):
            raise self.refused("no safetensors weights; save the model again with save_pretrained")

    def model(self, auto: Any) -> Any:
        """The model in float32 and eval mode, as the class `auto` of `transformers` loads it.

        Raises:
            DataError: it does not load, or lacks weights.
        """
        import torch

        with self.refusing("does not load"), quiet():
            model, loading = auto.from_pretrained(
                self.folder,
                trust_remote_code=False,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
        if loading["missing_keys"]:
            absent = sorted(loading["missing_keys"])
            raise self.refused(f"{len(absent)} weights are missing and would be random numbers: {absent[0]}")
        return model.requires_grad_(False).eval()

    def image_processor(self) -> Any:
        """What prepares images for the model; DataError where there is none."""
        from transformers import AutoImageProcessor

        with self.refusing("no usable image preprocessing (preprocessor_config.json)"):
            return AutoImageProcessor.from_pretrained(
                self.folder, backend="pil", trust_remote_code=False, local_files_only=True
            )

    def tokenizer(self) -> Any:
        """What makes text of the model's tokens; DataError where there is none."""
        from transformers import AutoTokenizer

        with self.refusing("no usable tokenizer"):
            return AutoTokenizer.from_pretrained(self.folder, trust_remote_code=False, local_files_only=True)

    def refused(self, problem: object) -> DataError:
        """The error that names the model and its folder."""
        return DataError(f"{self.kind} {self.name!r} ({self.folder}): {' '.join(str(problem).split())}")

    @contextmanager
    def refusing(self, what: str) -> Iterator[None]:
        """Any failure of another library becomes one line."""
        try:
            yield
        except FAILURES as error:
            reason = " ".join(str(error).split())[:MAX_REASON] or type(error).__name__
            raise self.refused(f"{what}: {reason}") from None
