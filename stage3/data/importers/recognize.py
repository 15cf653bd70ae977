"""What lies in the sources: which format each is in, or why it is in none."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from stage3.cli import counted
from stage3.config import nearest
from stage3.data.images import ImageProblem, open_regular
from stage3.data.importers.format import Format, Options, Reading
from stage3.data.importers.formats import BY_NAME, COMIC, FORMATS
from stage3.data.importers.sight import Sight, look
from stage3.data.importers.trees import ARCHIVES, HEAD, Archive, Folder, SourceProblem, Tree, has_image_name, leaf, stem
from stage3.data.readers.jsonfile import Note
from stage3.data.readers.names import EXTENSIONS
from stage3.data.readers.source import YAML_NAME
from stage3.errors import ConfigError, DataError

ANNOTATIONS = (".json", ".xml", ".yaml", ".yml", ".mokuro", ".acbf")
LISTS = ("classes.txt", "obj.names")
MOST_NAMED = 12  # files in a message
CONVERT = {
    ".pdf": "PDF is not read. Make images of its pages: pdftoppm -r 150 -jpeg {file} {folder}/page (poppler-utils)",
    ".cbr": "CBR (RAR) is not read. Unpack it: unar {file}, or 7z x {file} -o{folder}",
    ".cb7": "CB7 (7-Zip) is not read. Unpack it: 7z x {file} -o{folder}",
    ".cbt": "CBT (tar) is not read. Unpack it with a program that checks names, such as 7z x {file} -o{folder}",
    ".epub": "EPUB is not read. Convert it: ebook-convert {file} {folder}.cbz (Calibre)",
}
ALIASES = {".rar": ".cbr", ".7z": ".cb7", ".tar": ".cbt"}
PACKED = (".cbr", ".cb7", ".cbt")  # what is in them, their first bytes say: many are ZIP archives by another name
BY_CONTENT = {"rar": ".cbr", "7z": ".cb7", "pdf": ".pdf", "tar": ".cbt"}


@dataclass(frozen=True)
class Unread:
    """A file or source that is not imported, with the code it is counted under and the reason."""

    code: str
    detail: str


@dataclass(frozen=True)
class Job:
    """One source in the format that it is in.

    Attributes:
        source: what the user named.
        where: the folder or archive of the annotations, or of the images where there are none.
        format: which format it is.
        files: annotation files, by their names in `where`.
        images: folders and archives of the images.
        only: of a folder, the single file that counts; "" for all.
        pages: how many images there are, at most so many pages.
    """

    source: Path
    where: Path
    format: Format
    files: tuple[str, ...]
    images: tuple[Path, ...]
    only: str = ""
    pages: int = 0

    @contextmanager
    def opened(self, note: Note, options: Options) -> Iterator[Reading]:
        """The source, open for reading.

        Raises:
            SourceProblem: an archive cannot be read.
        """
        with ExitStack() as stack:
            trees = {path: stack.enter_context(_opened(path, note, self.only)) for path in {self.where, *self.images}}
            yield Reading(trees[self.where], self.files, tuple(trees[p] for p in self.images), note, options)


@contextmanager
def _opened(path: Path, note: Note, only: str = "") -> Iterator[Tree]:
    if path.is_dir():
        yield Folder(path, note, only=only)
        return
    archive = Archive(path, note)
    try:
        yield archive
    finally:
        archive.close()


def plan(
    sources: Sequence[Path], note: Note, *, wanted: str = "", images: Path | None = None
) -> tuple[list[Job], list[Unread]]:
    """What to import, and what cannot be.

    Args:
        sources: files and folders that the user named.
        note: counts an oddity of a source.
        wanted: name of a format, where the user chose one.
        images: where the images of the annotations lie, if not beside them.

    Raises:
        ConfigError: an unknown format.
        DataError: a source does not exist, or is in no known format or in several; the message lists what was seen.
    """
    if wanted and wanted not in BY_NAME:
        raise ConfigError(f"format: {wanted!r} is not one of {', '.join(BY_NAME)}.{nearest(wanted, BY_NAME)}")
    jobs: list[Job] = []
    unread: list[Unread] = []
    for source in sources:
        if source.is_dir():
            made, not_read = _folder(source, note, wanted, images)
        elif source.is_file():
            made, not_read = _file(source, note, wanted, images)
        else:
            raise DataError(f"{source}: no such file or folder")
        jobs += made
        unread += not_read
    return jobs, unread


# --- one source


def _file(source: Path, note: Note, wanted: str, images: Path | None) -> tuple[list[Job], list[Unread]]:
    sight = look(source.name, _head(source))
    if _ending(source.name) in (*ARCHIVES, *PACKED):
        return _archive(source, source, note, wanted, images)
    if advice := _convert(source, sight):
        return [], [Unread("format_not_read", f"{source}: {advice}")]
    if sight.kind == "zip":
        return _archive(source, source, note, wanted, images)
    folder = source.parent
    if has_image_name(source.name):
        return [Job(source, folder, COMIC, (), (folder,), only=source.name, pages=1)], []
    found = _claims([sight])
    if not found:
        raise DataError(_nothing(source, [sight]))
    beside = [folder / f"{source.stem}{end}" for end in ARCHIVES if (folder / f"{source.stem}{end}").is_file()]
    where = (images,) if images is not None else (folder, *beside)
    return [Job(source, folder, _chosen(found, source, wanted), (source.name,), where, pages=_count(where, note))], []


def _head(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read(HEAD)
    except (ImageProblem, OSError) as error:
        raise DataError(str(error)) from None


def _folder(source: Path, note: Note, wanted: str, images: Path | None) -> tuple[list[Job], list[Unread]]:
    if (source / YAML_NAME).is_file():
        raise DataError(f"{source}: is a data set already: train on it with --data {source}, or import its sources.")
    tree = Folder(source, note)
    sights = _sights(tree)
    archives = [name for name in tree.names if _ending(name) in (*ARCHIVES, *PACKED)]
    others = [name for name in tree.names if _ending(name) in (".pdf", ".epub")]
    advice = [(name, _convert(source / name, look(name, tree.head(name)))) for name in others]
    unread = [Unread("format_not_read", f"{source / name}: {what}") for name, what in advice if what]
    found = _claims(sights)
    jobs: list[Job] = []
    format = _chosen(found, source, wanted)
    if format is not COMIC:
        stems = {stem(name).casefold() for name in found[format]}
        beside = [name for name in archives if stem(name).casefold() in stems]
        where = (images,) if images is not None else (source, *(source / name for name in beside))
        archives = [name for name in archives if name not in beside]
        jobs.append(Job(source, source, format, tuple(found[format]), where, pages=_count(where, note)))
    elif pages := sum(map(has_image_name, tree.names)):
        jobs.append(Job(source, source, COMIC, (), (source,), pages=pages))
    unread += [Unread("file_unrecognized", f"{source / s.name}: {_why(s)}") for s in _rest(sights, found)]
    for name in archives:
        try:
            made, not_read = _archive(source, source / name, note, "", None)
        except DataError as error:  # one archive of many: named, and the others are imported
            made, not_read = [], [Unread("archive_unrecognized", str(error))]
        jobs += made
        unread += not_read
    if not jobs and not unread:
        raise DataError(_nothing(source, sights))
    return jobs, unread


def _archive(source: Path, path: Path, note: Note, wanted: str, images: Path | None) -> tuple[list[Job], list[Unread]]:
    sight = look(path.name, _head(path))
    if sight.kind != "zip":
        advice = _convert(path, sight) or f"no ZIP archive, although its name says so: {sight.described()}"
        return [], [
            Unread("archive_damaged" if sight.kind not in BY_CONTENT else "format_not_read", f"{path}: {advice}")
        ]
    try:
        with _opened(path, _unheard) as tree:
            sights = _sights(tree)
            pages = sum(map(has_image_name, tree.names))
            found = _claims(sights)
    except SourceProblem as problem:
        return [], [Unread(problem.code, problem.detail)]
    if not found and not pages:
        raise DataError(_nothing(path, sights))
    format = _chosen(found, path, wanted)
    where = (images,) if images is not None else (path,)
    unread = [Unread("file_unrecognized", f"{path}: {s.name}: {_why(s)}") for s in _rest(sights, found)]
    return [Job(source, path, format, tuple(found.get(format, ())), where, pages=pages)], unread


def _unheard(code: str, detail: str) -> None:
    """What is odd about an archive is counted when it is read."""


def _count(where: Sequence[Path], note: Note) -> int:
    """How many images there are; an archive that cannot be read has none, and says so when its turn comes."""
    total = 0
    for path in where:
        try:
            with _opened(path, _unheard) as tree:
                total += sum(map(has_image_name, tree.names))
        except SourceProblem as problem:
            note(problem.code, problem.detail)
    return total


# --- recognizing files


def _sights(tree: Tree) -> list[Sight]:
    names = [n for n in tree.names if n.lower().endswith(ANNOTATIONS) or leaf(n).lower() in LISTS]
    return [look(n, tree.head(n)) for n in names if leaf(n).lower() != "comicinfo.xml"]


def _claims(sights: Sequence[Sight]) -> dict[Format, list[str]]:
    """Which files each format claims."""
    found = {format: [sight.name for sight in sights if format.claims(sight)] for format in FORMATS}
    return {format: names for format, names in found.items() if names}


def _chosen(found: dict[Format, list[str]], where: Path, wanted: str) -> Format:
    """The only format of a source, or the one that the user chose; images alone are comics.

    Raises:
        DataError: there are several, or not the one that was chosen; the message names all with their files.
    """
    seen = "; ".join(f"{f.label} ({_listed(names)})" for f, names in found.items())
    if wanted:
        format = BY_NAME[wanted]
        if format is not COMIC and format not in found:
            raise DataError(
                f"{where}: no file looks like {format.label}: {format.looks_like}. Found: {seen or 'none'}."
            )
        return format
    if len(found) > 1:
        ways = " or ".join(f"--format {f.name}" for f in found)
        raise DataError(f"{where}: files of {counted(len(found), 'format')}: {seen}. Choose one with {ways}.")
    return next(iter(found), COMIC)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _rest(sights: Sequence[Sight], found: dict[Format, list[str]]) -> list[Sight]:
    """Files that look like annotations and that nothing reads; what other tools keep beside theirs is passed by."""
    claimed = {name for names in found.values() for name in names}
    cache = [s for s in sights if s.has("blocks", "img_width")]  # of mokuro, one per page
    quiet = {s.name for s in cache} | {s.name for s in sights if s.kind in ("yaml", "other", "empty")}
    return [s for s in sights if s.name not in claimed and s.name not in quiet]


def _why(sight: Sight) -> str:
    """Why a file is not imported."""
    if sight.has("panels[].bbox") or sight.has("panels[].box_2d") or sight.has("[].canonical_id"):
        return "a panel file of Stage 3's own format: name it in a dataset.yaml instead (docs/formats.md)"
    if sight.has("[].image_id", "[].category_id"):
        return "COCO predictions without categories: put them into an object with images, annotations and categories"
    if sight.has("blocks", "img_width"):
        return "a page of mokuro's cache: import the .mokuro file"
    return f"{sight.described()}: no known format"


def _ending(name: str) -> str:
    end = f".{name.rpartition('.')[2].lower()}"
    return ALIASES.get(end, end)


def _convert(path: Path, sight: Sight) -> str:
    """How to convert a file of a kind that is not read, "" for other kinds; what it is, its first bytes say."""
    end = BY_CONTENT.get(sight.kind, "")
    if not end and (sight.kind != "zip" or _ending(path.name) == ".epub") and sight.kind not in ("json", "xml"):
        end = _ending(path.name)
    advice = CONVERT.get(end, "")
    return f"{advice.format(file=shlex.quote(path.name), folder=shlex.quote(path.stem))}." if advice else ""


def _nothing(where: Path, sights: Sequence[Sight]) -> str:
    seen = [f"  {s.name}: {_why(s)}" for s in sights[:MOST_NAMED]]
    if len(sights) > MOST_NAMED:
        seen.append(f"  and {len(sights) - MOST_NAMED:,} more")
    known = [f"  {format.label}: {format.looks_like}" for format in FORMATS]
    images = ", ".join(EXTENSIONS)
    head = "nothing to import was recognized" + (
        ". Looked at:" if seen else f": no image ({images}), no annotation file."
    )
    return "\n".join([f"{where}: {head}", *seen, "Known:", *known])
