"""What every command shares: settings as flags, errors as one line with an exit code, progress, JSON output."""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from stage3.config import (
    FIELDS,
    GROUPS,
    Config,
    ConfigError,
    Interrupted,
    Stage3Error,
    describe,
    nearest,
    read_yaml,
    spec_of,
)


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line with the nearest known flag, and exit code 2."""

    def __init__(self, verb: str, description: str, examples: Sequence[str], usage: str | None = None) -> None:
        epilog = "examples:\n" + "\n".join(f"  {line}" for line in examples)
        super().__init__(
            prog=f"python -m stage3.{verb}",
            usage=usage and f"python -m stage3.{verb} {usage}",
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def add_settings(self, names: Iterable[str] = tuple(FIELDS)) -> None:
        """Add `--NAME VALUE` for settings, grouped, with range and default in the help."""
        groups = {g: self.add_argument_group(g, about) for g, about in GROUPS.items()}
        for name in names:
            spec = spec_of(name)
            default = FIELDS[name].default
            boolean = isinstance(default, bool)
            shown = ",".join(default) if isinstance(default, tuple) else default
            shown = str(shown).lower() if boolean or shown is None else shown  # as one would type it
            accepts = "" if boolean or describe(spec) == spec.help else f" ({describe(spec)})"
            groups[spec.group].add_argument(
                f"--{name}",
                nargs="?" if boolean else None,
                const="true" if boolean else None,
                default=argparse.SUPPRESS,
                metavar="true|false" if boolean else "VALUE",
                help=f"{spec.help}{accepts}; default {shown}".replace("%", "%%") if shown != "" else spec.help,
            )

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


def _underscored(arg: str) -> str:
    if not arg.startswith("--"):
        return arg
    name, eq, value = arg.partition("=")
    return "--" + name[2:].replace("-", "_") + eq + value


def settings_from(namespace: argparse.Namespace, *, config: str | None = None) -> Config:
    """The settings of a command: flag over file over default."""
    flags = {name: value for name, value in vars(namespace).items() if name in FIELDS}
    layers: list[tuple[dict[str, Any], str]] = [(flags, "command line")]
    if config:
        layers.insert(0, (read_yaml(Path(config)), config))
    return Config.layered(*layers)


def run(main: Callable[[Sequence[str] | None], int]) -> NoReturn:
    """Run a verb's `main` and end the process with its exit code; known errors become one line on stderr.

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


def to_json(value: Any) -> str:
    """Strict JSON (NaN and infinities become null), the one way every file and `--json` writes it."""
    return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if hasattr(value, "item") and not isinstance(value, str):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Progress:
    """How far a long piece of work is; see `progress`."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self.advance = advance


@contextmanager
def progress(what: str, total: int, done: int = 0) -> Iterator[Progress]:
    """A rich bar with an ETA on a terminal; elsewhere a plain line about every ten seconds.

    `done` is what an earlier attempt left: it counts as progress, and not towards the speed.
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
    start = last = time.monotonic()
    before = done

    def advance(n: int = 1) -> None:
        nonlocal done, last
        done += n
        now = time.monotonic()
        if now - last >= 10:
            last = now
            left = (now - start) / max(done - before, 1) * (total - done)
            sys.stderr.write(f"{what}: {done:,} of {total:,}, about {left:.0f} s left\n")
            sys.stderr.flush()

    yield Progress(advance)
