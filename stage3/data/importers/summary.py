"""What an import made, left out and was unsure of: for people, and as a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stage3.cli import counted
from stage3.data.importers.dataset import REPORT
from stage3.data.importers.journal import Done, counts
from stage3.errors import StorageError
from stage3.storage import read_json

if TYPE_CHECKING:
    from stage3.data.importers.texts import TextsRead

MAX_EXAMPLES = 20  # of each code, in the file
SHOWN = 3  # of each code, for people
CODES = {
    "annotation_without_image": "annotations of images that the file does not list",
    "archive_damaged": "archives that cannot be read",
    "archive_entries": "archives of more than 10,000 entries",
    "archive_entry_damaged": "members of archives that cannot be unpacked",
    "archive_entry_size": "members of archives over 256 MB",
    "archive_link": "links in archives: never followed",
    "archive_name": "members of archives with unsafe names: not used",
    "archive_nested": "archives in archives: unpack them first",
    "archive_overlap": "archives whose entries overlap",
    "archive_password": "members of archives with a password",
    "archive_ratio": "members of archives that grow more than a hundredfold",
    "archive_size": "archives of more than 4 GB unpacked",
    "archive_twice": "names that occur twice in an archive: the first counts",
    "archive_unrecognized": "archives in which nothing is known",
    "box_invalid": "boxes that hold nothing of their page: not used",
    "box_unit": "boxes in pixels of other images",
    "changed_by_hand": "panel files that were changed by hand: kept, although their source has changed",
    "class_unknown": "boxes of a class without a name",
    "comicinfo_index": "pages in ComicInfo.xml that the archive does not have",
    "comicinfo_type": "page types that the ComicInfo standard does not have",
    "comicinfo_unread": "ComicInfo.xml files that cannot be read: page types and direction are missing",
    "file_name": "files whose names hold characters that cannot be printed",
    "file_unreadable": "files that cannot be opened",
    "file_unrecognized": "files that look like annotations, in no known format",
    "format_not_read": "files of other kinds",
    "image_not_found": "pages whose image is not there, or that several images fit: name the folder with --images",
    "image_unlisted": "images that no annotation names: import them by themselves",
    "image:first_frame": "animations: the first frame is used",
    "kumiko_nothing_found": "pages on which Kumiko found nothing: not labeled",
    "older_annotations": "older annotations of Manga109: not used",
    "page_deleted": "pages that ComicInfo.xml marks as deleted: left out",
    "page_shape_differs": "pages of another shape than their annotations were made for",
    "page_turned": "pages that were turned by a quarter after they were annotated",
    "page_twice": "images that several annotations name: the first counts",
    "prediction_used": "tasks that nobody annotated: the prediction is used",
    "score_low": "boxes with a score below --min_score: not used",
    "several_annotations": "tasks with several annotations: the ground truth, or the newest, counts",
    "shape_ignored": "shapes that are no boxes or polygons",
    "text_in_no_panel": "texts that lie in no panel: kept with the page",
    "xml_dtd": "XML with a DTD or entities: refused",
    "yolo_line": "label files with lines that are no box",
    "yolo_unit": "label files whose coordinates are no shares of the page",
}


@dataclass
class SourceReport:
    """What is to be said of one source, beside its pages.

    Attributes:
        counts: how often each oddity was met.
        examples: the first of each.
        unread: (code, detail) of every file or archive that is not imported.
    """

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    unread: list[tuple[str, str]] = field(default_factory=list)

    def note(self, code: str, detail: str) -> None:
        """Count an oddity."""
        self.counts[code] += 1
        seen = self.examples.setdefault(code, [])
        if len(seen) < MAX_EXAMPLES:
            seen.append(detail)

    def to_dict(self) -> dict[str, Any]:
        """As the report file has it."""
        return {"counts": dict(sorted(self.counts.items())), "examples": self.examples, "not_read": self.unread}


@dataclass
class Summary:
    """An import that has ended.

    Attributes:
        out: the data set folder.
        done: all pages that were ever dealt with, in the order of the manifest.
        new: how many of them this import dealt with.
        kept: how many it met that were there already.
        sources: what is to be said of each source that this import read, by its path.
        texts: what there is of text, None where none was read.
    """

    out: Path
    done: Sequence[Done]
    new: int
    kept: int
    sources: dict[str, SourceReport]
    texts: TextsRead | None = None

    @property
    def pages(self) -> list[Done]:
        """The pages of the data set."""
        return [done for done in self.done if done.problem is None]

    @property
    def panels(self) -> int:
        """How many panels they have."""
        return sum(done.panels for done in self.pages)

    @property
    def left_out(self) -> Counter[str]:
        """How many pages were left out, by code."""
        return Counter(done.problem[0] for done in self.done if done.problem is not None)

    def to_dict(self) -> dict[str, Any]:
        """The report file: all that was ever imported into the folder, and nothing about when."""
        pages = self.pages
        return {
            "pages": len(pages),
            "panels": self.panels,
            "books": len({done.book for done in pages}),
            "formats": counts(pages, "format"),
            "panels_from": counts(pages, "how"),
            "page_types": counts(pages, "label"),
            "page_types_given": sum(done.known_type for done in pages),
            "right_to_left": sum(done.right_to_left for done in pages),
            "order_uncertain": sum(not done.certain for done in pages),
            "left_out": _grouped([done.problem for done in self.done if done.problem is not None]),
            **({} if self.texts is None else {"texts": self.texts.to_dict()}),
            "notes": _grouped([note for done in self.done for note in done.notes]),
            "sources": {**self._earlier(), **{name: report.to_dict() for name, report in self.sources.items()}},
        }

    def _earlier(self) -> dict[str, Any]:
        """What the report file says of sources that this import did not read."""
        path = self.out / REPORT
        try:
            found = read_json(path).get("sources", {}) if path.is_file() else {}
        except StorageError:  # damaged: written anew
            return {}
        return found if isinstance(found, dict) else {}

    def nothing(self) -> str:
        """Why no page could be imported."""
        reasons = [detail for report in self.sources.values() for _, detail in report.unread]
        reasons += [f"{code}: {detail}" for code, detail in (d.problem for d in self.done if d.problem is not None)]
        for report in self.sources.values():
            reasons += [f"{CODES.get(code, code)}: {report.examples[code][0]}" for code in report.counts]
        more = [f"and {len(reasons) - 10:,} more"] if len(reasons) > 10 else []
        return "\n".join([f"{self.out}: no page could be imported:", *(f"  {r}" for r in [*reasons[:10], *more])])

    def lines(self) -> list[str]:
        """The summary for people."""
        pages = self.pages
        books = len({done.book for done in pages})
        total = f"{counted(len(pages), 'page')} of {counted(books, 'book')}, {counted(self.panels, 'panel')}"
        lines = [f"{self.out}: {total} ({self.new:,} new, {self.kept:,} there already)."]
        lines += self._panel_lines(pages)
        lines += self._order_lines(pages)
        lines += [] if self.texts is None else self.texts.lines()
        given = sum(done.known_type for done in pages)
        if given:
            types = ", ".join(f"{name} {n:,}" for name, n in counts(pages, "label").items())
            rest = len(pages) - given
            others = f" No type is known of {counted(rest, 'page')}, which count as story." if rest else ""
            lines.append(f"Page types: {types}.{others}")
        return [*lines, *self._problems()]

    def _panel_lines(self, pages: Sequence[Done]) -> list[str]:
        how = Counter(done.how for done in pages)
        panels = Counter({kind: sum(d.panels for d in pages if d.how == kind) for kind in how})
        parts = []
        if how["source"]:
            parts.append(f"given by the sources on {counted(how['source'], 'page')} ({panels['source']:,})")
        if how["found"]:
            parts.append(f"found on {counted(how['found'], 'page')} ({panels['found']:,})")
        if how["none"]:
            parts.append(f"not looked for on {counted(how['none'], 'page')} (one panel each)")
        lines = [f"Panels: {'; '.join(parts)}."] if parts else []
        if how["whole"]:
            lines.append(
                f"{counted(how['whole'], 'page')} where panels were not found with enough confidence: each stays one "
                "panel (--min_confidence)."
            )
        return lines

    def _order_lines(self, pages: Sequence[Done]) -> list[str]:
        rtl = sum(done.right_to_left for done in pages)
        if rtl == len(pages):
            line = "Reading order: right to left."
        elif rtl:
            line = f"Reading order: right to left on {counted(rtl, 'page')}, left to right on {len(pages) - rtl:,}."
        else:
            line = "Reading order: left to right (--right_to_left for manga)."
        unsure = [done.id for done in pages if not done.certain]
        if unsure:
            line += f" Uncertain on {counted(len(unsure), 'page')}, first {unsure[0]}."
        return [line]

    def _problems(self) -> list[str]:
        """What was left out or is odd, with the first of each."""
        lines: list[str] = []
        left_out = _grouped([done.problem for done in self.done if done.problem is not None])
        lines += _listed("Pages left out:", {code: (e["count"], e["first"]) for code, e in left_out.items()})
        unread: dict[str, list[str]] = {}
        odd: dict[str, tuple[int, list[str]]] = {}
        for report in self.sources.values():
            for code, detail in report.unread:
                unread.setdefault(code, []).append(detail)
            for code, n in report.counts.items():
                before = odd.get(code, (0, []))
                odd[code] = (before[0] + n, [*before[1], *report.examples[code]])
        for code, entry in _grouped([note for done in self.done for note in done.notes]).items():
            before = odd.get(code, (0, []))
            odd[code] = (before[0] + entry["count"], [*before[1], *entry["first"]])
        lines += _listed("Not imported:", {code: (len(found), found) for code, found in unread.items()})
        return [*lines, *_listed("Noted:", odd)]


def _grouped(found: Sequence[tuple[str, str]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for code, detail in found:
        entry = made.setdefault(code, {"count": 0, "first": []})
        entry["count"] += 1
        if len(entry["first"]) < MAX_EXAMPLES:
            entry["first"].append(detail)
    return dict(sorted(made.items()))


def _listed(title: str, found: dict[str, tuple[int, list[str]]]) -> list[str]:
    if not found:
        return []
    digits = max(len(f"{n:,}") for n, _ in found.values())
    lines = [title]
    for code, (n, examples) in sorted(found.items(), key=lambda item: (-item[1][0], item[0])):
        lines.append(f"  {n:>{digits},}  {CODES.get(code, code.replace('_', ' '))}")
        lines += [f"{' ' * (digits + 4)}{text[:200]}" for text in examples[:SHOWN]]
        if n > SHOWN:
            lines.append(f"{' ' * (digits + 4)}and {n - SHOWN:,} more")
    return lines
