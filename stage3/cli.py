"""What every command shares: settings as flags, errors as one line with an exit code, progress, JSON output."""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from stage3.config import FIELDS, GROUPS, SPLITS, Config, describe, nearest, spec_of
from stage3.errors import ConfigError, Interrupted, Stage3Error
from stage3.small_files import read_yaml

PROGRESS_FILE = "STAGE3_PROGRESS"  # environment variable: a file for whoever watches this process; see `progress`
DASH = "–"  # shown where a number is not defined


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line with the nearest known flag, and exit code 2."""

    def __init__(self, command: str, description: str, examples: Sequence[str], usage: str | None = None) -> None:
        epilog = "examples:\n" + "\n".join(f"  {line}" for line in examples)
        super().__init__(
            prog=called(command),
            usage=usage and f"{called(command)} {usage}",
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def add_settings(self, names: Iterable[str] = tuple(FIELDS)) -> None:
        """Add `--NAME VALUE` for settings, grouped, with range and default in the help."""
        names = tuple(names)
        used = {spec_of(name).group for name in names}
        groups = {g: self.add_argument_group(g, about) for g, about in GROUPS.items() if g in used}
        for name in names:
            spec = spec_of(name)
            default = FIELDS[name].default
            boolean = isinstance(default, bool)
            shown = typed(default)
            accepts = "" if boolean or describe(spec) == spec.help else f" ({describe(spec)})"
            groups[spec.group].add_argument(
                f"--{name}",
                nargs="?" if boolean else None,
                const="true" if boolean else None,
                default=argparse.SUPPRESS,
                metavar="true|false" if boolean else "VALUE",
                help=f"{spec.help}{accepts}; default {shown}".replace("%", "%%") if shown != "" else spec.help,
            )

    def add_run(self, about: str = "folder of the run, such as runs/first", *, required: bool = True) -> None:
        """Add `--run`."""
        self.add_argument("--run", required=required, help=about)

    def add_checkpoint(self) -> None:
        """Add `--checkpoint STEP`."""
        self.add_argument("--checkpoint", type=int, metavar="STEP", help="step of the checkpoint; default the best")

    def add_config(self) -> None:
        """Add `--config`."""
        self.add_argument("--config", metavar="FILE", help="YAML file of settings; flags override it")

    def add_device(self, default: str, about: str) -> None:
        """Add `--device`."""
        known = "auto, cpu, cuda or cuda:N"
        self.add_argument("--device", default=default, metavar="DEVICE", help=f"{known}; default {default}{about}")

    def add_split(self, default: str | None, about: str) -> None:
        """Add `--split`, one of the splits or all of them."""
        known = (*SPLITS, "all")
        self.add_argument(
            "--split", default=default, choices=known, metavar="SPLIT", help=f"{', '.join(known)}; {about}"
        )

    def add_json(self, about: str = "print one JSON object") -> None:
        """Add `--json`."""
        self.add_argument("--json", action="store_true", help=about)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse a value outside the choices, with the message that settings give."""
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            name = action.dest if action.option_strings else action.metavar or action.dest
            raise ConfigError(f"{name}: {value!r} is not one of {', '.join(known)}.{nearest(str(value), known)}")

    def parse(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """Parse; `--some-name` is read as `--some_name`; unknown flags raise ConfigError with the nearest known."""
        args = [_underscored(a) for a in (sys.argv[1:] if argv is None else argv)]
        namespace, unknown = self.parse_known_args(args)
        if unknown:
            name = unknown[0].split("=")[0]
            known = [o.lstrip("-") for a in self._actions for o in a.option_strings if o.startswith("--")]
            what = "setting" if name.startswith("--") else "argument"
            raise ConfigError(f"unknown {what} {name.lstrip('-')!r}.{nearest(name.lstrip('-'), known)}")
        return namespace

    def error(self, message: str) -> NoReturn:
        """Turn argparse's own complaints into the project's error."""
        raise ConfigError(message)


def called(command: str) -> str:
    """The name of a command in its help, as it was started: `stage3 train` or `python -m stage3.train`."""
    if "." in command:  # a maintainers' script
        return f"python -m {command}"
    script = f"stage3 {command}"
    return script if sys.argv[0] == script else f"python -m stage3.{command}"


def _underscored(arg: str) -> str:
    if not arg.startswith("--"):
        return arg
    name, eq, value = arg.partition("=")
    return "--" + name[2:].replace("-", "_") + eq + value


def given(namespace: argparse.Namespace, names: Iterable[str] = tuple(FIELDS)) -> dict[str, Any]:
    """The settings, of these names, that the command line gives."""
    return {name: value for name, value in vars(namespace).items() if name in FIELDS and name in names}


def settings_from(namespace: argparse.Namespace, *, config: str | None = None) -> Config:
    """The settings of a command: flag over file over default."""
    layers: list[tuple[dict[str, Any], str]] = [(given(namespace), "command line")]
    if config:
        layers.insert(0, (read_yaml(Path(config)), config))
    return Config.layered(*layers)


def typed(value: Any) -> str:
    """A setting's value as one would type it.

    >>> typed(("story", "cover")), typed(True), typed(None), typed(0.07)
    ('story,cover', 'true', 'none', '0.07')
    """
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def train_command(config: Config, run: str, *, always: Iterable[str] = (), never: Iterable[str] = ()) -> str:
    """What a person would type to train with these settings: the settings that are not at their default.

    Args:
        config: the settings.
        run: folder of the run.
        always: settings to name at their default too, unless that is empty.
        never: settings to leave out.
    """
    always, never = set(always), set(never)
    parts = ["python -m stage3.train", f"--run {run}"]
    for name, field in FIELDS.items():
        value = getattr(config, name)
        changed = value != field.default
        if name not in never and (changed or (name in always and typed(value))):
            parts.append(f"--{name} {shlex.quote(typed(value))}")
    return " ".join(parts)


def run(main: Callable[[Sequence[str] | None], int]) -> NoReturn:
    """Run a command's `main` and end the process with its exit code; known errors become one line on stderr.

    What is printed is UTF-8 also where it goes into a file or a pipe (Windows would take a code page that lacks "→").
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8")
    try:
        code = main(None)
    except Interrupted as stopped:  # as asked: no error
        sys.stderr.write(f"{clean(str(stopped))}\n")
        code = stopped.exit_code
    except Stage3Error as error:
        sys.stderr.write(f"error: {clean(str(error))}\n")
        code = error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        code = 75
    except BrokenPipeError:
        code = 0
    raise SystemExit(code)


def say(text: str = "") -> None:
    """One line on standard output, flushed, control characters removed."""
    sys.stdout.write(clean(text) + "\n")
    sys.stdout.flush()


def clean(text: str) -> str:
    """Text safe for a terminal: control characters (but newline and tab) become U+FFFD."""
    return "".join(c if c in "\n\t" or c.isprintable() else "\ufffd" for c in text)


def counted(n: int, noun: str) -> str:
    """A number with its noun.

    >>> counted(1, "page"), counted(2100, "page")
    ('1 page', '2,100 pages')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def percent(value: float | None, digits: int = 1, *, sign: bool = False) -> str:
    """A share as a percentage, with its sign if wanted; a dash where it is not defined.

    >>> percent(0.1234), percent(None), percent(float("nan"))
    ('12.3 %', '–', '–')
    """
    return DASH if value is None or not math.isfinite(value) else f"{100 * value:{'+' if sign else ''}.{digits}f} %"


def number(value: float | None, form: str = ".3f") -> str:
    """A number with a fixed number of digits; a dash where it is not defined.

    >>> number(0.12345), number(1234.5, ",.1f"), number(None)
    ('0.123', '1,234.5', '–')
    """
    return DASH if value is None or not math.isfinite(value) else f"{value:{form}}"


class Progress:
    """How far a long piece of work is; see `progress`."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self.advance = advance


@contextmanager
def progress(what: str, total: int, done: int = 0) -> Iterator[Progress]:
    """A rich bar with an ETA on a terminal; elsewhere a plain line about every ten seconds.

    `done` is what an earlier attempt finished: it counts as progress, but not towards the speed. If the environment
    variable STAGE3_PROGRESS names a file, {"what", "done", "total"} also stands there as JSON, twice a second.
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=total, completed=done)

            def tick(n: int = 1) -> None:
                bar.advance(task, n)

            yield Progress(tick)
        return
    start = last = told = time.monotonic()
    before, watched = done, os.environ.get(PROGRESS_FILE, "")

    def tell() -> None:
        if watched:
            with suppress(OSError):  # nobody's work ends because its progress cannot be shown
                Path(watched).write_text(json.dumps({"what": what, "done": done, "total": total}), encoding="utf-8")

    def advance(n: int = 1) -> None:
        nonlocal done, last, told
        done += n
        now = time.monotonic()
        if now - told >= 0.5 or done >= total:
            told = now
            tell()
        if now - last >= 10:
            last = now
            left = (now - start) / max(done - before, 1) * (total - done)
            sys.stderr.write(f"{what}: {done:,} of {total:,}, about {left:.0f} s left\n")
            sys.stderr.flush()

    tell()
    yield Progress(advance)


class Stop:
    """Whether a stop was requested; work without steps runs in `at_once()`, where a request ends it."""

    def __init__(self) -> None:
        self.asked = self.now = False

    def __call__(self) -> bool:
        """Whether to stop at the next step."""
        return self.asked

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A signal in here raises Interrupted at once: everything done so far is saved already."""
        self.now = True
        try:
            yield
        finally:
            self.now = False


@contextmanager
def stopping() -> Iterator[Stop]:
    """A `stop()` that turns true at SIGINT, SIGTERM or SIGHUP: work ends at the next step with everything saved.

    Signals reach the main thread only; in any other it never turns true.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number: int, _: Any) -> None:
        if stop.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.asked = True
        if stop.now:
            raise Interrupted("stopped before the first step; the same command resumes it")

    handled = [signal.SIGINT, signal.SIGTERM, *([signal.SIGBREAK] if hasattr(signal, "SIGBREAK") else [])]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it
        handled.append(signal.SIGHUP)
    before = {number: signal.signal(number, note) for number in handled}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
