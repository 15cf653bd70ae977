"""From sources to a data set folder: read, find panels, write, go on where an earlier import stopped."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from stage3.cli import Stop, counted, progress
from stage3.config import nearest
from stage3.data.detect import OWN, WHOLE_PAGE, Detector, load_detector
from stage3.data.images import ImageProblem
from stage3.data.importers import naming
from stage3.data.importers.assemble import Assembled, assemble
from stage3.data.importers.comicinfo import Metadata
from stage3.data.importers.dataset import MADE_BY, write_dataset
from stage3.data.importers.format import Options, Reading
from stage3.data.importers.formats import COMIC
from stage3.data.importers.journal import Done, Journal
from stage3.data.importers.page import Page
from stage3.data.importers.pixels import decoded, mark_double_pages, size_of, suffix_of
from stage3.data.importers.recognize import Job, plan
from stage3.data.importers.summary import SourceReport, Summary
from stage3.data.importers.texts import LOCK, WORKERS, Readers, TextsRead, fill
from stage3.data.importers.texts import NONE as NO_TEXT
from stage3.data.importers.trees import SourceProblem
from stage3.data.readers.jsonfile import PageProblem
from stage3.data.readers.source import YAML_NAME
from stage3.errors import ConfigError, DataError, Interrupted
from stage3.small_files import read_yaml
from stage3.storage import (
    Lock,
    clear_scratch,
    file_sha256,
    make_folder,
    read_json,
    remove,
    replace_file,
    sha256,
    to_json,
)

T = TypeVar("T")
VERSION = 1  # of what becomes of a page; a change makes all pages anew
FIND, NONE = "find", "none"  # how panels come about on pages without; anything else names a learned detector
PARTS = ("panels", "texts")  # of annotations, that may be ignored
Tell = Callable[[str], None]


def _quiet(_: str) -> None:
    """Nobody listens."""


@dataclass
class Work:
    """One import.

    Attributes:
        out: the data set folder.
        journal: what is done.
        panels: how panels are found where a source has none.
        detector: the one of that name.
        options: what the user said of the sources.
        min_confidence: mean confidence below which a page stays one panel.
        ignore: which of `PARTS` are not used.
        new: ids of the pages that this import made.
        kept: how many were there already.
    """

    out: Path
    journal: Journal
    panels: str
    detector: Detector | None
    options: Options
    min_confidence: float
    ignore: tuple[str, ...] = ()
    new: list[str] = field(default_factory=list)
    kept: int = 0
    ids: dict[str, str] = field(default_factory=dict)  # of each image, by its key
    taken: dict[str, str] = field(default_factory=dict)  # key of the image, by key of the id
    owners: dict[str, str] = field(default_factory=dict)  # origin of each book
    ranks: dict[str, int] = field(default_factory=dict)  # of each origin
    folders: set[Path] = field(default_factory=set)

    def __post_init__(self) -> None:
        for done in self.journal.done.values():
            self.ranks.setdefault(done.origin, done.at[0])
            if os.path.lexists(done.origin):  # a source that was moved leaves its ids to the place where it is now
                self.ids[done.key] = done.id
                self.taken[naming.key_of(done.id)] = done.key
                self.owners[naming.key_of(done.book)] = done.origin

    def rank(self, origin: str) -> int:
        """The place of a source among all that were ever imported."""
        return self.ranks.setdefault(origin, max(self.ranks.values(), default=-1) + 1)

    def book(self, name: str, origin: str) -> str:
        """The name of a book; with a digest where another source has a book of that name."""
        plain = naming.safe_name(name)
        if self.owners.setdefault(naming.key_of(plain), origin) == origin:
            return plain
        other = f"{plain}~{sha256(origin.encode('utf-8', 'replace'))[:6]}"
        self.owners.setdefault(naming.key_of(other), origin)
        return other

    def folder_of(self, path: Path) -> None:
        """Make a file's folder, and remove what a killed import left in it."""
        if path.parent not in self.folders:
            make_folder(path.parent)
            clear_scratch(path.parent)
            self.folders.add(path.parent)


def import_comics(
    sources: Sequence[Path | str] | Path | str,
    out: Path | str,
    *,
    panels: str = FIND,
    format: str = "",
    images: Path | str | None = None,
    panel_classes: Sequence[str] = (),
    min_score: float = 0.5,
    min_confidence: float = WHOLE_PAGE,
    right_to_left: bool | None = None,
    box_size: tuple[int, int] | None = None,
    text: str = NO_TEXT,
    workers: int = WORKERS,
    ignore: Sequence[str] = (),
    sample: int = 0,
    tell: Tell = _quiet,
    stop: Stop | None = None,
) -> Summary:
    """Import comics, in whatever format they are, as a data set folder; see `docs/import.md`.

    The same call adds what is new, goes on where an earlier one was interrupted, and changes nothing else: panel files
    that were changed by hand stay.

    Args:
        sources: files and folders.
        out: the data set folder; new, or made by an earlier import.
        panels: "find", "none" (a page is one panel), or the folder or id of a learned detector; for pages whose source
            says nothing about panels.
        format: the format, where a source could be in several.
        images: folder or archive of the images, where they do not lie beside their annotations.
        panel_classes: names of the classes that are panels, of annotations or of a learned detector, where they
            are called neither panel nor frame.
        min_score: boxes with a lower score are left out, 0 to 1.
        min_confidence: pages on which panels were found with a lower page confidence (`detect.page_confidence`) stay
            one panel, 0 to 1.
        right_to_left: direction of reading; None leaves it to the source, and to left to right where it does not say.
        box_size: (width, height) of the images that boxes were made on, where the source does not say.
        text: "none", "ocr", or the folder or id of an image-to-text model; for panels whose source has no text (see
            `texts.read_texts`).
        workers: pages of which text is read side by side.
        ignore: "panels", "texts" or both: what annotations say of these is not used.
        sample: import about so many pages alone, spread over all sources, to look at; 0 imports all.
        tell: takes each line about what is recognized.
        stop: asked between pages whether to stop.

    Raises:
        ConfigError: an unknown format or detector, a number out of range, or the extra `ocr` is not installed.
        DataError: a source is missing, not recognized or in several formats, or nothing could be imported.
        Interrupted: `stop` asked for it; the same call goes on.
        StorageError: the folder cannot be written, or another import writes it.
    """
    given = [sources] if isinstance(sources, str | Path) else sources
    named = [Path(os.path.abspath(source)) for source in given]  # noqa: PTH100 - links stay as they are named
    options = Options(tuple(panel_classes), min_score, right_to_left, box_size)
    _check_numbers(options, min_confidence)
    for part in ignore:
        if part not in PARTS:
            raise ConfigError(f"ignore: {part!r} is not one of {', '.join(PARTS)}.{nearest(part, PARTS)}")
    detector = None if panels == NONE else load_detector(OWN if panels == FIND else panels, panel_classes)
    readers = None if text == NO_TEXT else Readers(text, workers)
    folder = Path(out)
    _check_folders(folder, named)
    reports = {str(source): SourceReport() for source in named}
    jobs = []
    for source, shown in zip(named, given, strict=True):
        report = reports[str(source)]
        found, unread = plan([source], report.note, wanted=format, images=None if images is None else Path(images))
        report.unread += [(u.code, u.detail) for u in unread]
        jobs += found
        for line in _recognized(str(shown), found):
            tell(line)
    quotas = sampled(jobs, sample) if sample else dict.fromkeys(range(len(jobs)), 0)
    fresh = not folder.is_dir() or not any(folder.iterdir())
    make_folder(folder)
    lock = Lock(folder / LOCK)
    lock.acquire()
    try:
        clear_scratch(folder)
        work = Work(folder, Journal(folder), panels, detector, options, min_confidence, tuple(ignore))
        with progress("importing pages", sum(most or jobs[at].pages for at, most in quotas.items())) as bar:
            for at, most in quotas.items():
                _job(work, jobs[at], reports[str(jobs[at].source)], bar.advance, stop or Stop(), most)
        read = None if readers is None else fill(folder, work.journal, readers, stop or Stop())
        summary = _finish(work, reports, read)
    finally:
        os.truncate(lock.path, 0)  # who held it is nobody's business any more, and equal imports give equal bytes
        lock.release()
    if not summary.pages:
        if fresh:
            remove(folder)
        raise DataError(summary.nothing())
    return summary


def sampled(jobs: Sequence[Job], pages: int) -> dict[int, int]:
    """How many pages to take of which source, by its place, so that about so many come from as many as possible."""
    places = [at for at, job in enumerate(jobs) if job.pages]
    chosen = evenly(places, pages)
    return {at: -(-pages // len(chosen)) for at in chosen}


def evenly(values: Sequence[T], most: int) -> list[T]:
    """So many of the values, each from the middle of its part of them: of a book's pages not the cover.

    Example:
        >>> evenly(range(20), 4), evenly("ab", 4)
        ([2, 7, 12, 17], ['a', 'b'])
    """
    n = min(most, len(values))
    return [values[(2 * i + 1) * len(values) // (2 * n)] for i in range(n)]


def _recognized(source: str, jobs: Sequence[Job]) -> list[str]:
    """What lies in a source, one line per format."""
    by_format: dict[str, list[Job]] = {}
    for job in jobs:
        by_format.setdefault(job.format.label, []).append(job)
    lines = []
    for label, some in by_format.items():
        pages = sum(job.pages for job in some)
        files = sum(len(job.files) for job in some)
        archives = sum(job.where.is_file() for job in some)
        parts = [(archives, "archive"), (files, "annotation file"), (pages, "image")]
        lines.append(f"{source}: {label}, {', '.join(counted(n, noun) for n, noun in parts if n)}")
    return lines


def _check_numbers(options: Options, min_confidence: float) -> None:
    for name, value in (("min_score", options.min_score), ("min_confidence", min_confidence)):
        if not 0 <= value <= 1:
            raise ConfigError(f"{name}: {value!r} is out of range: must be from 0 to 1")
    if options.box_size is not None and min(options.box_size) < 1:
        raise ConfigError(
            f"box_size: {options.box_size!r} is not valid: expected WIDTHxHEIGHT in pixels, such as 720x1024"
        )


def _check_folders(out: Path, sources: Sequence[Path]) -> None:
    """Refuse a folder that holds something else, or that lies where it would be imported itself."""
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file; name a folder for the data set")
    if out.is_dir() and any(out.iterdir()):
        yaml = out / YAML_NAME
        ours = (out / LOCK).is_file() or (yaml.is_file() and read_yaml(yaml).get("made_by") == MADE_BY)
        if not ours:
            raise DataError(f"{out}: holds files that no import made. Name a new folder, or that of an earlier import.")
    for source in sources:
        if not str(source).isprintable():
            raise DataError(f"{str(source)!r}: its name has characters that a manifest cannot hold: rename it")
        if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
            raise DataError(
                f"{out}: lies in {source}, which is imported. Name a folder outside, such as {source}-data."
            )


def _job(work: Work, job: Job, report: SourceReport, advance: Callable[[int], None], stop: Stop, most: int = 0) -> None:
    """Import one source, or at most so many of its pages; what cannot be read is named, and others go on."""
    advanced = 0
    try:
        with ExitStack() as stack:
            reading = stack.enter_context(job.opened(report.note, work.options))
            pages = _pages(reading, job)
            for page in pages:
                _ignore(page, work.ignore)
            pages = evenly(pages, most) if most else pages
            rank = work.rank(str(job.where))
            for index, page in enumerate(pages):
                if stop():
                    raise Interrupted(f"stopped after {counted(len(work.new), 'new page')}; the same command goes on")
                _page(work, page, str(job.where), (rank, index))
                advance(1)
                advanced += 1
    except SourceProblem as problem:
        report.unread.append((problem.code, problem.detail))
    advance(max((most or job.pages) - advanced, 0))


def _ignore(page: Page, parts: Sequence[str]) -> None:
    """Forget what a page's annotation says of panels or of texts."""
    if "panels" in parts:
        page.panels = None
    if "texts" in parts:
        page.texts = []
        for panel in page.panels or []:
            panel.text = ""


def _pages(reading: Reading, job: Job) -> list[Page]:
    """The pages of a source, with what ComicInfo files and the user say of them."""
    metadata = {tree.where: Metadata(tree, reading.note) for tree in reading.image_trees}
    pages = []
    listed = set()
    for page in job.format.read(reading):
        listed.add(page.image.key)
        info = metadata.get(page.image.tree.where)
        if info is not None and not info.add_to(page):
            reading.note("page_deleted", page.image.shown)
            continue
        page.format = job.format.name
        if reading.options.right_to_left is not None:
            page.right_to_left = reading.options.right_to_left
        pages.append(page)
    if job.format is not COMIC:
        for image in reading.images.all:
            if image.key not in listed:
                reading.note("image_unlisted", image.shown)
    mark_double_pages(pages)
    return pages


def _page(work: Work, page: Page, origin: str, at: tuple[int, int]) -> None:
    """Import one page, unless it is there already as it would be made."""
    key = page.image.key
    book = work.book(page.book, origin)
    page_id = work.ids.get(key) or naming.page_id(book, page.name, key, work.taken)
    work.ids[key] = page_id
    settings = [work.panels, work.min_confidence] if page.panels is None else []
    stamp = sha256(repr((VERSION, page, book, settings, page.image.tree.stamp(page.image.member))).encode())[:32]
    old = work.journal.done.get(page_id)
    if old is not None and old.stamp == stamp and _intact(work.out, old):
        old.at = at
        work.kept += 1
        return
    done = Done(page_id, origin, str(page.image.tree.where), page.image.member, at, stamp, book)
    done.label, done.known_type = page.label or "story", bool(page.label)
    done.format = page.format
    if old is not None and _changed_by_hand(work.out, old):
        work.journal.add(replace(old, stamp=stamp, at=at, notes=[*old.notes, ("changed_by_hand", page_id)]))
        work.kept += 1
        return
    try:
        if page.problem is not None:
            raise PageProblem(*page.problem)
        _make(work, page, done)
    except (PageProblem, SourceProblem) as problem:
        done.problem = (problem.code, problem.detail)
    except ImageProblem as problem:
        done.problem = (f"image:{problem.code}", f"{page.image.shown}: {problem.detail}")
    if old is not None and (old.stamp, old.problem) == (stamp, done.problem) and done.problem is not None:
        old.at = at  # left out as before; it was tried again, since a disk may have failed
        work.kept += 1
        return
    work.journal.add(done)
    work.new.append(page_id)


def _make(work: Work, page: Page, done: Done) -> None:
    """Write a page's image, if it has to be extracted, and its panel file."""
    path = page.image.tree.file(page.image.member)
    data = page.image.tree.read(page.image.member) if path is None else None
    wanted = page.panels is None and work.detector is not None
    image = decoded(page.image, data) if wanted or data is not None else None
    size = image.size if image is not None else size_of(page.image)
    made = assemble(
        page,
        image,
        size,
        work.detector,
        lambda code, detail: done.notes.append((code, detail)),
        min_confidence=work.min_confidence,
    )
    if image is not None and image.info.get("animated"):
        done.notes.append(("image:first_frame", page.image.shown))
    extracted = 0
    if path is None:
        assert data is not None
        done.image = f"images/{done.id}{suffix_of(data)}"
        work.folder_of(work.out / done.image)
        replace_file(work.out / done.image, data, durable=False)
        extracted = len(data)
    else:
        done.image = os.path.abspath(path)  # noqa: PTH100 - resolve() would follow links, which the user may have meant
    _write(work, made, done, extracted)


def _write(work: Work, made: Assembled, done: Done, extracted: int) -> None:
    content = {"canonical_id": done.id, **made.content}
    data = (to_json(content) + "\n").encode()
    target = _panel_file(work.out, done)
    work.folder_of(target)
    replace_file(target, data, durable=False)
    done.panels, done.how, done.certain = len(made.content["panels"]), made.how, made.certain
    done.right_to_left = made.content["right_to_left"]
    done.file, done.sizes = sha256(data), (len(data), extracted)


def _panel_file(out: Path, done: Done) -> Path:
    return out / "panels" / f"{done.id}.json"


def _intact(out: Path, done: Done) -> bool:
    """Whether what was written for a page is still there; a panel file that was changed by hand counts as there."""
    if done.problem is not None:
        return False
    try:
        complete = _panel_file(out, done).stat().st_size > 0
        return complete and (not done.sizes[1] or (out / done.image).stat().st_size == done.sizes[1])
    except OSError:
        return False


def _changed_by_hand(out: Path, done: Done) -> bool:
    """Whether somebody edited a page's panel file: it is another one than was written, and still one."""
    path = _panel_file(out, done)
    if done.problem is not None or not path.is_file() or file_sha256(path) == done.file:
        return False
    try:
        return "panels" in read_json(path)
    except OSError:  # also StorageError: damaged, so made again
        return False


def _finish(work: Work, reports: dict[str, SourceReport], read: TextsRead | None) -> Summary:
    """Write the parts that name all pages, where there are any, and sum up."""
    pages = work.journal.settle() if work.journal.done else []
    summary = Summary(work.out, pages, len(work.new), work.kept, reports, read)
    if summary.pages:
        write_dataset(work.out, pages, summary)
    return summary
