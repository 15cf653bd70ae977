"""Train a run from a data set, or resume a stopped one; `python -m stage3.train` is the command.

This file prepares a run and says how it ended. Beside it: `trainer` is the loop, and `optimizer` has AdamW's pieces.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stage3.cli import Stop, counted, percent, progress, stopping, typed
from stage3.config import FIELDS, SPLITS, Config, coerce, differences, spec_of
from stage3.errors import ConfigError, DataError, Interrupted, Stage3Error, StorageError
from stage3.runs import RunFolder
from stage3.small_files import path_problem, read_yaml, shown
from stage3.storage import remove, storing
from stage3.train.together import Leader, follow

if TYPE_CHECKING:
    from stage3.batches.dataset import Dataset
    from stage3.train.trainer import Trainer

Tell = Callable[[str], None]
INEXACT = ("threads", "device")  # settings that change bits alone: --allow_inexact_resume


def train_run(
    path: Path | str,
    settings: Mapping[str, Any],
    *,
    config: Path | str | None = None,
    data: Dataset | None = None,
    allow_inexact_resume: bool = False,
    tell: Tell = lambda _: None,
    source: str = "command line",
) -> RunFolder:
    """Train a new run, or resume a stopped one; everything that `python -m stage3.train` does.

    SIGINT and SIGTERM end it at the next step, with a checkpoint, where it runs in the main thread. Processes that
    `torchrun` started train it together; the first of them alone writes the run.

    Args:
        path: folder of the run.
        settings: of `Config`, by name; for a run that has begun, only those that do not reach its weights. A run that
            never began takes the defaults and these, or its own where none is given.
        config: YAML file of further settings; `settings` override it.
        data: the data set that the settings name, where it is loaded already.
        allow_inexact_resume: resume although `threads` or `device` changed, which gives other bits.
        tell: takes a line for a person.
        source: what errors call the place where `settings` were given.

    Raises:
        ConfigError, DataError: settings or data cannot be used; a new run leaves nothing behind.
        Interrupted: it was asked to stop; the same call resumes it.
        NumericError: three steps in a row were not finite.
        StorageError: the run cannot be written, or another process trains it.
    """
    from stage3.features import usable_device
    from stage3.peers import joined

    if problem := path_problem(str(path)):
        raise ConfigError(f"--run {shown(str(path))} {problem}")
    asked = Asked(dict(settings), read_yaml(Path(config)) if config else {}, str(config or ""), source)
    with joined(lambda: usable_device(asked.device(Path(path)))) as peers, stopping() as stop:
        if not peers.leads:
            return follow(Path(path), peers, stop, data, inexact=allow_inexact_resume)
        leader = Leader(peers)
        with leader.preparing():
            run, resumed = open_or_create(Path(path), asked, data)
            with nothing_left_of(None if resumed else run), run.lock():
                run.clear_leftovers()
                if resumed and has_begun(run):
                    change_settings(run, asked, allow_inexact_resume)
                elif resumed:
                    begin_anew(run, asked, data, tell)
                for line in [*asked.overruled(), *cautions(run.config)]:
                    _both(run, line, tell)
                if run.status.state == "finished":
                    tell(f"{run.path} is already finished; its result is below. Train a new run to change settings.")
                else:
                    with run.threads():  # which the settings may have changed just now
                        train(
                            run,
                            resumed=resumed,
                            inexact=allow_inexact_resume,
                            stop=stop,
                            tell=tell,
                            data=data,
                            leader=leader,
                        )
    return run


@contextmanager
def nothing_left_of(new: RunFolder | None) -> Iterator[None]:
    """Remove a new run whose settings or data are refused in here: nothing was trained, and its name stays free."""
    try:
        yield
    except (ConfigError, DataError):
        if new is not None and not new.checkpoints():
            with storing(new.path):
                remove(new.path)
        raise


@dataclass(frozen=True)
class Asked:
    """Settings as they were given: by name, and by a file, which they override."""

    settings: dict[str, Any]
    of_file: dict[str, Any]
    file: str
    source: str

    def over(self, run: RunFolder | None = None) -> Config:
        """The settings to use, on top of a run's own or of the defaults."""
        layers = [(run.config.to_dict(), str(run.path))] if run else []
        return Config.layered(*layers, (self.of_file, self.file), (self.settings, self.source))

    def device(self, path: Path) -> str:
        """Where training is to compute, as far as it can be known before the settings are checked."""
        given: str = self.settings.get("device") or self.of_file.get("device") or ""
        return given or (RunFolder.load(path).config.device if RunFolder.exists(path) else Config().device)

    def overruled(self) -> list[str]:
        """Settings that the file and the command line give differently, in words: flags override the file."""
        lines = []
        for name, value in self.of_file.items():
            given = self.settings.get(name)
            if given is not None and coerce(FIELDS[name], value) != coerce(FIELDS[name], given):
                lines.append(f"{name}: {given} from the {self.source} overrides {value} of {self.file}")
        return lines


def open_or_create(path: Path, asked: Asked, data: Dataset | None = None) -> tuple[RunFolder, bool]:
    """The run to train and whether it was there before.

    A new run is made only once its data has been read, so that refused input leaves nothing behind.

    Raises:
        ConfigError, DataError: the settings or the data of a new run cannot be used on this machine.
    """
    if RunFolder.exists(path):
        return RunFolder.load(path), True
    config = asked.over()
    if data is None:
        check_usable(path, config)
    return RunFolder.create(path, config), False


def check_usable(path: Path, config: Config) -> None:
    """Refuse settings that this machine cannot train with, before anything is written of them.

    Raises:
        ConfigError, DataError: the device is not there, or the data cannot be used.
    """
    from stage3.data import readers
    from stage3.features import usable_device
    from stage3.train.sinks import check_installed

    check_places(path, config)
    check_installed(config)
    usable_device(config.device)
    readers.load(config)


def begin_anew(the_run: RunFolder, asked: Asked, data: Dataset | None, tell: Tell) -> None:
    """Settings of a run that is there but was never begun: the defaults and what is given now; its lock is held.

    What a start that failed was given is not carried on; a line says what is left behind. Only where nothing at all is
    given are they the run's own: so the explorer starts a run that it has prepared.

    Raises:
        ConfigError, DataError: the settings or the data cannot be used; the run keeps the settings it had.
    """
    if not asked.settings and not asked.of_file:
        return
    wanted = asked.over()
    changed = differences(the_run.config, wanted).items()
    left = [f"{name} {typed(old)}" for name, (old, _) in changed if name not in (*asked.settings, *asked.of_file)]
    if left:
        line = f"{the_run.path} never began, so it starts from the defaults and the settings given now; not kept from"
        _both(the_run, f"{line} its earlier start: {', '.join(left)}", tell)
    if data is None:
        check_usable(the_run.path, wanted)
    the_run.write_config(wanted)


def change_settings(the_run: RunFolder, asked: Asked, allow_inexact_resume: bool) -> None:
    """Take the settings that a run which has begun is asked to change; its lock is held.

    Raises:
        ConfigError: a setting that reaches its weights is among them.
    """
    wanted = asked.over(the_run)
    changed = differences(the_run.config, wanted)
    free = INEXACT if allow_inexact_resume else ()
    fixed = {n: values for n, values in changed.items() if not spec_of(n).resume_free and n not in free}
    if fixed:
        listed = "; ".join(f"{name} is {old}, asked for {new}" for name, (old, new) in fixed.items())
        remedy = "Resume without them, or choose a new run name."
        if set(fixed) <= set(INEXACT):
            remedy = "Resume without them, choose a new run name, or give --allow_inexact_resume."
        raise ConfigError(f"{the_run.path} was started with other settings: {listed}. {remedy}")
    if changed:
        the_run.write_config(wanted)


def has_begun(the_run: RunFolder) -> bool:
    """Whether anything was trained: a checkpoint is there, or the run's records tell of one that has been lost."""
    status = the_run.status
    saved = status.saved_step is not None or status.best_step is not None
    return bool(the_run.checkpoints() or the_run.best() or saved)


def check_places(path: Path, config: Config) -> None:
    """Refuse a run inside the panels that it reads: the next scan would meet its files."""
    from stage3.data import readers

    folder = readers.source_of(config).panels
    if path.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"--run {path} lies inside the panels {folder}. Choose a folder outside the data.")


def cautions(config: Config) -> list[str]:
    """Settings that are allowed but hardly intended."""
    lines = []
    if config.max_panels == 1:
        lines.append("max_panels 1: no panel has page mates, so only alignment is trained")
    cores = os.cpu_count() or 1
    if config.workers > 4 * cores:
        lines.append(f"workers {config.workers}: more than four threads per core ({cores} cores) do not help")
    return lines


def train(
    the_run: RunFolder,
    *,
    resumed: bool,
    inexact: bool,
    stop: Stop,
    tell: Tell,
    data: Dataset | None = None,
    leader: Leader,
) -> None:
    """Prepare data and model, resume if there is something to resume, and train to the end.

    The run's status says how it ended, whatever happens.
    """
    from stage3.train.signal import check_learned
    from stage3.train.sinks import check_installed, opened

    check_installed(the_run.config)
    the_run.clear_stop()
    the_run.set_status("running", message="reading the data")
    try:
        with stop.at_once():  # features may take hours
            trainer = prepare(the_run, resumed=resumed, inexact=inexact, tell=tell, data=data, leader=leader)
        with (
            opened(the_run) as sinks,
            progress(f"training {the_run.name}, steps", trainer.total_steps, trainer.step) as bar,
        ):
            trainer.on_step = lambda _: bar.advance(1)
            trainer.on_row = sinks.write if sinks else trainer.on_row
            trainer.fit(stop)
        check_learned(the_run, trainer.data)
        compare(the_run, trainer)
    except Interrupted as error:
        the_run.set_status("stopped", message=str(error), exit_code=error.exit_code)
        the_run.log(str(error))
        raise
    except Stage3Error as error:
        the_run.set_status("failed", message=str(error), exit_code=error.exit_code)
        the_run.log(f"failed: {error}")
        raise
    except KeyboardInterrupt:  # a second Ctrl-C, or one after SIGTERM: asked for, though nothing more was saved
        saved = the_run.checkpoints()
        since = f"since step {saved[-1].step} " if saved else ""
        message = f"stopped at once: nothing {since}was saved; the same command resumes it"
        the_run.set_status("stopped", message=message, exit_code=Interrupted.exit_code)
        raise
    except BaseException as error:
        the_run.set_status("failed", message=f"{type(error).__name__}: {error}", exit_code=1)
        raise
    the_run.set_status("finished", step=trainer.step, message="finished", exit_code=0)
    the_run.log(f"finished at step {trainer.step}")


def compare(the_run: RunFolder, trainer: Trainer) -> None:
    """Write into `baselines.json` what training added to the frozen features, and whether retrieval is above chance.

    Both on validation pages, by the best model.

    The test pages are left alone: they are for one look at the end, and `evaluate` takes it.
    """
    from stage3.model import baselines, chance, embedding
    from stage3.runs.data import chosen_pages

    if not len(trainer.val_pages):
        return
    _, pages, notes = chosen_pages(the_run, trainer.data, "val")
    best = the_run.checkpoint()
    step = best.step
    if trainer.tuned:
        pages = trainer.val_pages
        trainer.tuned.load(best.path)
    panel_set = trainer.panel_set(pages)
    embedded = embedding.embed(the_run.model(step).to(trainer.device), panel_set, pages, trainer.device)
    added = baselines.added_to(trainer.data, embedded)
    ways = chance.against_chance(embedded, baselines.books_of(trainer.data, embedded))
    about = {"step": step, "split": "val", "notes": notes, "retrieval": [way.to_dict() for way in ways]}
    the_run.write_json("baselines", about | added.to_dict())
    for sentence in (added.sentence, *(way.sentence for way in ways)):
        the_run.log(sentence)


def prepare(
    the_run: RunFolder,
    *,
    resumed: bool,
    inexact: bool,
    tell: Tell,
    data: Dataset | None = None,
    leader: Leader,
) -> Trainer:
    """Load the data, check that it is the data the run began with, build the trainer, load the newest checkpoint.

    Beside the data report, the run keeps and says once what this amount of data can show.
    """
    from stage3.batches.dataset import Dataset
    from stage3.data.readers.report import report_lines
    from stage3.features import usable_device
    from stage3.features.known_comics import tiny_note
    from stage3.model.amount import amount
    from stage3.train.signal import check_signal
    from stage3.train.trainer import Trainer

    usable_device(the_run.config.device)  # a missing GPU is said before minutes of features
    data = data or Dataset.load(the_run.config)
    for line in report_lines(data.table.report):
        tell(line)
    _both(the_run, data.features.report.sentence(), tell)
    the_run.write_json("data_report", data.table.report.to_dict())
    check_identity(the_run, data)
    check_images(the_run.config, data)
    if not len(data.pages("train")):
        raise DataError("no page is left for training after the split by book. Lower val_fraction and test_fraction.")
    trainer = Trainer(the_run, data, say=lambda line: _both(the_run, line, tell), peers=leader.peers)
    can_show = amount(data)
    the_run.write_json("data_report", data.table.report.to_dict() | {"can_show": can_show.to_dict()})
    for line in check_signal(trainer) if trainer.total_steps else ():  # without a step nothing has to be learned
        _both(the_run, line, tell)
    if resumed and not the_run.checkpoints() and has_begun(the_run):
        raise StorageError(
            f"{the_run.path} recorded checkpoints up to step {the_run.status.step}, but its folder checkpoints/ is "
            "gone or empty. Restore it, or train a new run."
        )
    if resumed and the_run.checkpoints():
        loaded = the_run.load_checkpoint(check=trainer.check)
        for damage in loaded.damaged:
            _both(the_run, f"damaged checkpoint passed over: {damage}", tell)
        trainer.resume(loaded, inexact=inexact)
        leader.begin(loaded.step)
        _both(the_run, f"resuming {the_run.path} after step {trainer.step} of {trainer.total_steps}", tell)
    else:
        leader.begin(None)
        the_run.cut_metrics(0)
        the_run.clear_best()
        note = tiny_note(the_run.config)
        for line in (*([f"note: {note}"] if note else []), *can_show.lines(), start_line(the_run, data, trainer)):
            _both(the_run, line, tell)
    return trainer


def _both(the_run: RunFolder, line: str, tell: Tell) -> None:
    the_run.log(line)
    tell(line)


def start_line(the_run: RunFolder, data: Dataset, trainer: Trainer) -> str:
    """What is about to be trained, in one line."""
    parameters = sum(p.numel() for p in trainer.everything.parameters())
    sizes = {name: len(data.pages(name)) for name in SPLITS}
    steps = counted(trainer.total_steps, "step")
    line = (
        f"training {the_run.path}: {parameters:,} parameters, {counted(sizes['train'], 'page')} to train, "
        f"{sizes['val']} to choose, {sizes['test']} held out; {steps} on {trainer.device}"
    )
    lr = the_run.config.lr
    if trainer.peak < lr:
        panels = counted(len(data.panel_set.rows_of(data.pages("train"))), "training panel")
        line += f"; lr {lr:g} lowered to {trainer.peak:.2g}, for there are only {panels} (lr_panels)"
    return line


def check_identity(the_run: RunFolder, data: Dataset) -> None:
    """Record what the run is trained on, or refuse to resume when that has changed."""
    now = data.identity()
    if not has_begun(the_run):
        the_run.write_json("data", now)
        return
    if not (the_run.path / "data.json").exists():
        raise StorageError(
            f"{the_run.path / 'data.json'} is gone, so the training data of the checkpoints is unknown. "
            "Restore it, or train a new run."
        )
    before = the_run.read_json("data")
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        said = {"pictures": "images"}  # its name in the file is older than the word
        shown = "; ".join(f"{said.get(n, n)}: {str(before.get(n))[:60]} then, {str(now[n])[:60]} now" for n in changed)
        raise DataError(f"{the_run.path} was trained on other data ({shown}). Restore that data, or train a new run.")


def check_images(config: Config, data: Dataset) -> None:
    """Refuse images that are there and cannot be read, where they are too many; missing ones were refused before."""
    import numpy as np

    wanted = np.unique(data.table.page_of_panel[data.table.has_box])
    seen = data.table.page_of_panel[data.features.image_rows >= 0]
    lost = len(np.setdiff1d(wanted, seen))
    if lost > config.max_without_image * len(wanted):
        report = data.features.report
        why = "".join(f"; {code} {n:,}, first {report.examples[code][0]}" for code, n in report.problems.most_common(3))
        raise DataError(
            f"{lost:,} of {len(wanted):,} pages with boxes have no image that can be read, more than "
            f"max_without_image {percent(config.max_without_image)}{why}. Repair them, or raise --max_without_image."
        )


def result(the_run: RunFolder) -> dict[str, Any]:
    """Where the run is and what its best validation says."""
    from stage3.runs import curves

    best = the_run.best()
    metrics = curves.best_validation(the_run.metrics(), best)
    status = the_run.status
    # not of a run without validation books, nor of one that ended before this version
    added = the_run.read_json("baselines") if (the_run.path / "baselines.json").exists() else None
    return {"run": str(the_run.path), "state": status.state, "step": status.step} | {
        "best_step": best.step if best else None,
        "selected_by": best.metric if best else None,
        "validation": metrics,
        "added": added,
    }


def summary_lines(the_run: RunFolder, summary: dict[str, Any]) -> list[str]:
    """The end of a training session in words."""
    lines = [f"{summary['state']} at step {summary['step']}: {the_run.path}"]
    if summary["best_step"] is not None:
        value = summary["validation"].get(summary["selected_by"], float("nan"))
        lines.append(f"best checkpoint: step {summary['best_step']}, {summary['selected_by']} {value:.4g}")
    if summary["added"]:
        lines.append(f"validation pages: {summary['added']['sentence']}")
        lines += [f"  {way['sentence']}" for way in summary["added"].get("retrieval", [])]
    lines.append(f"next: python -m stage3.evaluate --run {the_run.path}")
    return lines
