"""One module per format; `FORMATS` is all of them, in the order in which messages name them."""

from stage3.data.importers.format import Format
from stage3.data.importers.formats import (
    acbf,
    coco,
    comic,
    comix,
    cvat,
    kumiko,
    label_studio,
    labelme,
    magi,
    manga109,
    mokuro,
    yolo,
)

COMIC = comic.FORMAT
FORMATS: tuple[Format, ...] = (
    COMIC,
    coco.FORMAT,
    yolo.FORMAT,
    mokuro.FORMAT,
    magi.FORMAT,
    manga109.FORMAT,
    kumiko.FORMAT,
    label_studio.FORMAT,
    cvat.FORMAT,
    labelme.FORMAT,
    acbf.FORMAT,
    comix.FORMAT,
)
BY_NAME = {format.name: format for format in FORMATS}
