"""One thread and no GPU everywhere: the tests share two cores, and results must not depend on what else there is."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads of a run with two wait without using a core
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # bounds are those of a processor; see CONTRIBUTING.md

import pytest
import torch
import unsynced

torch.set_num_threads(1)
unsynced.begin()


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Commands set the threads of their run, and an `AppTest` leaves its script as the main module.

    The next test begins with one thread, and with a main module that a new process of `multiprocessing` can run.
    """
    main = sys.modules["__main__"]
    yield
    torch.set_num_threads(1)
    sys.modules["__main__"] = main


# Files whose tests take longest, the longest first: begun last, one of them would run alone at the end.
LONG = (
    "app/test_app_browser.py",
    "test_notebooks.py",
    "app/test_app_browser_add.py",
    "train/test_together.py",
    "app/test_app_jobs.py",
    "train/test_train_command.py",
    "app/test_app_add.py",
    "app/test_app_retrain.py",
    "test_settings.py",
    "app/test_app_views.py",
    "samples/test_samples.py",
    "embed/test_embed.py",
    "ablate/test_ablate.py",
    "runs/test_checkpoint_faults.py",
    "app/test_app_map.py",
    "app/test_app_search.py",
)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """`--dist loadfile` would begin with the files of most tests; see `LONG`."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_finish() -> None:
    """The garbage collector need not look at half a million objects of modules and tests that live until the end.

    Streamlit collects after every run of a script in an `AppTest`, which took a third of a second each time.
    """
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long files first, where several processes share the tests."""
    if hasattr(config, "workerinput"):
        place = {Path(__file__).parent / name: number for number, name in enumerate(LONG)}
        items.sort(key=lambda item: place.get(item.path, len(LONG)))
