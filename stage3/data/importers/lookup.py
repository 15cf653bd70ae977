"""Finding the image that an annotation names, wherever it lies below the source."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from urllib.parse import parse_qs, unquote, urlsplit

from stage3.data.importers.trees import ImageRef, Tree, has_image_name, leaf, natural, parent
from stage3.data.readers.books import UNNAMED, guessed_books
from stage3.data.readers.names import stem_key

GENERIC = frozenset(
    (
        *("image", "images", "img", "imgs", "jpegimages", "picture", "pictures", "pages", "scans", "data", "dataset"),
        *("train", "training", "val", "valid", "validation", "test", "testing", "default", "obj_train_data", "upload"),
        "media",
    )
)


class Images:
    """The images of one or more trees, by name."""

    def __init__(self, trees: Sequence[Tree]) -> None:
        self.all = tuple(ImageRef(tree, name) for tree in trees for name in tree.names if has_image_name(name))
        self._by_leaf: dict[str, list[ImageRef]] = defaultdict(list)
        self._by_stem: dict[str, list[ImageRef]] = defaultdict(list)
        for image in self.all:
            self._by_leaf[leaf(image.member).casefold()].append(image)
            self._by_stem[stem_key(leaf(image.member)).casefold()].append(image)

    def find(self, written: str, within: Iterable[str] = ()) -> ImageRef | None:
        """The image that a name means; None when there is none, or more than one fits equally well.

        Among images of that file name (else of that name with another extension), the one at exactly this path, else
        the one whose path agrees with the written one in most parts from the end; among several, the one that lies in a
        folder or archive called `within`.

        Args:
            written: a path or address, of any machine.
            within: names of folders or archives to prefer, such as the book's title.
        """
        hints = {hint.casefold() for hint in within if hint}
        for name in spellings(written.casefold()):
            candidates = self._by_leaf.get(leaf(name)) or self._by_stem.get(stem_key(leaf(name)), [])
            best = [image for image in candidates if image.member.casefold() == name]
            best = best or _most(candidates, partial(_agreement, written=name))
            best = _most(best, lambda image: len(hints & _surroundings(image)))
            if len(best) == 1:
                return best[0]
        return None


def _most(candidates: Sequence[ImageRef], score: Callable[[ImageRef], int]) -> list[ImageRef]:
    """The candidates with the highest score."""
    scores = [score(image) for image in candidates]
    return [image for image, s in zip(candidates, scores, strict=True) if s == max(scores)]


def _agreement(image: ImageRef, written: str) -> int:
    """How many folders two paths share, counted from the end."""
    ours, theirs = image.member.casefold().split("/")[-2::-1], written.split("/")[-2::-1]
    count = 0
    for a, b in zip(ours, theirs, strict=False):
        if a != b:
            break
        count += 1
    return count


def _surroundings(image: ImageRef) -> set[str]:
    return {image.tree.name.casefold(), *parent(image.member).casefold().split("/")}


_UPLOAD = re.compile(r"[0-9a-f]{8}-(?=.)")


def spellings(written: str) -> list[str]:
    """A written path with forward slashes, then as annotation tools mean it.

    Example:
        >>> spellings("/data/local-files/?d=book%201/p1.jpg")[-1], spellings("/data/upload/3/0a1b2c3d-p1.jpg")[-1]
        ('book 1/p1.jpg', '/data/upload/3/p1.jpg')
    """
    plain = written.strip().replace("\\", "/")
    made = [plain]
    if "?" in plain or "://" in plain or "%" in plain:
        try:
            parts = urlsplit(plain)
            made.append(unquote(parse_qs(parts.query).get("d", [parts.path])[0]))
        except ValueError:  # no address after all
            pass
    last = made[-1]
    without = _UPLOAD.sub("", leaf(last), count=1)
    if without != leaf(last) and _UPLOAD.match(leaf(last)):
        made.append(f"{parent(last)}/{without}" if parent(last) else without)
    return list(dict.fromkeys(m for m in made if leaf(m)))


def folders(member: str) -> str:
    """The folders of a path, without those that are called "images", "train" and the like."""
    return "/".join(part for part in parent(member).split("/") if part and part.casefold() not in GENERIC)


def books_of(images: Sequence[ImageRef], fallback: str = "") -> list[str]:
    """The book of each image: its folders, without such as "images" or "train".

    Of images directly in such a folder, where data sets keep many books together, the names are looked at; of images
    beside their annotations it is the fallback, or the name of the folder or archive.
    """
    named = [folders(image.member) for image in images]
    mixed = [k for k, (image, name) in enumerate(zip(images, named, strict=True)) if not name and parent(image.member)]
    for k, book in zip(mixed, guessed_books([leaf(images[k].member) for k in mixed]), strict=True):
        named[k] = "" if book == UNNAMED else book
    return [name or fallback or image.tree.name for image, name in zip(images, named, strict=True)]


def in_order(images: Iterable[ImageRef]) -> list[ImageRef]:
    """Images in natural order."""
    return sorted(images, key=lambda image: natural(image.member))
