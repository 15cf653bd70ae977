"""What must not be taken for the same: a replaced image of equal size, backbones joined the other way, another text."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from stage3.config import Config
from stage3.data.table import PanelTable
from stage3.features.backbones import JoinedVision
from stage3.features.page_digests import PageDigests
from tests import synthetic


@pytest.mark.parametrize("stored", [False, True])
def test_an_image_that_is_replaced_by_one_of_equal_size_is_another(tmp_path: Path, stored: bool) -> None:
    path = tmp_path / "page.bmp"
    found = []
    digests = PageDigests(tmp_path, Config())
    for color, second in (("red", 100), ("blue", 200), ("red", 300)):
        Image.new("RGB", (20, 30), color).save(path)
        os.utime(path, (second, second))
        if stored:
            digests.join()
            digests = PageDigests(tmp_path, Config())
        found.append((path.stat().st_size, digests.look(str(path)).digest))
    assert len({size for size, _ in found}) == 1
    assert found[0] == found[2] != found[1]


def test_joined_backbones_are_others_in_another_order() -> None:
    one, two = (
        SimpleNamespace(name=n, sizes=(s,), short_side=32, fingerprint=n * 8, in_flight=0)
        for n, s in (("a", 3), ("b", 5))
    )
    first, second = JoinedVision([one, two]), JoinedVision([two, one])  # type: ignore[list-item]
    assert (first.sizes, second.sizes) == ((3, 5), (5, 3))
    assert len({first.fingerprint, second.fingerprint, JoinedVision([one]).fingerprint}) == 3  # type: ignore[list-item]


def test_a_fingerprint_changes_with_everything_that_reaches_the_model_or_the_split() -> None:
    made = synthetic.table(books=2, pages=2)
    seen = {made.fingerprint()}
    changed = [("panels", name, "x") for name in ("panel_id", "dialogue", "description")]
    changed += [("panels", name, 0.01) for name in "xywh"] + [("panels", name, 1) for name in ("order", "source_index")]
    changed += [("pages", name, "x") for name in ("page_id", "book_id", "page_type")]
    for frame, column, more in changed:
        seen.add(with_more(made, frame, column, more).fingerprint())
    assert len(seen) == len(changed) + 1
    for frame, column in (("panels", "speakers"), ("pages", "image_path")):
        assert with_more(made, frame, column, "x").fingerprint() == made.fingerprint(), column


def with_more(made: PanelTable, frame: str, column: str, more: object) -> PanelTable:
    """The table with one value of its first row changed."""
    table = getattr(made, frame).copy()
    table.loc[0, column] += more
    return PanelTable(**({"panels": made.panels, "pages": made.pages, "report": made.report} | {frame: table}))
