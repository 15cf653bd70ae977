"""The data report in words: what was listed, kept, left out and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from stage3.cli import counted, percent
from stage3.data.table import DataReport

BAR = 40  # characters of the longest bar
MANY_TALL = 20  # panels; fewer say nothing about the whole
MOST_BOOKS = 5  # named with their page counts
TOLD_FROM = {  # by `why` of a decision
    "reach": "how far they reach",
    "order of panels": "the order of the panels",
    "shape of panels": "the shape of the panels, which would all be thin slices",
}
SHOWN = 3  # first paths shown of each reason

REASONS = {
    "label": "the page type is not among keep_labels",
    "label_missing": "the labels file does not name the page",
    "label_invalid": "the label is not text",
    "label_unknown": "the label is not in the vocabulary",
    "no_panel_file": "no panel file for this id",
    "panel_file_ambiguous": "several panel files match the id",
    "no_panels": "the page's list of panels is empty",
    "no_usable_panel": "no panel has a valid box or text",
    "id_invalid": "the id is not a page's",
    "bad_row": "the row of the manifest cannot be used",
    "scale": "boxes in an unknown unit",
    "page_size": "boxes in pixels of a page of unknown size",
    "panels_missing": "no list of panels in the file",
    "panels_type": "panels is no list",
    "json_empty": "the panel file is empty",
    "json_syntax": "the panel file is not JSON",
    "json_encoding": "the panel file is not UTF-8",
    "json_too_large": "the panel file is over 20 MB",
    "json_duplicate_key": "a key stands twice",
    "json_too_deep": "nested too deeply",
    "json_number": "a number with thousands of digits",
    "json_not_object": "the page is not a JSON object",
    "file_unreadable": "the panel file cannot be opened",
}
ANOMALIES = {
    "junk_row": "rows of __MACOSX, ._*, Thumbs.db: ignored",
    "junk_file": "files of __MACOSX, ._*: ignored",
    "repeated_row": "manifest rows that repeat another: ignored",
    "book_guessed": "ids without a folder: book taken from the name",
    "manifest_column_ignored": "manifest columns that nothing reads",
    "limit_beyond_data": "limit_pages is larger than the data",
    "link_leaves_folder": "links out of the panels folder: not followed",
    "panel_file_unlisted": "panel files that no listed page uses",
    "panel_file_ambiguous": "ids that match several panel files",
    "panel_file_by_suffix": "panel files found by the end of their path: are they these pages'?",
    "label_by_suffix": "labels found by the end of their path",
    "label_unlisted": "labels of pages that are not listed",
    "label_contradiction": "ids labeled twice, differently",
    "label_ambiguous": "ids that match several labels",
    "box_missing": "panels without a box",
    "box_shape": "boxes that are not four values",
    "box_not_numbers": "boxes with values that are not finite numbers",
    "box_swapped": "boxes with reversed corners: put in order",
    "box_clamped": "boxes that extend beyond the page: cut to it",
    "box_outside": "boxes outside the page: refused",
    "box_no_area": "boxes without area: refused",
    "box_thin": "boxes under 2 pixels on a side: refused",
    "boxes_rescaled": "pages whose boxes are in another unit than their source's, a mixture: rescaled",
    "box_notation": "fields whose boxes have another unit or order than their format: read so, see above",
    "box_unit_doubtful": "fields whose boxes fit no unit: look at a page, then set --box_unit or --box_order",
    "page_size_missing": "pages whose size was taken from the image",
    "page_shape_differs": "panel files for a page of another shape than the image (rotated?)",
    "panel_type": "entries that are not panels",
    "panel_dropped": "panels with neither a valid box nor text, or a detector's box that holds nothing",
    "page_corrected": "pages whose panels were corrected by hand",
    "panel_deleted": "panels that were deleted by hand",
    "correction_outdated": "corrections by hand of panels that have changed since: not applied",
    "correction_unused": "corrections by hand of pages that are not listed",
    "panel_repeated": "panels that repeat another of their page: left out",
    "order_uncertain": "pages ordered by position whose order is uncertain",
    "panel_number": "pages whose panel numbers give no order",
    "panels_as_object": "pages whose panels are an object",
    "panels_cut": "pages cut to max_panels",
    "text_is_no_text": "texts that say there is none (None, N/A, ...) on many panels: counted as no text",
    "json_fenced": "panel files between ``` fences: read without them",
    "page_in_list": "panel files that hold their page in a list",
    "text_unreadable": "true, false, or lists within lists in a text's place: no part of the text",
    "text_cut": "texts cut to 10,000 characters",
    "id_differs_inside": "panel files with another id inside",
    "image_missing": "pages whose image is missing",
    "image_remote": "images behind URLs, which are not read: allow it with --allow_remote_images",
    "image_path_of_another_machine": "image paths of another machine: map them with --remap OLD=NEW",
    "image_other_extension": "images found under another extension",
    "image_duplicate": "images with the same bytes as an earlier one",
    "image:sha256": "images that differ from the manifest's sha256: not used",
    "image:first_frame": "animations and multi-page files: the first frame is used",
    "image:read_partly": "truncated images, read as far as they go: half their pixels may be wrong",
}
IMAGES = {
    "missing": "images that are missing: their pages go without",
    "empty": "empty image files: their pages go without",
    "truncated": "images that end too early: their pages go without; --truncated_images reads what is there",
    "too_many_pixels": "images above max_megapixels: their pages go without",
}


def report_lines(report: DataReport) -> list[str]:
    """The report as lines of text, for `data check` and for the first lines of a training run."""
    lines = [*_source(report), *_left_out(report)]
    if report.pages_kept:
        lines += [*_found(report), *_books(report), *_histogram(report), *_boxes(report), *_coverage(report)]
    return [*lines, *_anomalies(report), *_splits(report)]


def _source(report: DataReport) -> list[str]:
    source = report.facts.get("source")
    return [f"{source['name']}: {source['format']} panels in {source['panels']}"] if source else []


def _left_out(report: DataReport) -> list[str]:
    rows = [("pages listed", report.pages_listed, ""), ("pages kept", report.pages_kept, "")]
    for reason, n in report.skipped.most_common():
        rows.append((f"left out: {reason}", n, REASONS.get(reason, "")))
    width = max(len(r[0]) for r in rows)
    digits = max(len(f"{r[1]:,}") for r in rows)
    lines = []
    for name, n, meaning in rows:
        lines.append(f"{name:<{width}}  {n:>{digits},}  {meaning}".rstrip())
        lines += _examples(report, f"page:{name.removeprefix('left out: ')}", n, " " * 4)
    if not report.facts.get("labels_file"):
        lines.append("No labels file: every page counts as story.")
    elif unknown := report.facts.get("unknown_labels"):
        lines.append(f"Unknown labels: {_pairs(unknown)}. Choose those to use with --keep_labels.")
    return lines


def _examples(report: DataReport, code: str, n: int, indent: str) -> list[str]:
    seen = report.examples.get(code, [])[:SHOWN]
    lines = [f"{indent}{text[:160]}" for text in seen]
    if lines and n > len(seen):
        lines.append(f"{indent}and {n - len(seen):,} more")
    return lines


def _found(report: DataReport) -> list[str]:
    found = {k: v for k, v in report.facts.get("resolved_by", {}).items() if k not in {"unresolved", "ambiguous"}}
    return [f"Panel files found by: {_pairs(found)}."] if found else []


def _pairs(values: Mapping[str, Any], most: int = 10) -> str:
    shown = [f"{name} {n:,}" for name, n in list(values.items())[:most]]
    return ", ".join(shown) + (f" and {len(values) - most} more" if len(values) > most else "")


def _books(report: DataReport) -> list[str]:
    facts = report.facts
    largest: dict[str, int] = facts.get("pages_per_book", {})
    if not largest:
        return []
    named = ", ".join(f"{book[:40]} {counted(n, 'page')}" for book, n in list(largest.items())[:MOST_BOOKS])
    more = facts["books"] - min(len(largest), MOST_BOOKS)
    lines = [f"Books ({facts['books']:,}): {named}{f' and {more:,} more' if more else ''}."]
    if (single := facts["books_of_one_page"]) > 1:
        lines.append(
            f"{counted(single, 'book')} of one page each: if they are pages of one comic, training and test share it. "
            "Give the manifest a column 'book'."
        )
    return lines


def _histogram(report: DataReport) -> list[str]:
    counts: dict[str, int] = report.facts.get("panels_per_page", {})
    if not counts:
        return []
    most = max(counts.values())
    width = max(len(n) for n in counts)
    digits = len(f"{most:,}")
    lines = [f"Panels per page ({report.facts['panels']:,} panels, {report.facts['books']:,} books):"]
    for n, pages in counts.items():
        lines.append(f"  {n:>{width}}  {pages:>{digits},}  {'#' * max(1, round(BAR * pages / most))}")
    return lines


def _boxes(report: DataReport) -> Iterable[str]:
    """How the boxes of each field are read, how far they reach, and on what evidence that was decided."""
    for name, of in report.facts.get("boxes", {}).items():
        seen = counted(of["pages"], "page")
        if of["pages"] < of["of"]:
            seen = f"{of['pages']:,} pages with boxes, looked for on up to 1,000 of {of['of']:,}, evenly spaced"
        yield f"Boxes ({name}) are read as {of['unit']}, {of['order']}: {_reach(of, seen)}."
        if "instead_of" in of:
            was = of["instead_of"]
            yield (
                f"  This was told from {TOLD_FROM[of['why']]}: read as {was['unit']}, "
                f"{was['order']} {_reach(was)}. Override it with --box_unit and --box_order."
            )
        if "turned" in of:
            up, across = of["turned"]
            yield (
                "  Read like that, the way from panel to panel would go back up more often than back across on "
                f"{counted(up, 'page')}, and less often on {across:,}."
            )
        if "example" in of:
            (w, h), (x, y) = of["example"]["page"], of["example"]["seen"]
            yield f"  A page of {w} × {h} pixels counts as seen at {x} × {y}{_sizes(of)}."
        if of["doubtful"]:
            yield "  That fits no page. Look at some, and set --box_unit or --box_order."


def _reach(of: Mapping[str, Any], seen: str = "") -> str:
    if "left" not in of:
        return "their reach is not known"
    where = f"on {seen} they" if seen else "they would"
    across, down = (f"{100 * of[a]:.0f} to {percent(of[b], 0)}" for a, b in (("left", "right"), ("top", "bottom")))
    outside = f", {percent(of['outside'])} of them outside or without area" if of["outside"] > 0 else ""
    outside += f"; {percent(of['strangers'])} of the pages do not fit" if of["strangers"] > 0 else ""
    return f"{where} reach from {across} of the width and from {down} of the height{outside}"


def _sizes(of: Mapping[str, Any]) -> str:
    return f"; sizes of {of['sizes']:,} images were looked up for that" if of["sizes"] else ""


def _coverage(report: DataReport) -> list[str]:
    facts = report.facts
    lines = [
        f"Panels with dialogue {_percent(facts, 'dialogue_share')}, with a description "
        f"{_percent(facts, 'description_share')}, without text {_percent(facts, 'textless_share')}, "
        f"without a box {_percent(facts, 'boxless_share')}.",
        f"Pages with a single panel {_percent(facts, 'single_panel_share')}, "
        f"without an image {_percent(facts, 'no_picture_share')}.",
    ]
    wide, tall = facts.get("wide_panels", 0), facts.get("tall_panels", 0)
    if tall >= MANY_TALL and tall > 4 * wide:
        lines.append(
            f"{tall:,} panels reach from top to bottom of their page and {wide:,} from side to side: x and y of the "
            "boxes may be swapped. Look at a page; --box_order says how boxes are read."
        )
    if facts.get("no_picture_share") == 1:
        lines.append("No page has an image: only texts and layout would be trained on. Is a --remap OLD=NEW missing?")
    same = facts.get("duplicate_images", {})
    if same.get("groups"):
        lines.append(f"Equal images: {same['pictures']:,} in {same['groups']:,} groups.")
    return lines


def _percent(facts: Mapping[str, Any], name: str) -> str:
    return percent(facts.get(name, 0.0))


def _anomalies(report: DataReport) -> list[str]:
    rows = [(c, n) for c, n in sorted(report.counts.items(), key=_by_count) if not c.startswith("page:") and n]
    if not rows:
        return ["No anomalies."]
    width, digits = max(len(c) for c, _ in rows), max(len(f"{n:,}") for _, n in rows)
    lines = ["Anomalies:"]
    for code, n in rows:
        lines.append(f"  {code:<{width}}  {n:>{digits},}  {ANOMALIES.get(code, _image_problem(code))}".rstrip())
        lines += _examples(report, code, n, " " * 6)[:1]
    return lines


def _by_count(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def _image_problem(code: str) -> str:
    """What a code of `images.ImageProblem` means, as the table and the features count them."""
    if not code.startswith("image:"):
        return ""
    return IMAGES.get(code.removeprefix("image:"), "images that cannot be used: their pages go without")


def _splits(report: DataReport) -> list[str]:
    splits = report.facts.get("splits", {})
    if "problem" in splits:
        return [f"No split: {splits['problem']}"]
    return list(_split_rows(splits)) if splits else []


def _split_rows(splits: Mapping[str, Mapping[str, int]]) -> Iterable[str]:
    yield f"{'split':<6} {'books':>7} {'pages':>9} {'panels':>10}"
    for name, sizes in splits.items():
        yield f"{name:<6} {sizes['books']:>7,} {sizes['pages']:>9,} {sizes['panels']:>10,}"
