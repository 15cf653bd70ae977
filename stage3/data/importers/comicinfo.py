"""ComicInfo.xml, which readers of comics write into archives: page types, direction, series, double pages.

`Image` counts the images of the archive from 0, in the order in which they are stored, which need not be the order of
their names; of a folder it counts in natural order. The standard knows no panels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from xml.etree.ElementTree import Element

from stage3.data.importers import documents
from stage3.data.importers.geometry import whole_number
from stage3.data.importers.page import Page
from stage3.data.importers.trees import SourceProblem, Tree, has_image_name, leaf, parent
from stage3.data.readers.jsonfile import Note

NAME = "comicinfo.xml"
DELETED = "deleted"
LABELS = {  # page types of the standard, in the words of the labels file
    "frontcover": "cover",
    "innercover": "cover",
    "roundup": "text",
    "story": "story",
    "advertisement": "advertisement",
    "editorial": "text",
    "letters": "text",
    "preview": "advertisement",
    "backcover": "back_cover",
    "other": "art",
}


@dataclass(frozen=True)
class ComicInfo:
    """What one file says.

    Attributes:
        right_to_left: direction, None where it is not said.
        series: series and number.
        language: ISO code.
        labels: page type by image; `DELETED` for pages that are left out.
        double: whether the image shows two pages, by image.
    """

    right_to_left: bool | None = None
    series: str = ""
    language: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    double: dict[str, bool] = field(default_factory=dict)


class Metadata:
    """The ComicInfo files of a tree, each for the images of its folder, or of the whole archive."""

    def __init__(self, tree: Tree, note: Note) -> None:
        self._infos: dict[str, ComicInfo] = {}
        self._everywhere: ComicInfo | None = None
        for name in tree.names:
            if leaf(name).lower() != NAME:
                continue
            info = read(tree, name, note)
            if tree.file(name) is None and self._everywhere is None:
                self._everywhere = info
            else:
                self._infos[parent(name)] = info

    def add_to(self, page: Page) -> bool:
        """Complete a page with what its format did not say; False where the page is marked as deleted."""
        member = page.image.member
        info = self._infos.get(parent(member)) or self._everywhere
        if info is None:
            return True
        label = info.labels.get(member, "")
        if label == DELETED:
            return False
        page.label = page.label or label
        page.series = page.series or info.series
        page.language = page.language or info.language
        if page.right_to_left is None:
            page.right_to_left = info.right_to_left
        if page.double is None:
            page.double = info.double.get(member)
        return True


def read(tree: Tree, name: str, note: Note) -> ComicInfo:
    """One ComicInfo.xml; a damaged one is counted, and says nothing."""
    try:
        root = documents.read_xml(tree, name, documents.MAX_SETTINGS)
    except SourceProblem as problem:
        note("comicinfo_unread", problem.detail)
        return ComicInfo()
    if root.tag != "ComicInfo":
        note("comicinfo_unread", f"{tree.show(name)}: XML of <{root.tag}>, expected <ComicInfo>")
        return ComicInfo()
    manga = (root.findtext("Manga") or "").strip().casefold()
    direction = True if manga == "yesandrighttoleft" else False if manga == "no" else None
    series = " ".join(filter(None, ((root.findtext(key) or "").strip() for key in ("Series", "Number"))))
    here = parent(name)
    images = [n for n in tree.in_archive_order() if has_image_name(n)]
    if tree.file(name) is not None:  # a folder: its own images alone
        images = [n for n in images if parent(n) == here]
    labels, double = _pages(root, images, tree.show(name), note)
    return ComicInfo(direction, series, (root.findtext("LanguageISO") or "").strip(), labels, double)


def _pages(root: Element, images: list[str], where: str, note: Note) -> tuple[dict[str, str], dict[str, bool]]:
    listed = root.findall("Pages/Page")
    labels = dict.fromkeys(images, "story") if listed else {}  # the type that the standard gives a page without one
    double: dict[str, bool] = {}
    for page in listed:
        at = whole_number(page.get("Image", ""))
        if at is None or at >= len(images):
            note("comicinfo_index", f"{where}: Image={page.get('Image', '')[:20]!r}, of {len(images)} images")
            continue
        image = images[at]
        types = page.get("Type", "Story").casefold().split()
        unknown = [t for t in types if t not in LABELS and t != DELETED]
        if unknown:
            note("comicinfo_type", f"{where}: Type={' '.join(unknown)[:60]!r}")
        known = [LABELS[t] for t in types if t in LABELS]
        labels[image] = DELETED if DELETED in types else (known or ["story"])[0]
        if (flag := page.get("DoublePage", "").casefold()) in ("true", "1", "false", "0"):
            double[image] = flag in ("true", "1")
    return labels, double
