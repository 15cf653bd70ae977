"""Training refuses data of which it would see nothing, and says what to do about it."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from reader_world import CLEAN, World, aligned_page, ocr_page, vlm_page

from stage3.config import Config
from stage3.data import __main__ as data_command
from stage3.data import readers
from stage3.data.readers.sight import format_of
from stage3.errors import DataError
from stage3.train import check_images
from tests import synthetic

STRICT = {"max_skip_fraction": 0.01, "max_without_box": 0.5, "max_without_image": 0.1}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "w")


@pytest.mark.parametrize(("written", "read"), [("ocr", "vlm"), ("vlm", "ocr")])
def test_panel_files_read_in_another_format_refuse_the_run_and_the_format_is_named(
    tmp_path: Path, written: str, read: str, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(tmp_path / "w", written)
    with pytest.raises(DataError, match=f"look like {written}, but are read as {read}: set panel_format to {written}"):
        readers.load(world.config(**STRICT, panel_format=read))
    where = world.config()
    flags = [f"--manifest={where.manifest}", f"--panels={where.panels}", f"--panel_format={read}"]
    try:
        data_command.main(["check", *flags, f"--cache_dir={where.cache_dir}"])
        said = capsys.readouterr().out
    except DataError as error:  # nothing is left
        said = str(error)
    assert f"look like {written}" in said
    assert readers.load(world.config(**STRICT)).report.pages_kept == len(CLEAN)


def test_a_third_of_the_images_missing_refuses_the_run(world: World) -> None:
    for page_id in CLEAN[:2]:
        (world.root / "images" / f"{page_id}.png").unlink()
    with pytest.raises(DataError, match=r"33\.3 % of the pages have no image.*10\.0 %, first .*--remap"):
        readers.load(world.config(**STRICT))
    assert readers.load(world.config(**{**STRICT, "max_without_image": 0.34})).report.pages_kept == len(CLEAN)
    assert readers.read(world.config(**STRICT)).report.pages_kept == len(CLEAN)  # `data check` shows all it can


def test_text_alone_is_refused_until_it_is_asked_for(world: World) -> None:
    for page_id in CLEAN:
        world.page(page_id, {"panels": [{"description": "only words"}]})
    with pytest.raises(DataError, match=r"100\.0 % of the panels have no box.*raise --max_without_box") as refused:
        readers.load(world.config(**STRICT))
    assert "look like" not in str(refused.value)
    assert len(readers.load(world.config(**{**STRICT, "max_without_box": 1.0}))) == len(CLEAN)


def test_images_that_cannot_be_read_count_as_missing() -> None:
    data = synthetic.dataset(boxless=0.0, textless=0.0)
    check_images(Config(), data)
    lost = data.table.page_of_panel % 3 == 0
    features = dataclasses.replace(data.features, image_rows=np.where(lost, -1, data.features.image_rows))
    features.report.note("image:truncated", "page 0", 11)
    blind = dataclasses.replace(data, features=features)
    with pytest.raises(
        DataError, match=r"11 of 32 pages .* max_without_image 10\.0 %; image:truncated 11, first page 0"
    ):
        check_images(Config(), blind)
    check_images(Config(max_without_image=0.35), blind)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (vlm_page(), "vlm"),
        (ocr_page(), "ocr"),
        ([aligned_page("a", [{"rcnn_bbox": None, "text": "x"}])], "aligned"),
        ({"panels": {"1": {"bbox": [0, 0, 1, 1]}}}, "ocr"),
        ({"panels": [None, "x", {"text": "x"}]}, ""),
        ({"panels": None}, ""),
        (json.loads("[1]"), ""),
        ("text", ""),
    ],
)
def test_the_format_of_a_panel_file_is_told_by_its_panels(value: object, name: str) -> None:
    assert format_of(value) == name
