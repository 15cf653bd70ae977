"""Page labels: which pages are story, and which are covers, advertisements and the like."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stage3.data.readers.names import NameIndex
from stage3.data.readers.resolution import note_suffixes, resolve
from stage3.data.table import DataReport
from stage3.errors import DataError

VOCABULARY = (
    "advertisement",
    "cover",
    "story",
    "textstory",
    "first-page",
    "credits",
    "art",
    "text",
    "back_cover",
    "narrative",
)
MISSING, INVALID = -1, -2  # codes of pages without a label and with one that is no text
MAX_NAMES = 100  # unknown labels reported by name


def _letters(label: str) -> str:
    return re.sub(r"[\W_]+", "", label.lower())


_KNOWN = {_letters(label): label for label in VOCABULARY}


def normalized(label: str, extra: Iterable[str] = ()) -> str:
    """The vocabulary's spelling of a label: case, separators, white space and plural forms do not matter.

    A label outside the vocabulary (and `extra`) comes back in lower case with hyphens.
    """
    known = _KNOWN | {_letters(e): e for e in extra}
    key = _letters(label)
    for form in (key, key.removesuffix("s"), f"{key}s", re.sub("ies$", "y", key)):
        if form in known:
            return known[form]
    return re.sub(r"[\s_-]+", "-", label.strip().lower())[:60]


class Labels:
    """Labels of a data set: ids as a column, labels as codes into `names`."""

    def __init__(self, ids: pa.Array, codes: np.ndarray, names: list[str]) -> None:
        self.ids = ids
        self.codes = codes
        self.names = names

    def of_pages(self, page_ids: pa.Array, report: DataReport, books: pa.Array | None = None) -> np.ndarray:
        """(N,) label code of each page; `MISSING` or `INVALID` where there is none.

        Args:
            page_ids: (N,) canonical ids.
            report: what is unusual is noted there.
            books: (N,) book of each page, for ids without a folder.
        """
        found = resolve(page_ids, NameIndex(self.ids), report, "label", books)
        note_suffixes(found, page_ids, self.ids, report, "label")
        codes = np.full(len(page_ids), MISSING, np.int32)
        hit = found.row >= 0
        codes[hit] = self.codes[found.row[hit]]
        if unlisted := len(self.ids) - len(np.unique(found.row[hit])):
            used = np.zeros(len(self.ids), bool)
            used[found.row[hit]] = True
            for row in np.flatnonzero(~used)[: DataReport.MAX_EXAMPLES]:
                report.note("label_unlisted", str(self.ids[int(row)]), 0)
            report.counts["label_unlisted"] += unlisted
        return codes


def read_labels(path: Path, keep: Iterable[str], report: DataReport) -> Labels:
    """Read flat `{id: label}` or nested `{book: {page: label}}` labels.

    Raises:
        DataError: the file is not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_Pairs(report, path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as JSON: {str(error)[:160]}") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected an object of page labels, found {type(value).__name__}")
    names: dict[str, int] = {}
    memo: dict[str, int] = {}
    ids: list[str] = []
    codes: list[int] = []
    extra = tuple(keep)
    for page_id, label in _flat(value):
        code = memo.get(label, INVALID) if isinstance(label, str) else INVALID
        if isinstance(label, str) and code == INVALID and label.strip():
            code = memo[label] = names.setdefault(normalized(label, extra), len(names))
        ids.append(page_id)
        codes.append(code)
    return Labels(pa.array(ids, pa.large_string()), np.asarray(codes, np.int32), list(names))


class _Pairs:
    """Objects whose repeated ids agree; an id labeled twice differently gets no label."""

    def __init__(self, report: DataReport, path: Path) -> None:
        self.report = report
        self.path = path

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            for key, value in pairs:
                if made[key] != value:
                    self.report.note("label_contradiction", f"{self.path}: {key}")
                    made[key] = None
        return made


def _flat(value: dict[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    for key, label in value.items():
        name = prefix + key if prefix else key
        if not name.isascii():
            name = name.encode("utf-8", "replace").decode()
        if isinstance(label, dict) and depth < 8:
            yield from _flat(label, f"{name}/", depth + 1)
        else:
            yield name, label


def select(
    labels: Labels, codes: np.ndarray, page_ids: pa.Array, keep: Iterable[str], report: DataReport
) -> np.ndarray:
    """(N,) bool of pages whose label is kept; the others are counted with the reason."""
    extra = tuple(keep)
    wanted = {normalized(k, extra) for k in extra}
    known = set(VOCABULARY) | wanted
    counts = Counter(
        {labels.names[c]: int(n) for c, n in zip(*np.unique(codes, return_counts=True), strict=True) if c >= 0}
    )
    report.facts["labels"] = dict(counts.most_common(MAX_NAMES))
    report.facts["unknown_labels"] = dict(
        Counter({k: n for k, n in counts.items() if k not in known}).most_common(MAX_NAMES)
    )
    kept = np.isin(codes, [c for c, name in enumerate(labels.names) if name in wanted])
    reasons = {c: "label" if name in known else "label_unknown" for c, name in enumerate(labels.names)}
    reasons |= {MISSING: "label_missing", INVALID: "label_invalid"}
    for code in np.unique(codes[~kept]).tolist():
        rows = np.flatnonzero(codes == code)
        name = f": {labels.names[code]}" if code >= 0 else ""
        skip_many(report, reasons[code], (f"{page_ids[int(r)]}{name}" for r in rows), len(rows))
    return kept


def skip_many(report: DataReport, reason: str, where: Iterable[str], n: int) -> None:
    """Count `n` pages as left out; only the first few are looked at."""
    report.skipped[reason] += n
    report.counts[f"page:{reason}"] += n
    seen = report.examples.setdefault(f"page:{reason}", [])
    for text in where:
        if len(seen) >= DataReport.MAX_EXAMPLES:
            break
        seen.append(text)
