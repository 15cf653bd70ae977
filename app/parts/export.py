"""Download a selection of panels: Parquet, CSV, COCO and the images. Files are made when they are requested.

Panels are numbered as on screen, from 1 within their page; page images have one name in the COCO file and in the zip.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Literal

import pandas as pd
import streamlit as st

from app import shell
from app.store import thumbs
from stage3.data.images import ImageProblem
from stage3.data.remote import is_url

MAX_IMAGES = 500
MAX_PAGES = 40  # whole pages in a zip: each is decoded and encoded at its own size
COLUMNS = {  # what a column is called in a file
    "order": "panel_number",
    "x": "box_x",
    "y": "box_y",
    "w": "box_w",
    "h": "box_h",
    "page": "page_row",
}
FORMATS: dict[str, Literal["PNG", "JPEG", "WEBP"]] = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
}
PLAIN = re.compile(r"(?!.*(^|/)\.\.?(/|$))(?!/)[\w ().,&+#/-]{1,200}")  # what may stand in a zip, and on any system
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def buttons(chosen: shell.Chosen, frame: pd.DataFrame, name: str = "panels") -> None:
    """Four quiet buttons for the panels of `frame`, whose index is their row in the panel table."""
    stem = file_stem(f"{chosen.id}-{name}")
    made = {
        "Parquet": (lambda: parquet(frame), "parquet", "application/octet-stream", "all columns, for pandas"),
        "CSV": (
            lambda: csv(frame),
            "csv",
            "text/csv",
            "all columns; formulas are made text by a leading '",
        ),
        "COCO": (
            lambda: coco(chosen, frame),
            "coco.json",
            "application/json",
            "boxes in pixels, category panel; images are named as in the zip",
        ),
        "Images": (
            lambda: crops(chosen, frame),
            "zip",
            "application/zip",
            f"at most {MAX_IMAGES} panel crops and {MAX_PAGES} pages",
        ),
    }
    with st.container(horizontal=True, gap="small", vertical_alignment="center", key=f"export-{stem}"):
        st.text(f"Export {len(frame):,} panels")
        for label, (make, suffix, mime, about) in made.items():
            st.download_button(
                label,
                data=make,
                file_name=f"{stem}.{suffix}",
                mime=mime,
                key=f"export-{stem}-{label}",
                help=about,
                on_click="ignore",
                icon=":material/download:",
                type="tertiary",
                disabled=frame.empty,
            )


def file_stem(name: str) -> str:
    """A name of at most 80 letters, digits, _ and - for a file.

    One that must be cut or changed for that ends in a digest, so that two of them do not become one.
    """
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", name)
    if stem == name.replace("/", "-") and len(stem) <= 80:
        return stem
    return f"{stem[:70]}-{hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:8]}"


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """The panels as a file has them: boxes as box_x …, shares of the page; panel_number from 1."""
    renamed = {old: new for old, new in COLUMNS.items() if old in frame}
    out = frame.rename_axis("row").reset_index().rename(columns=renamed)
    if "panel_number" in out:
        out["panel_number"] += 1
    return out


def parquet(frame: pd.DataFrame) -> bytes:
    """All columns and the panel row."""
    buffer = io.BytesIO()
    table(frame).to_parquet(buffer, index=False)
    return buffer.getvalue()


def csv(frame: pd.DataFrame) -> bytes:
    """UTF-8 with a byte order mark for spreadsheets; text that would run as a formula there starts with '."""
    guarded = table(frame)
    for column in guarded.columns:
        if not pd.api.types.is_numeric_dtype(guarded[column]):
            guarded[column] = [f"'{v}" if isinstance(v, str) and v.startswith(FORMULA) else v for v in guarded[column]]
    return b"\xef\xbb\xbf" + guarded.to_csv(index=False).encode("utf-8")


def coco(chosen: shell.Chosen, frame: pd.DataFrame) -> bytes:
    """COCO JSON: the pages as images, the panels with a box as annotations of category `panel`.

    Ids start at 1, for pycocotools takes a match with annotation 0 for none: an image's is its page row + 1, an
    annotation's its panel row + 1. A file name is that of `page_names`, as in the zip of images.
    """
    from app.store import loaders

    pages = loaders.open_dataset(chosen.run).table.pages
    names = page_names(pages)
    images, annotations = [], []
    for page in sorted(set(frame["page"].tolist())):
        record = pages.iloc[page]
        size = {"width": int(record["width"]), "height": int(record["height"])}
        images.append({"id": int(page) + 1, "file_name": names[page], "page_id": str(record["page_id"]), **size})
    for row, panel in frame[frame["has_box"]].iterrows():
        record = pages.iloc[int(panel["page"])]
        width, height = max(int(record["width"]), 1), max(int(record["height"]), 1)
        box = [float(panel[c]) * s for c, s in zip("xywh", (width, height, width, height), strict=True)]
        annotations.append(
            {
                "id": int(row) + 1,  # type: ignore[call-overload]
                "image_id": int(panel["page"]) + 1,
                "category_id": 1,
                "bbox": [round(v, 2) for v in box],
                "area": round(box[2] * box[3], 2),
                "iscrowd": 0,
                "panel_id": str(panel["panel_id"]),
                "panel_number": int(panel["order"]) + 1,
                "text": str(panel["text"]),
            }
        )
    categories = [{"id": 1, "name": "panel", "supercategory": "comic"}]
    value = {"info": {"description": "panels"}, "images": images, "annotations": annotations, "categories": categories}
    return json.dumps(value, ensure_ascii=False).encode("utf-8")


def file_names(pages: pd.DataFrame) -> list[str]:
    """(P,) a name for the image of each page, no two alike: its path below the folder that all of them share.

    A page without an image, or with an image that an earlier page has, is named by its id.
    """
    pages = pages.assign(image_path=["" if is_url(path) else path for path in pages["image_path"]])
    try:
        shared = os.path.commonpath([Path(path).parent for path in pages["image_path"] if path])
    except ValueError:  # no image, or several drives
        shared = ""
    names: list[str] = []
    taken: set[str] = set()
    for path, page_id in zip(pages["image_path"], pages["page_id"], strict=True):
        below = os.path.relpath(path, shared) if path and shared else path
        name = below.replace(os.sep, "/") or str(page_id)
        while name in taken:
            name = str(page_id) if str(page_id) not in taken else f"{name}-"
        taken.add(name)
        names.append(name)
    return names


def page_names(pages: pd.DataFrame) -> list[str]:
    """(P,) what each page's image is called in a COCO file and in the zip: as its file, with the extension.

    A name that is no plain path, or of another format than PNG, JPEG and WEBP, is replaced by the page's row.
    """
    names = file_names(pages)
    return [
        name if PLAIN.fullmatch(name) and Path(name).suffix.lower() in FORMATS else f"page-{row:07d}.png"
        for row, name in enumerate(names)
    ]


def crop_name(row: int, order: int) -> str:
    """What a panel's crop is called: its row, which is unique, and its number on the page as on screen.

    >>> crop_name(17, 2)
    'panels/row-0000017-panel-3.webp'
    """
    return f"panels/row-{row:07d}-panel-{order + 1}.webp"


def crops(chosen: shell.Chosen, frame: pd.DataFrame) -> bytes:
    """A zip of panel crops and of their pages, with the COCO file of these pages and a list of the panels."""
    from app.store import loaders

    buffer = io.BytesIO()
    listed = ["file\tpanel_id\tpage_image"]
    pages = loaders.open_dataset(chosen.run).table.pages
    names = page_names(pages)
    part = frame.head(MAX_IMAGES)
    whole = list(dict.fromkeys(part["page"].tolist()))[:MAX_PAGES]
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for row, panel_id, order, page in zip(part.index, part["panel_id"], part["order"], part["page"], strict=True):
            name = crop_name(int(row), int(order))
            try:
                archive.writestr(name, thumbs.image_of(chosen.run, "panel", int(row), 640))
            except ImageProblem as problem:
                name = f"({problem.code})"
            listed.append(f"{name}\t{' '.join(str(panel_id).split())}\t{names[page] if page in whole else ''}")
        for page in whole:
            with suppress(ImageProblem):  # a page without an image has no file
                archive.writestr(
                    names[page], thumbs.whole_page(chosen.run, int(page), FORMATS[Path(names[page]).suffix.lower()])
                )
        archive.writestr("coco.json", coco(chosen, part[part["page"].isin(whole)]))
        for what, left, most in (
            ("panels", len(frame) - len(part), MAX_IMAGES),
            ("pages", part["page"].nunique() - len(whole), MAX_PAGES),
        ):
            if left > 0:
                listed.append(f"({left} more {what} left out: an export has at most {most})")
        archive.writestr("panels.tsv", "\n".join(listed) + "\n")
    return buffer.getvalue()
