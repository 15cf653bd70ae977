"""Model folders in the layout of Hugging Face: where they are, and what using one may raise.

Nothing is downloaded unless HF_HUB_OFFLINE is set to 0: `os.environ` decides, and the default is offline.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by huggingface_hub when it is first imported

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors import SafetensorError

from stage3.errors import DataError

FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model")
FAILURES = (  # what loading or running a model that does not fit raises
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, MemoryError, OSError, RuntimeError,
    SafetensorError, TypeError, ValueError,
)  # fmt: skip
# What the Hub's client raises where there is no answer, or a refusal. Its library for HTTP, whose error each of its own
# is, has another name in other versions.
UNREACHABLE: tuple[type[Exception], ...] = (
    OSError,
    *(kind for kind in HfHubHTTPError.__mro__ if issubclass(kind, Exception) and kind.__name__ == "HTTPError"),
)
MAX_REASON = 300  # characters of another library's message


def offline() -> bool:
    """Whether nothing goes over the network."""
    return bool(constants.HF_HUB_OFFLINE)


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
            repo, revision=revision or None, allow_patterns=list(FILES), local_files_only=offline()
        )
    except HFValidationError as error:
        raise DataError(f"{what}: {' '.join(str(error).split())}") from None
    except UNREACHABLE as error:
        why = "is not on this machine" if offline() else f"could not be downloaded ({type(error).__name__})"
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
        name: what it is called there.
        model_id: a folder or a Hugging Face id, with or without `@revision`; None is `name`.

    Raises:
        DataError: the model is not here.
    """

    def __init__(self, kind: str, name: str, model_id: str | None = None) -> None:
        self.called = f"{kind} {name!r}"
        self.folder = local_folder(self.called, name if model_id is None else model_id)

    def load_model(self, auto: Any) -> Any:
        """The model in float32 and eval mode, as the class `auto` of `transformers` loads it.

        Raises:
            DataError: it has no safetensors weights, does not load, or lacks weights.
        """
        if not list(self.folder.glob("*.safetensors")):
            raise self.refused("no safetensors weights; save the model again with save_pretrained")
        model, absent = self.loaded(auto, "does not load")
        if absent:
            raise self.refused(f"{len(absent)} weights are missing and would be random numbers: {absent[0]}")
        return model.requires_grad_(False).eval()

    def loaded(self, auto: Any, failing: str) -> tuple[Any, list[str]]:
        """The model, and the names of weights that it has and its files lack, sorted; `failing` is what an error says.

        Its weights may be trained, even if it is loaded in inference mode.
        """
        import torch

        with self.refusing(failing), quiet(), torch.inference_mode(False):
            model, loading = auto.from_pretrained(
                self.folder,
                trust_remote_code=False,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
        return model, sorted(loading["missing_keys"])

    def load_image_processor(self) -> Any:
        """What prepares images for the model; DataError where there is none, or none that works with Pillow."""
        with self.refusing("no usable image preprocessing (preprocessor_config.json)"):
            # From its module: as a name of `transformers` some versions (5.17) refuse it without torchvision, which
            # the Pillow version of a processor does not need.
            from transformers.models.auto.image_processing_auto import AutoImageProcessor

            found = AutoImageProcessor.from_pretrained(
                self.folder, backend="pil", trust_remote_code=False, local_files_only=True
            )
        if getattr(found, "backend", "pil") != "pil":
            raise self.refused(f"{type(found).__name__} has no Pillow version")
        return found

    def load_tokenizer(self) -> Any:
        """What makes tokens of text; DataError where there is none."""
        from transformers import AutoTokenizer

        with self.refusing("its tokenizer does not load"):
            return AutoTokenizer.from_pretrained(self.folder, trust_remote_code=False, local_files_only=True)

    def refused(self, problem: object) -> DataError:
        """The error that names the model and its folder."""
        return DataError(f"{self.called} ({self.folder}): {' '.join(str(problem).split())}")

    def refusing(self, what: str) -> Refusing:
        """A context in which any failure of another library becomes one line that begins with this."""
        return Refusing(self, what)


class Refusing:
    """See `ModelFolder.refusing`."""

    def __init__(self, model: ModelFolder, what: str) -> None:
        self.model, self.what = model, what

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        # `tokenizers` raises plain Exception, and nothing narrower, for a vocabulary that it cannot use.
        if error is None or isinstance(error, DataError):
            return
        if kind is Exception or isinstance(error, FAILURES):
            reason = " ".join(str(error).split())[:MAX_REASON] or type(error).__name__
            raise self.model.refused(f"{self.what}: {reason}") from None
