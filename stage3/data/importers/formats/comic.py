"""Comics without annotations: a CBZ or ZIP, or folders of images; panels are found.

An archive is a book, and so is every folder that holds images; folders called "images" and the like do not name it.
Pages come in natural order. What a `ComicInfo.xml` says
is added to the pages of every format; see `comicinfo`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from stage3.data.importers.format import Format, Reading
from stage3.data.importers.lookup import folders, in_order
from stage3.data.importers.page import Page
from stage3.data.importers.sight import Sight
from stage3.data.importers.trees import Tree, has_image_name, leaf, parent


def claims(sight: Sight) -> bool:
    """No annotation file belongs to it: it is what is left where there are only images."""
    return False


def read(reading: Reading) -> Iterator[Page]:
    """All images."""
    images = in_order(reading.images.all)
    shared = {tree.where: _shared(tree) for tree in reading.image_trees}
    for image in images:
        path = image.member.rpartition(".")[0]
        if image.tree.file(image.member) is None:
            yield Page(image.tree.name, path[shared[image.tree.where] :], image)
        else:
            yield Page(folders(image.member) or image.tree.name, leaf(path), image)


def _shared(tree: Tree) -> int:
    """Length of the folders that all images of an archive lie in: they say nothing."""
    parents = {parent(name) for name in tree.names if has_image_name(name)}
    common = os.path.commonpath(parents) if all(parents) and parents else ""
    return len(common) + 1 if common else 0


FORMAT = Format("comic", "comic (CBZ, ZIP or images)", "images: JPEG, PNG, WEBP, AVIF, TIFF, GIF or BMP", claims, read)
