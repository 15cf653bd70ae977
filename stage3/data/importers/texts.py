"""Text of panels that have none, read from their images and written into the panel files of a data set folder."""

from __future__ import annotations

import os
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stage3.cli import Stop, counted, progress
from stage3.data import images
from stage3.data.importers.dataset import MADE_BY, PANELS
from stage3.data.importers.geometry import numbers
from stage3.data.importers.journal import Done, Journal
from stage3.data.importers.page import APART, Box
from stage3.data.ocr import OCR, Block, Line, TextReader, load_reader
from stage3.data.ocr.placing import placed
from stage3.data.readers.source import YAML_NAME
from stage3.errors import ConfigError, DataError, Interrupted, StorageError
from stage3.small_files import read_yaml
from stage3.storage import Lock, file_sha256, parse_object, read_file, replace_file, sha256, to_json

NONE = "none"  # texts are those of the sources alone; anything else names a reader
LOCK = "import.lock"  # of a data set folder that is being written
READ_BY = "text_reader"  # field of a panel file: its panels without text were read by this reader
UNSURE = 0.8  # confidence; below it, a panel is counted as unsure
WORKERS, MAX_WORKERS = 2, 64


@dataclass
class TextsRead:
    """What there is of text after reading.

    Attributes:
        reader: name of the reader.
        pages: pages that were read, now or before.
        new: those that were read now.
        panels: all panels of these pages.
        given: panels whose text was there already.
        read: panels that have text from this or another reader.
        sounds: sounds, which are no part of what a panel says.
        numbers: page numbers, which belong to no panel.
        outside: other texts in no panel.
        unsure: panels whose text was read with a confidence below `UNSURE`.
        problems: why pages could not be read, with the first page of each reason.
    """

    reader: str
    pages: int = 0
    new: int = 0
    panels: int = 0
    given: int = 0
    read: int = 0
    sounds: int = 0
    numbers: int = 0
    outside: int = 0
    unsure: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """What the folder holds, as the report file has it."""
        names = ("reader", "pages", "panels", "given", "read", "sounds", "numbers", "outside", "unsure")
        return {**{name: getattr(self, name) for name in names}, "problems": dict(sorted(self.problems.items()))}

    def lines(self) -> list[str]:
        """For people."""
        lines = [
            f"Text: {counted(self.read, 'panel')} of {self.panels:,} by {self.reader} on {counted(self.pages, 'page')} "
            f"({self.new:,} new), {self.unsure:,} of them unsure (confidence below {UNSURE:g}); "
            f"{self.given:,} had text already. {counted(self.sounds, 'sound')} and "
            f"{counted(self.numbers, 'page number')} kept apart, {counted(self.outside, 'text')} in no panel."
        ]
        lines += [
            f"  not read: {counted(n, 'page')}: {why}, first {self.first[why]}" for why, n in self.problems.items()
        ]
        return lines

    def problem(self, why: str, page_id: str) -> None:
        """Count a page whose image cannot be used."""
        self.problems[why] += 1
        self.first.setdefault(why, page_id)


def read_texts(out: Path | str, text: str = OCR, *, workers: int = WORKERS, stop: Stop | None = None) -> TextsRead:
    """Read the text of panels that have none, in a folder that an import made.

    Panels with text stay as they are. A page that was read is not read again; an interrupted call goes on.

    Args:
        out: the data set folder.
        text: "ocr", or the folder or id of an image-to-text model; see `stage3.data.ocr.load_reader`.
        workers: pages that are read side by side, each on one CPU.
        stop: asked between pages whether to stop.

    Raises:
        ConfigError: the extra `ocr` is not installed, or a number is out of range.
        DataError: the folder is none that an import made, or the model does not load.
        Interrupted: `stop` asked for it; the same call goes on.
        StorageError: the folder cannot be written, or another import writes it.
    """
    folder = Path(out)
    yaml = folder / YAML_NAME
    if not yaml.is_file() or read_yaml(yaml).get("made_by") != MADE_BY:
        raise DataError(f"{folder}: no data set that `{MADE_BY}` made. Import it into a new folder first.")
    readers = Readers(text, workers)
    lock = Lock(folder / LOCK)
    lock.acquire()
    try:
        journal = Journal(folder)
        made = fill(folder, journal, readers, stop or Stop())
        journal.settle()
    finally:
        os.truncate(lock.path, 0)  # as after an import
        lock.release()
    return made


class Readers:
    """One reader for each thread: none may be used by two at once.

    Args:
        text: name of the reader.
        workers: how many threads.

    Raises:
        ConfigError, DataError: as `load_reader`.
    """

    def __init__(self, text: str, workers: int) -> None:
        if not 1 <= workers <= MAX_WORKERS:
            raise ConfigError(f"workers: {workers} is out of range: must be from 1 to {MAX_WORKERS}")
        self.workers = workers
        self._text = text
        self._first: TextReader | None = load_reader(text)
        self.name = self._first.name
        self._guard = threading.Lock()
        self._mine = threading.local()

    def read(self, path: Path) -> tuple[list[Line], tuple[int, int]] | images.ImageProblem:
        """Lines of a page, and its (width, height) in pixels."""
        try:
            image = images.open_page(path)
        except images.ImageProblem as problem:
            return problem
        return self._reader().read(image), image.size

    def _reader(self) -> TextReader:
        if not hasattr(self._mine, "reader"):
            with self._guard:
                self._mine.reader = self._first or load_reader(self._text)
                self._first = None
        reader: TextReader = self._mine.reader
        return reader


def fill(out: Path, journal: Journal, readers: Readers, stop: Stop) -> TextsRead:
    """Read what has not been read; the folder is locked, and the journal is not settled yet."""
    made = TextsRead(readers.name)
    pages = sorted((d for d in journal.done.values() if d.problem is None), key=lambda d: (d.at, d.id))
    with progress("reading text", len(pages)) as bar:
        for done, content, found in _found(out, pages, readers):
            if content is not None and found is not None:
                _write(out, journal, done, content, found, readers.name, made)
            if content is not None:
                _count(made, content)
            bar.advance(1)
            if stop():
                raise Interrupted(f"stopped after the text of {counted(made.new, 'page')}; the same command goes on")
    return made


Found = tuple[list[Line], tuple[int, int]] | images.ImageProblem
Ahead = tuple[Done, dict[str, Any] | None, Future[Found] | None]


def _found(
    out: Path, pages: Sequence[Done], readers: Readers
) -> Iterator[tuple[Done, dict[str, Any] | None, Found | None]]:
    """Each page with its panel file (None: not usable) and what was found on it (None: nothing to do), in order."""
    with ThreadPoolExecutor(readers.workers, thread_name_prefix="text") as pool:
        ahead: deque[Ahead] = deque()
        try:
            for done in pages:
                content = _content(out, done)
                wanted = content is not None and content.get(READ_BY) != readers.name and _without_text(content)
                ahead.append((done, content, pool.submit(readers.read, out / done.image) if wanted else None))
                if len(ahead) > 2 * readers.workers:
                    yield _result(ahead.popleft())
            while ahead:
                yield _result(ahead.popleft())
        finally:
            for _, _, future in ahead:
                if future is not None:
                    future.cancel()


def _result(page: Ahead) -> tuple[Done, dict[str, Any] | None, Found | None]:
    done, content, future = page
    return done, content, None if future is None else future.result()


def _file(out: Path, done: Done) -> Path:
    return out / PANELS / f"{done.id}.json"


def _content(out: Path, done: Done) -> dict[str, Any] | None:
    """A panel file; None where it has no list of panels, as `data check` will say."""
    try:
        content = parse_object(read_file(_file(out, done)), _file(out, done))
    except StorageError:
        return None
    panels = content.get("panels")
    return content if isinstance(panels, list) and all(isinstance(panel, dict) for panel in panels) else None


def _texts(value: dict[str, Any]) -> list[dict[str, Any]]:
    """The texts of a panel or page that have words."""
    texts = value.get("texts")
    return [t for t in texts if isinstance(t, dict) and t.get("text")] if isinstance(texts, list) else []


def _is_empty(panel: dict[str, Any]) -> bool:
    return not panel.get("text") and not _texts(panel)


def _without_text(content: dict[str, Any]) -> bool:
    return any(map(_is_empty, content["panels"]))


def _write(
    out: Path, journal: Journal, done: Done, content: dict[str, Any], found: Found, reader: str, made: TextsRead
) -> None:
    """Add the lines of a page to its panel file."""
    if isinstance(found, images.ImageProblem):
        made.problem(found.code, done.id)
        return
    _add(content, *found, reader)
    data = (to_json(content) + "\n").encode()
    path = _file(out, done)
    if file_sha256(path) == done.file:  # else it was changed by hand, and stays known as such
        # The journal goes first: after a crash in between, the page is read again and gives these bytes.
        journal.add(replace(done, file=sha256(data), sizes=(len(data), done.sizes[1])))
    replace_file(path, data, durable=False)
    made.new += 1


def _add(content: dict[str, Any], lines: Sequence[Line], size: tuple[int, int], reader: str) -> None:
    """The lines of a page in its panel file: those in panels without text, and those in no panel."""
    panels = content["panels"]
    declared = numbers((content.get("image_width"), content.get("image_height"))) or size
    across, down = declared[0] / size[0], declared[1] / size[1]
    scaled = [
        Line(line.text, (line.box[0] * across, line.box[1] * down, line.box[2] * across, line.box[3] * down),
             line.confidence)
        for line in lines
    ]  # fmt: skip
    boxes = {k: box for k, panel in enumerate(panels) if (box := _box(panel)) is not None}
    whole = (round(declared[0]), round(declared[1]))
    where = placed(scaled, list(boxes.values()), whole, content.get("right_to_left") is True)
    for k, some in zip(boxes, where.panels, strict=True):
        if some and _is_empty(panels[k]):
            panels[k] |= _as_fields(some, reader)
    if where.outside and not _texts(content):
        content["texts"] = [_entry(block, reader) for block in where.outside]
    said = [str(panel.get("text") or "") for panel in panels]
    said += [str(t["text"]) for t in _texts(content) if t.get("kind") not in APART]
    content["full_page_text"] = " ".join(filter(None, said))
    content[READ_BY] = reader


def _box(panel: dict[str, Any]) -> Box | None:
    """The box of a panel; None where somebody wrote none."""
    bbox = panel.get("bbox")
    values = numbers(bbox) if isinstance(bbox, list) and len(bbox) == 4 else None
    return None if values is None or min(values[2:]) <= 0 else (values[0], values[1], values[2], values[3])


def _as_fields(some: Sequence[Block], reader: str) -> dict[str, Any]:
    letters = [len(block.text) for block in some]
    sure = sum(n * block.confidence for n, block in zip(letters, some, strict=True)) / sum(letters)
    return {
        "text": " ".join(block.text for block in some if block.kind not in APART),
        "text_confidence": round(sure, 4),
        "texts": [_entry(block, reader) for block in some],
    }


def _entry(block: Block, reader: str) -> dict[str, Any]:
    return {
        "bbox": [round(v, 2) for v in block.box],
        "text": block.text,
        "kind": block.kind,
        "confidence": round(block.confidence, 4),
        "source": reader,
    }


def _count(made: TextsRead, content: dict[str, Any]) -> None:
    """Add one page to the numbers."""
    panels = content["panels"]
    texts = [[t for t in _texts(value) if t.get("source")] for value in (*panels, content)]  # what a reader wrote
    made.pages += content.get(READ_BY) == made.reader
    made.panels += len(panels)
    made.read += sum(map(bool, texts[:-1]))
    made.given += sum(not _is_empty(panel) and not some for panel, some in zip(panels, texts[:-1], strict=True))
    made.unsure += sum(
        bool(some) and panel.get("text_confidence", 1.0) < UNSURE
        for panel, some in zip(panels, texts[:-1], strict=True)
    )
    kinds = Counter(t.get("kind") for some in texts for t in some)
    made.sounds += kinds["sound"]
    made.numbers += kinds["page_number"]
    made.outside += sum(t.get("kind") == "dialogue" for t in texts[-1])
