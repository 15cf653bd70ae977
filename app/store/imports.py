"""Comics that come in from the explorer: a folder each, where `python -m stage3.data import` runs as a child process.

    imports/NAME/  import.json   what is imported, and how it was last asked for
                   files/        uploads, as they came
                   look/         six pages imported for a look, before all are
                   all/          the import itself
    data/NAME/                   the data set that it makes

`look` and `all` hold what their child process says: `job.json` (its record), `progress.json`, `result.json` (what
`--json` prints) and `console.log`. What is running is read from these alone, so a reload, a second tab or a restarted
server finds every import again.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from app.store import children, loaders, readonly
from app.store.jobs import NAME
from stage3.cli import PROGRESS_FILE
from stage3.data.importers.formats import FORMATS
from stage3.errors import ConfigError, DataError, StorageError
from stage3.storage import make_folder, read_json, remove, replace_file, to_json

MODULE = "stage3.data"
LOOKED_AT = 6  # pages of a look
MEMORY_BYTES = 12 * 2**30  # of address space
DEEPEST, MOST_OFFERED, MOST_ENTRIES = 3, 400, 20_000  # levels, names, and files looked at, of the folders with comics
ARCHIVES = (".cbz", ".zip")
BOXES = {"files": "My files", "find": "Find panels", "page": "Whole page as one panel"}
TEXTS = {"files": "My files", "read": "Read from the images", "none": "None"}
DIRECTIONS = {"auto": "As the files say", "left": "Left to right", "right": "Right to left"}


@dataclass(frozen=True)
class Choice:
    """How comics are imported.

    Attributes:
        boxes: where panels are from, one of `BOXES`.
        texts: where texts are from, one of `TEXTS`.
        format: name of the format of the files; "" as it is recognized.
        panel_class: name of a class that is a panel, "" for the usual ones.
        direction: of reading, one of `DIRECTIONS`.
    """

    boxes: str = "files"
    texts: str = "files"
    format: str = ""
    panel_class: str = ""
    direction: str = "auto"

    def arguments(self) -> list[str]:
        """What a person would type after the sources."""
        made = []
        if "files" not in (self.boxes, self.texts):
            made += ["--format", "comic"]  # images alone
        else:
            made += [f"--format={self.format}"] if self.format else []
            made += [] if self.boxes == "files" else ["--ignore", "panels"]
            made += [] if self.texts == "files" else ["--ignore", "texts"]
        made += ["--panels", "none"] if self.boxes == "page" else []
        made += ["--text", "ocr"] if self.texts == "read" else []
        made += [f"--panel_class={self.panel_class}"] if self.panel_class else []
        return made + {"left": ["--left_to_right"], "right": ["--right_to_left"]}.get(self.direction, [])


def reads_text() -> bool:
    """Whether the package can read text from images here (its extra `ocr`)."""
    known = ("stage3.data.ocr", "rapidocr", "onnxruntime")
    return all(importlib.util.find_spec(name) is not None for name in known)


def formats() -> dict[str, str]:
    """What people call each format of annotations, by its name."""
    return {format.name: format.label for format in FORMATS}


# --- what can be imported


def roots() -> dict[str, Path]:
    """Folders whose comics are offered, by label: `comics/` where the app was started, and those of STAGE3_COMICS."""
    found = loaders.with_named("STAGE3_COMICS", {"comics": loaders.base() / "comics"})
    return {label: path for label, path in found.items() if path.is_dir()}


def offered() -> list[str]:
    """Folders with files, and archives, below the roots: `label/Book 1`, `label/one.cbz`. Nothing else is opened."""
    found: list[str] = []
    left = MOST_ENTRIES
    for label, root in roots().items():
        stack = [(label, root)]
        while stack and left > 0 and len(found) < MOST_OFFERED:
            name, folder = stack.pop()
            files, folders, archives = _listed(folder)
            left -= files + len(folders) + len(archives) + 1
            if files or archives or len(folders) > 1:
                found.append(name)
            found += [f"{name}/{archive}" for archive in archives]
            if name.count("/") < DEEPEST:
                stack += [(f"{name}/{inner}", folder / inner) for inner in reversed(folders)]
    return found[:MOST_OFFERED]


def _listed(folder: Path) -> tuple[int, list[str], list[str]]:
    """How many plain files a folder has, its folders, and its archives; links are passed by."""
    files, folders, archives = 0, [], []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            if entry.name.startswith(".") or not entry.name.isprintable() or entry.is_symlink():
                continue
            if entry.is_dir():
                folders.append(entry.name)
            elif entry.name.lower().endswith(ARCHIVES):
                archives.append(entry.name)
            else:
                files += 1
    return files, folders, archives


def place(name: str) -> Path:
    """The path of something offered; DataError for any other name."""
    if name not in offered():
        raise DataError(f"{name[:100]!r} is not among the folders with comics")
    label, _, below = name.partition("/")
    return roots()[label] / below


# --- one import


@dataclass(frozen=True)
class Import:
    """Comics on their way into a data set.

    Attributes:
        name: of the import and of its data set.
        source: what a person calls that which is imported.
        path: file or folder that is imported.
        choice: how it was last asked for.
        annotated: whether there are annotations beside the images; None until a look has told.
        refused: uploads that are not used, each with the reason.
    """

    name: str
    source: str
    path: Path
    choice: Choice
    annotated: bool | None = None
    refused: tuple[str, ...] = ()

    @property
    def uploads(self) -> Path:
        """Where uploaded files lie."""
        return self.folder / "files"

    @property
    def folder(self) -> Path:
        """Where its files lie."""
        return folder() / self.name

    @property
    def data(self) -> str:
        """The data set folder, below the folder that the app was started in."""
        return f"data/{self.name}"

    def task(self, kind: str) -> Task:
        """Its child process "look" or "all"."""
        return Task(self.folder / kind)

    def command(self) -> str:
        """What a person would type to import the same."""
        import shlex

        words = [str(self.path), "--out", self.data, *self.choice.arguments()]
        return "python -m stage3.data import " + " ".join(map(shlex.quote, words))

    def save(self) -> None:
        """Write what it is."""
        value = {**asdict(self), "path": str(self.path)}
        make_folder(self.folder)
        replace_file(self.folder / "import.json", to_json(value).encode())


def folder() -> Path:
    """Where imports lie."""
    return loaders.base() / "imports"


def free_name(stem: str) -> str:
    """The stem, or `stem-2`, `stem-3` …: the first that no import and no data set has."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-._")[:50] or "comics"
    name, n = plain, 1
    while _taken(name):
        n += 1
        name = f"{plain}-{n}"
    return name


def _taken(name: str) -> bool:
    return any(os.path.lexists(loaders.base() / where / name) for where in ("imports", "data"))


def check_name(name: str) -> None:
    """ConfigError where a name cannot be one of a new data set."""
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name[:80]!r} cannot name a data set: use letters, digits, _ . - (60 at most).")
    if _taken(name):
        raise ConfigError(f"{name!r} is taken: there is a data set or an import of that name. Choose another.")


def create(name: str, source: str, path: Path | None = None) -> Import:
    """A new import of a path, or of the files that are uploaded into its folder.

    Raises:
        ConfigError: the name is taken or not allowed.
        StorageError: the folder cannot be written.
    """
    readonly.refuse()
    check_name(name)
    made = Import(name, source, path or folder() / name / "files", Choice())
    made.save()
    return made


def load(name: str) -> Import:
    """The import of a name; DataError where there is none, StorageError where its record is damaged."""
    if not NAME.fullmatch(name) or not (folder() / name / "import.json").is_file():
        raise DataError(f"no import is called {name[:100]!r} here")
    record = folder() / name / "import.json"
    value = read_json(record)
    try:
        choice, refused = Choice(**value["choice"]), tuple(map(str, value["refused"]))
        return Import(name, str(value["source"]), Path(value["path"]), choice, value["annotated"], refused)
    except (KeyError, TypeError) as error:
        raise StorageError(f"{record}: damaged ({error}). Remove {record.parent} and add the comics again.") from None


def imports() -> list[Import]:
    """All imports, the newest first; damaged ones are passed by."""
    found = []
    for path in sorted(folder().glob("*/import.json"), key=lambda p: -p.stat().st_mtime):
        with suppress(DataError, StorageError):
            found.append(load(path.parent.name))
    return found


def discard(made: Import) -> None:
    """Forget an import that has made no data set, with the files that were uploaded for it."""
    readonly.refuse()
    for kind in ("look", "all"):
        made.task(kind).stop_now()
    if not (loaders.base() / made.data).exists():
        remove(made.folder)


def look(made: Import, choice: Choice) -> Import:
    """Import six pages as asked, to look at, in a child process; an earlier look ends at once."""
    readonly.refuse()
    task = made.task("look")
    task.stop_now()
    if task.folder.exists():
        remove(task.folder)
    made = replace(made, choice=choice)
    made.save()
    make_folder(task.folder)
    out = ["--out", str(task.folder / "data"), "--cache_dir", str(task.folder / "cache"), "--sample", str(LOOKED_AT)]
    task.start([str(made.path), *out, *choice.arguments()])
    return made


def start(made: Import) -> None:
    """Import everything, in a child process; the same again adds what is new.

    Raises:
        ConfigError: another import is running.
    """
    readonly.refuse()
    for other in imports():
        if other.task("all").state().is_live:
            raise ConfigError(f"{other.name} is being imported. Wait for it to finish, or cancel it.")
    make_folder(loaders.base() / "data")
    make_folder(made.task("all").folder)
    made.task("all").start([str(made.path), "--out", made.data, *made.choice.arguments()])


# --- its child processes


@dataclass(frozen=True)
class State:
    """How far a child process is.

    Attributes:
        word: none (never started), running, finished, stopped, failed.
        what: what it is doing; done, total: how far that is.
        message: why it ended, in the command's own words.
    """

    word: str
    what: str = ""
    done: int = 0
    total: int = 0
    message: str = ""

    @property
    def is_live(self) -> bool:
        """Whether something may still change."""
        return self.word == "running"


@dataclass(frozen=True)
class Task:
    """A child process of an import, told from its folder."""

    folder: Path

    def start(self, arguments: list[str]) -> None:
        """Run `python -m stage3.data import … --json`; returns at once."""
        for name in ("progress.json", "result.json", "console.log"):
            remove(self.folder / name)
        watched = {PROGRESS_FILE: str((self.folder / "progress.json").resolve())}
        with (self.folder / "console.log").open("wb") as log, (self.folder / "result.json").open("wb") as out:
            child = children.spawn(
                MODULE, ["import", *arguments, "--json"], nice=5, log=log, out=out, HF_HUB_OFFLINE="1", **watched
            )
        self._record(children.remembered(child, MEMORY_BYTES))

    def _record(self, value: dict[str, Any]) -> None:
        replace_file(self.folder / "job.json", to_json(value).encode())

    def _read(self) -> dict[str, Any]:
        try:
            return read_json(self.folder / "job.json")
        except StorageError:  # never started, or damaged: started anew then
            return {}

    def state(self) -> State:
        """How far it is, as the disk says."""
        record = self._read()
        if not record:
            return State("none")
        if children.is_alive(record):
            progress = {}
            with suppress(StorageError):  # also while it is being written
                progress = read_json(self.folder / "progress.json")
            done, total = (v if type(v) is int else 0 for v in (progress.get("done"), progress.get("total")))
            return State("running", str(progress.get("what", "starting"))[:80], done, total)
        said = children.tail(self.folder / "console.log", 40)
        at = said.rfind("error: ")
        if at < 0 and self.result():
            return State("finished")
        if "cancelled" in record:
            return State("stopped", message=said.splitlines()[-1] if said else "")
        return State("failed", message=said[at + len("error: ") :] if at >= 0 else said or "the process died")

    def result(self) -> dict[str, Any]:
        """What the command printed: `import` and `check`; empty while it has not."""
        try:
            value = json.loads((self.folder / "result.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) and {"import", "check"} <= value.keys() else {}

    def cancel(self) -> None:
        """Ask it to end after the page it is at; `press` goes on asking."""
        record = self._read()
        self._record({**record, "cancelled": time.time()})
        if children.is_alive(record):
            children.end(record["pid"], MODULE, hard=False)

    @property
    def cancelled(self) -> bool:
        """Whether it was asked to end."""
        return "cancelled" in self._read()

    def press(self) -> None:
        """End it by force where it was asked to end long ago; call it while it is watched."""
        record = self._read()
        asked = record.get("cancelled")
        if isinstance(asked, int | float) and children.is_alive(record):
            children.press(record["pid"], MODULE, asked)

    def stop_now(self) -> None:
        """Kill it and wait until it is gone: what it has written is not wanted."""
        record = self._read()
        until = time.monotonic() + 5
        while children.is_alive(record) and time.monotonic() < until:
            children.end(record["pid"], MODULE, hard=True)
            time.sleep(0.05)


def lines(result: dict[str, Any], key: str) -> Iterator[str]:
    """Lines of text in a result."""
    found = result.get("import", {}).get(key, [])
    yield from (str(line) for line in found if isinstance(line, str))
