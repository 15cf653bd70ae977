"""One trained run for all files: training is most of the time that an evaluation's test takes."""

import pytest

from stage3 import train
from stage3.train.trainer import Trainer
from tests import synthetic


def train_run(folder, **settings):
    run = synthetic.run(folder / "run", **{"epochs": 4, **settings})
    data = synthetic.dataset(run.config, books=16)
    train.check_identity(run, data)
    with run.lock():
        Trainer(run, data).fit(lambda: False)
    return run, data


@pytest.fixture
def trained():
    """For a run with other settings."""
    return train_run


@pytest.fixture(scope="session")
def only_read(tmp_path_factory):
    """A run and its data, of which no test changes a file: books 0 to 15, four pages each."""
    return train_run(tmp_path_factory.mktemp("runs"))
