"""`python -m stage3.train`: train a run from a data set, or go on with one that was stopped.

This file is the command. Beside it: `trainer` is the loop, and `optim` has the optimiser's pieces.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stage3.config import (
    FIELDS,
    Config,
    ConfigError,
    DataError,
    Interrupted,
    Stage3Error,
    StorageError,
    coerce,
    differences,
    read_yaml,
    spec_of,
)
from stage3.console import Parser, counted, progress, say, settings_from, to_json
from stage3.runs import Run

if TYPE_CHECKING:
    from stage3.dataset import Dataset
    from stage3.train.trainer import Trainer

INEXACT = ("threads", "device")  # settings that change bits alone: --allow_inexact_resume
EXAMPLES = (
    "python -m stage3.train --run runs/first --data data/samples",
    "python -m stage3.train --run runs/first                                   (goes on after a stop)",
    "python -m stage3.train --run runs/strong --data data/samples --alignment_weight 3 --temperature 0.05",
    "python -m stage3.train --run runs/copy --config runs/first/config.yaml --seed 1",
    "python -m stage3.train --run runs/mine --manifest pages.csv --panels json/ --panel_format ocr",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, prepare, train; returns the exit code."""
    about = "Train panel embeddings. The same command again resumes a stopped run."
    parser = Parser("train", about, EXAMPLES, usage="--run RUN [--config F.yaml] [--data FOLDER] [--SETTING VALUE ...]")
    parser.add_argument("--run", required=True, help="folder of the run, such as runs/first")
    parser.add_argument("--config", help="YAML file of settings; flags win over it")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.add_argument(
        "--allow_inexact_resume", action="store_true", help="resume although threads or device changed (other bits)"
    )
    parser.add_settings()
    args = parser.parse(argv)
    the_run, resumed = open_or_create(args)
    tell = (lambda _: None) if args.json else say
    with the_run.lock(), stopping() as stop:
        if resumed:
            change_settings(the_run, args)
        for line in [*overruled(args), *cautions(the_run.config)]:
            _both(the_run, line, tell)
        if the_run.status.state == "finished":
            tell(f"{the_run.path} is finished; its result is below. Train a new run to change settings.")
        else:
            train(the_run, resumed=resumed, inexact=args.allow_inexact_resume, stop=stop, tell=tell)
    summary = result(the_run)
    if args.json:
        say(to_json(summary))
    else:
        for line in summary_lines(the_run, summary):
            say(line)
    return 0


def open_or_create(args: Any) -> tuple[Run, bool]:
    """The run to train and whether it was there before.

    A new run is made only once its data has been read, so that refused input leaves nothing behind.

    Raises:
        ConfigError, DataError: the settings or the data of a new run cannot be used on this machine.
    """
    path = Path(args.run)
    if not Run.exists(path):
        from stage3 import readers
        from stage3.train.trainer import resolve_device

        config = settings_from(args, config=args.config)
        check_places(path, config)
        resolve_device(config.device)
        readers.load(config)
        return Run.create(path, config), False
    return Run.open(path), True


def change_settings(the_run: Run, args: Any) -> None:
    """Take the settings that a run which was there before is asked to change; its lock is held.

    Before the first checkpoint nothing is trained yet, so that all of them may change: a first try that was refused is
    mended by the same command with better flags.

    Raises:
        ConfigError: a run that has begun is asked to change a setting that reaches its weights.
    """
    asked = {name: value for name, value in vars(args).items() if name in FIELDS}
    file = (read_yaml(Path(args.config)), args.config) if args.config else ({}, "")
    wanted = Config.layered((the_run.config.to_dict(), str(the_run.path)), file, (asked, "command line"))
    changed = differences(the_run.config, wanted)
    free = INEXACT if args.allow_inexact_resume else ()
    fixed = {n: values for n, values in changed.items() if not spec_of(n).resume_free and n not in free}
    if fixed and has_begun(the_run):
        listed = "; ".join(f"{name} is {old}, asked for {new}" for name, (old, new) in fixed.items())
        remedy = "Resume without them, or name a new run."
        if set(fixed) <= set(INEXACT):
            remedy = "Resume without them, name a new run, or give --allow_inexact_resume for other bits."
        raise ConfigError(f"{the_run.path} was started with other settings: {listed}. {remedy}")
    if changed:
        the_run.write_config(wanted)


def has_begun(the_run: Run) -> bool:
    """Whether anything was trained: a checkpoint is there, or one was chosen as the best and has been lost."""
    return bool(the_run.checkpoints() or the_run.best())


def check_places(path: Path, config: Config) -> None:
    """Refuse a run inside the panels that it reads: the next scan would meet its files."""
    from stage3 import readers

    folder = readers.source_of(config).panels
    if path.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"--run {path} lies inside the panels {folder}. Choose a folder outside the data.")


def overruled(args: Any) -> list[str]:
    """Settings that the file and the command line give differently, in words: the command line wins."""
    lines = []
    for name, value in read_yaml(Path(args.config)).items() if args.config else ():
        given = vars(args).get(name)
        if given is not None and coerce(FIELDS[name], value) != coerce(FIELDS[name], given):
            lines.append(f"{name}: {given} from the command line wins over {value} of {args.config}")
    return lines


def cautions(config: Config) -> list[str]:
    """What is allowed and hardly meant."""
    lines = []
    if config.max_panels == 1:
        lines.append("max_panels 1: no panel has page mates, so nothing is contrasted or reconstructed")
    cores = os.cpu_count() or 1
    if config.workers > 4 * cores:
        lines.append(f"workers {config.workers}: more than four threads for each of {cores} cores only wait")
    return lines


class Stop:
    """Whether somebody asked to stop; work without steps runs `at_once()`, where asking ends it."""

    def __init__(self) -> None:
        self.asked = self.now = False

    def __call__(self) -> bool:
        """Whether to stop at the next step."""
        return self.asked

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A signal in here raises Interrupted: what is done so far has been kept, and nothing waits for a step."""
        self.now = True
        try:
            yield
        finally:
            self.now = False


@contextmanager
def stopping() -> Iterator[Stop]:
    """A `stop()` that turns true at SIGINT or SIGTERM, so that training ends at the next step with a checkpoint."""
    stop = Stop()

    def note(number: int, _: Any) -> None:
        if stop.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.asked = True
        if stop.now:
            raise Interrupted("stopped before the first step; the same command goes on from what is done")

    handled = [signal.SIGINT, signal.SIGTERM, *([signal.SIGBREAK] if hasattr(signal, "SIGBREAK") else [])]
    before = {number: signal.signal(number, note) for number in handled}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def train(the_run: Run, *, resumed: bool, inexact: bool, stop: Stop, tell: Any) -> None:
    """Prepare data and model, resume if there is something to resume, and train to the end.

    The run's status says how it ended, whatever happens.
    """
    the_run.clear_stop()
    the_run.set_status("running", message="reading the data")
    try:
        with stop.at_once():  # features may take hours
            trainer = prepare(the_run, resumed=resumed, inexact=inexact, tell=tell)
        with progress(f"training {the_run.name}, steps", trainer.total_steps, trainer.step) as bar:
            trainer.on_step = lambda _: bar.advance(1)
            trainer.fit(stop)
    except Interrupted as error:
        the_run.set_status("stopped", message=str(error), exit_code=error.exit_code)
        the_run.log(str(error))
        raise
    except Stage3Error as error:
        the_run.set_status("failed", message=str(error), exit_code=error.exit_code)
        the_run.log(f"failed: {error}")
        raise
    except BaseException as error:
        the_run.set_status("failed", message=f"{type(error).__name__}: {error}", exit_code=1)
        raise
    the_run.set_status("finished", step=trainer.step, message="finished", exit_code=0)
    the_run.log(f"finished at step {trainer.step}")


def prepare(the_run: Run, *, resumed: bool, inexact: bool, tell: Any) -> Trainer:
    """Load the data, check that it is the data the run began with, build the trainer, load the newest checkpoint."""
    import torch

    from stage3.dataset import Dataset
    from stage3.readers.report import report_lines
    from stage3.train.trainer import Trainer, resolve_device

    torch.set_num_threads(the_run.config.threads)
    resolve_device(the_run.config.device)  # a missing GPU is said before minutes of features
    data = Dataset.load(the_run.config)
    for line in report_lines(data.table.report):
        tell(line)
    _both(the_run, data.features.report.sentence(), tell)
    the_run.write_json("data_report", data.table.report.to_dict())
    check_identity(the_run, data)
    if not len(data.pages("train")):
        raise DataError("no page is left to train on after the split by book. Lower val_fraction and test_fraction.")
    trainer = Trainer(the_run, data, say=lambda line: _both(the_run, line, tell))
    if resumed and not the_run.checkpoints() and the_run.best():
        raise StorageError(
            f"{the_run.path} chose a best checkpoint, and there is none: its folder checkpoints/ is gone. "
            "Bring it back, or train a new run; this one is not begun again in silence."
        )
    if resumed and the_run.checkpoints():
        loaded = the_run.load_checkpoint(check=trainer.check)
        for damage in loaded.damaged:
            _both(the_run, f"damaged checkpoint passed over: {damage}", tell)
        trainer.resume(loaded, inexact=inexact)
        _both(the_run, f"resuming {the_run.path} after step {trainer.step} of {trainer.total_steps}", tell)
    else:
        the_run.cut_metrics(0)
        the_run.clear_best()
        _both(the_run, start_line(the_run, data, trainer), tell)
    return trainer


def _both(the_run: Run, line: str, tell: Any) -> None:
    the_run.log(line)
    tell(line)


def start_line(the_run: Run, data: Dataset, trainer: Trainer) -> str:
    """What is about to be trained, in one line."""
    parameters = sum(p.numel() for p in trainer.model.parameters())
    sizes = {name: len(data.pages(name)) for name in ("train", "val", "test")}
    steps = counted(trainer.total_steps, "step")
    return (
        f"training {the_run.path}: {parameters:,} parameters, {counted(sizes['train'], 'page')} to train, "
        f"{sizes['val']} to choose, {sizes['test']} held out; {steps} on {trainer.device}"
    )


def check_identity(the_run: Run, data: Dataset) -> None:
    """Record what the run is trained on, or refuse to go on with what has begun when that has changed."""
    now = data.identity()
    if not has_begun(the_run):
        the_run.write_json("data", now)
        return
    if not (the_run.path / "data.json").exists():
        raise StorageError(
            f"{the_run.path / 'data.json'} is gone: nothing says on which data the checkpoints were trained. "
            "Bring it back, or train a new run."
        )
    before = the_run.read_json("data")
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        shown = "; ".join(f"{n}: {str(before.get(n))[:60]} then, {str(now[n])[:60]} now" for n in changed)
        raise DataError(
            f"{the_run.path} was trained on other data ({shown}). Bring that data back, or train a new run."
        )


def result(the_run: Run) -> dict[str, Any]:
    """Where the run is and what its best validation says."""
    best = the_run.best()
    frame = the_run.metrics()
    val = frame[frame["split"] == "val"]
    rows = val[val["step"] == best.step] if best else val.tail(1)
    metrics = {} if rows.empty else {k: v for k, v in rows.iloc[0].items() if "/" in str(k)}
    status = the_run.status
    return {"run": str(the_run.path), "state": status.state, "step": status.step} | {
        "best_step": best.step if best else None,
        "selected_by": best.metric if best else None,
        "validation": metrics,
    }


def summary_lines(the_run: Run, summary: dict[str, Any]) -> list[str]:
    """The end of a training session in words."""
    lines = [f"{summary['state']} at step {summary['step']}: {the_run.path}"]
    if summary["best_step"] is not None:
        value = summary["validation"].get(summary["selected_by"], float("nan"))
        lines.append(f"best checkpoint: step {summary['best_step']}, {summary['selected_by']} {value:.4g}")
    lines.append(f"next: python -m stage3.evaluate --run {the_run.path}")
    return lines
