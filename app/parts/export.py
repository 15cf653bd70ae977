"""Download a selection of panels: Parquet, CSV, COCO and the images. Files are made when they are requested."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import zipfile
from pathlib import Path

import pandas as pd
import streamlit as st

from app import shell
from app.store import thumbs
from stage3.data.images import ImageProblem

MAX_IMAGES = 500
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
        "COCO": (lambda: coco(chosen, frame), "coco.json", "application/json", "boxes in pixels, category panel"),
        "Images": (lambda: crops(chosen, frame), "zip", "application/zip", f"panel crops, at most {MAX_IMAGES}"),
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


def parquet(frame: pd.DataFrame) -> bytes:
    """All columns and the panel row."""
    buffer = io.BytesIO()
    frame.rename_axis("row").reset_index().to_parquet(buffer, index=False)
    return buffer.getvalue()


def csv(frame: pd.DataFrame) -> bytes:
    """UTF-8 with a byte order mark for spreadsheets; text that would run as a formula there starts with '."""
    guarded = frame.rename_axis("row").reset_index()
    for column in guarded.columns:
        if not pd.api.types.is_numeric_dtype(guarded[column]):
            guarded[column] = [f"'{v}" if isinstance(v, str) and v.startswith(FORMULA) else v for v in guarded[column]]
    return b"\xef\xbb\xbf" + guarded.to_csv(index=False).encode("utf-8")


def coco(chosen: shell.Chosen, frame: pd.DataFrame) -> bytes:
    """COCO JSON: the pages as images, the panels with a box as annotations of category `panel`.

    Ids start at 1, for pycocotools takes a match with annotation 0 for none: an image's is its page row + 1, an
    annotation's its panel row + 1. File names are relative to the folder that holds all images of the data set.
    """
    from app.store import loaders

    pages = loaders.open_dataset(chosen.run).table.pages
    names = file_names(pages)
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


def crops(chosen: shell.Chosen, frame: pd.DataFrame) -> bytes:
    """A zip of panel crops, named by row; a list says which panel is which and which had no image."""
    buffer = io.BytesIO()
    listed = ["file\tpanel_id"]
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for row, panel_id in frame["panel_id"].head(MAX_IMAGES).items():
            name = f"panel-{int(row):07d}.webp"  # type: ignore[call-overload]
            try:
                archive.writestr(name, thumbs.image(chosen.id, "panel", int(row), 640))  # type: ignore[call-overload]
            except ImageProblem as problem:
                name = f"({problem.code})"
            listed.append(f"{name}\t{' '.join(str(panel_id).split())}")
        if len(frame) > MAX_IMAGES:
            listed.append(
                f"({len(frame) - MAX_IMAGES} more panels left out: an export has at most {MAX_IMAGES} images)"
            )
        archive.writestr("panels.tsv", "\n".join(listed) + "\n")
    return buffer.getvalue()
