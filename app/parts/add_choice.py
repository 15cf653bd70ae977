"""Where boxes and texts come from, and six pages as they would be imported so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import streamlit as st

from app import shell
from app.charts import data as charts
from app.store import imports, loaders
from stage3.cli import counted
from stage3.config import Config
from stage3.data import page_check
from stage3.data.images import ImageProblem
from stage3.errors import Stage3Error

SIDE = 640  # pixels of a page of the look
AUTO = "As recognized"


def show(made: imports.Import) -> None:
    """The choices on the left; what comes of them on the right."""
    left, right = st.columns([1, 3.4], gap="medium")
    with left, st.container(border=True, key="card-add-choice"):
        _choices(made)
    with right, st.container(border=True, key="card-add-look"):
        _look(made)


def _choices(made: imports.Import) -> None:
    choice, key = made.choice, f"add-{made.name}"
    boxes, texts = _possible(made)
    st.subheader("Boxes", anchor=False)
    _radio("Boxes", boxes, choice.boxes, f"{key}-boxes", made)
    st.subheader("Text", anchor=False)
    _radio("Text", texts, choice.texts, f"{key}-texts", made)
    if not imports.reads_text():
        with st.container(key="quiet-add-reader"):
            shell.line('To read text from images, install the reader: pip install "stage3[ocr]"')
    st.selectbox(
        "Reading direction",
        list(imports.DIRECTIONS),
        index=list(imports.DIRECTIONS).index(choice.direction),
        format_func=imports.DIRECTIONS.__getitem__,
        key=f"{key}-direction",
        on_change=shell.callback(_changed),
        args=(made,),
    )
    if made.annotated is not False:
        with st.expander("Annotation files", icon=":material/description:"):
            known = ["", *(name for name in imports.formats() if name != "comic")]
            st.selectbox(
                "Format",
                known,
                index=known.index(choice.format) if choice.format in known else 0,
                format_func=lambda name: imports.formats().get(name, AUTO),
                key=f"{key}-format",
                on_change=shell.callback(_changed),
                args=(made,),
                help="Choose one where files of several formats lie together",
            )
            st.text_input(
                "Class of panels",
                value=choice.panel_class,
                max_chars=80,
                key=f"{key}-class",
                on_change=shell.callback(_changed),
                args=(made,),
                help="Where panels are called neither panel nor frame, such as cell",
            )


def _possible(made: imports.Import) -> tuple[dict[str, str], dict[str, str]]:
    """Which sources of boxes and of texts there are to choose from."""
    boxes, texts = dict(imports.BOXES), dict(imports.TEXTS)
    if made.annotated is False:
        del boxes["files"], texts["files"]
    if not imports.reads_text():
        del texts["read"]
    return boxes, texts


def _radio(label: str, options: dict[str, str], value: str, key: str, made: imports.Import) -> None:
    names = list(options)
    st.radio(
        label,
        names,
        index=names.index(value) if value in names else 0,
        format_func=options.__getitem__,
        key=key,
        label_visibility="collapsed",
        on_change=shell.callback(_changed),
        args=(made,),
    )


def _changed(made: imports.Import) -> None:
    """Look again, as it is asked for now; a choice that an earlier tab changed since is replaced."""
    key, state = f"add-{made.name}", st.session_state

    def value(name: str, before: str) -> str:
        return str(state.get(f"{key}-{name}", before))

    old = made.choice
    choice = imports.Choice(
        value("boxes", old.boxes),
        value("texts", old.texts),
        value("format", old.format),
        value("class", old.panel_class).strip(),
        value("direction", old.direction),
    )
    imports.look(made, choice)


# --- the look


def _look(made: imports.Import) -> None:
    task = made.task("look")
    if task.state().is_live:
        _watch(made)
        return
    state = task.state()
    if state.word == "none":
        imports.look(made, made.choice)
        st.rerun()
    if state.word != "finished":
        _refused(made, state.message)
        return
    result = task.result()
    if made.annotated is None:
        _told(made, result)
    _pages(made, result)


def _watch(made: imports.Import) -> None:
    @shell.fragment(run_every="1s")
    def watch() -> None:
        state = made.task("look").state()
        if not state.is_live:
            st.rerun()
        share = state.done / state.total if state.total else 0.0
        st.progress(min(1.0, 0.1 + 0.9 * share), text=f"Looking at {imports.LOOKED_AT} pages: {state.what}")

    watch()


def _refused(made: imports.Import, message: str) -> None:
    """What the import says of files that it does not understand, and what can be done here."""
    shell.error_box(message.replace(str(made.path), made.path.name), "These comics cannot be imported so")
    shell.line(
        "Choose the format or the class of panels under Annotation files on the left, or take the images alone: "
        f"{imports.BOXES['find']} and no text."
    )


def _told(made: imports.Import, result: dict[str, Any]) -> None:
    """What the first look found: without annotations, panels are found and there is no text, unless asked otherwise."""
    annotated = set(result["import"].get("formats", {})) != {"comic"}
    made = replace(made, annotated=annotated)
    if annotated:
        made.save()
    else:
        replace(made, choice=replace(made.choice, boxes="find", texts="none")).save()  # which is what the look did
    st.rerun()


def _pages(made: imports.Import, result: dict[str, Any]) -> None:
    st.subheader("As it would be imported", anchor=False)
    for line in imports.lines(result, "recognized"):
        shell.line(line.removeprefix(f"{made.path}: "))
    if warning := _doubt(made, result):
        with st.container(border=True):
            st.badge("Look closely", icon=":material/warning:", color="orange")
            shell.line(warning)
    folder = made.task("look").folder
    config = Config(data=str(folder / "data"), cache_dir=str(folder / "cache"), max_panels=64)
    try:
        stamp = (folder / "result.json").stat().st_mtime_ns
        drawn = shell.working("Drawing", loaders.remember, ("look", str(folder), stamp), lambda: _drawn(config, result))
    except (Stage3Error, OSError) as error:
        shell.error_box(error)
        return
    with st.grid(min_column_width=140, gap="small", key="add-pages"):
        for page_id, image, panels in drawn:
            with st.container(key=f"tile-add-{page_id}", gap="xxsmall"):
                if image:
                    shell.show_image(image, f"A page with {counted(panels, 'panel')} framed and numbered")
                shell.line(f"{page_id}  ·  {counted(panels, 'panel')}")


def _drawn(config: Config, result: dict[str, Any]) -> list[tuple[str, bytes, int]]:
    """(page id, the page with its boxes, number of panels) of each page of a look."""
    made = []
    for page_id, image in page_check.listed_pages(config)[["page_id", "image"]].itertuples(index=False):
        check = page_check.check_page(config, page_id, image, result["check"])
        kept = sum(panel.order is not None for panel in check.panels)
        try:
            made.append((page_id, charts.overlay(check, SIDE), kept))
        except ImageProblem:
            made.append((page_id, b"", kept))
    return made


def _doubt(made: imports.Import, result: dict[str, Any]) -> str:
    """Why the chosen files may not be what they are taken for; "" where nothing speaks against them."""
    found, choice = result["import"], made.choice
    how, pages = found.get("panels_from", {}), int(found.get("pages", 0))
    notes = found.get("notes", {})
    if choice.boxes == "files" and made.annotated and not how.get("source"):
        return "The files have no boxes on these pages: panels are found there instead."
    for code in ("page_shape_differs", "box_invalid"):
        if 2 * int(notes.get(code, {}).get("count", 0)) >= pages > 0:
            return (
                "On most pages, boxes do not fit the image: the annotations seem to be made for other images, or are "
                "of another format. Compare the frames below with the drawings."
            )
    if how.get("whole", 0) > pages / 2 and choice.boxes != "page":
        return (
            f"On {how['whole']} of {counted(pages, 'page')}, panels were not found with confidence: each is one panel."
        )
    return ""
