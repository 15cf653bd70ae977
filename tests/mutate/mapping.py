"""Which tests see which file: the mirror, and what stands beside it."""

from __future__ import annotations

from pathlib import Path

VIEWS = ("views", "map", "search", "results", "page", "data", "cache", "evidence", "theme", "named", "fresh")
# Tests of a package that do not lie in its mirror; the longest prefix of a file counts.
MORE = {
    "stage3/losses": ["tests/losses", "tests/model/test_objectives.py"],
    "stage3/metrics": ["tests/metrics", "tests/projection", "tests/search"],
    "stage3/model/objectives.py": ["tests/model", "tests/evaluate/test_by_hand.py"],
    "stage3/model/validation.py": ["tests/model", "tests/evaluate/test_by_hand.py"],
    "stage3/model/mapped.py": ["tests/model", "tests/search/test_mapped.py"],
    "stage3/model/baselines.py": ["tests/model", "tests/evaluate/test_by_hand.py"],
    "stage3/data": ["tests/data", "tests/batches/test_batches.py"],
    "stage3/features": ["tests/features"],
    "stage3/train": ["tests/train", "tests/model/test_objectives.py"],
    "stage3/selection.py": ["tests/test_apart.py"],
    "stage3/config.py": ["tests/test_config.py", "tests/test_settings.py"],
    "app": [f"tests/app/test_app_{name}.py" for name in VIEWS],
}
# Files of the explorer that few tests see: which, by the middle of their names.
SEEN_BY = {
    "charts/curves": "named charts", "charts/maps": "named charts map", "charts/map_marks": "charts",
    "charts/map_drift": "charts", "charts/search": "named charts", "charts/pages": "named charts page",
    "charts/names": "named names", "charts/evidence": "charts evidence", "charts/data": "charts data",
    "charts/worth": "parts results", "charts/theme": "theme named charts", "charts/apart": "charts",
    "views/losses": "views named fresh", "views/evidence": "evidence parts", "views/evidence_more": "evidence",
    "views/data": "data parts", "views/page": "page fresh parts", "views/search": "search parts",
    "views/runs": "shown results fresh parts", "views/retrain": "fresh parts retrain small",
    "views/add": "add small readonly", "views/map": "map shown", "views/map_parts": "parts map fresh",
    "views/map_compare": "map shown fresh", "views/map_column": "parts map shown", "views/map_controls": "map",
    "views/map_drift": "map", "parts/retrain_form": "parts retrain", "parts/forms": "parts retrain",
    "parts/strip": "small retrain", "parts/moved": "small moved", "parts/panel": "named parts page fresh",
    "parts/export": "parts fresh security", "parts/results": "parts small results", "parts/compared": "parts results",
    "parts/query": "search parts", "parts/failures": "search", "parts/selection": "parts map",
    "parts/filters": "parts small map", "parts/tiles": "parts", "parts/cards": "parts map",
    "parts/map_address": "parts map", "parts/add_import": "add parts", "parts/add_train": "parts add small",
    "parts/add_source": "add", "parts/add_choice": "add parts small", "parts/boxes": "boxes page",
    "parts/doubt": "results", "parts/data_report": "small data", "parts/outlook": "retrain add",
    "store/loaders": "fresh cache results security posture records", "store/thumbs": "page fresh cache security",
    "store/cache": "cache fresh guard", "store/watch": "cache fresh", "store/evidence": "evidence",
    "store/jobs": "records jobs retrain", "store/embeds": "records readonly", "components/__init__": "components",
    "parts/embedding": "small", "parts/waiting": "small map", "main": "posture", "posture": "posture",
    "addresses": "posture security", "shell": "shell fresh", "store/children": "jobs records add",
    "store/waiter": "jobs records", "store/places": "moved", "store/imports": "add readonly", "store/uploads": "add",
    "store/map_jobs": "map fresh", "store/frames": "frames cache",
}  # fmt: skip
MORE |= {f"app/{of}.py": [f"tests/app/test_app_{n}.py" for n in names.split()] for of, names in SEEN_BY.items()}
# They need a browser, a second process or a minute, and repeat what others look at.
LEFT_OUT = ("test_app_browser", "test_app_many_runs")
TOO_LONG = "not thousand and not notebook"  # as pytest's -k


def files_for(root: Path, file: str) -> list[str]:
    """The test files for a source file, relative to the root."""
    prefix = max((p for p in MORE if file == p or file.startswith(p + "/")), key=len, default="")
    places = MORE[prefix] if prefix else ["tests/" + file.split("/")[1]]
    found: list[str] = []
    for place in places:
        path = root / place
        files = sorted(path.rglob("test_*.py")) if path.is_dir() else [path]
        found += [f.relative_to(root).as_posix() for f in files if f.is_file() and not f.name.startswith(LEFT_OUT)]
    return list(dict.fromkeys(found))


def package_of(file: str) -> str:
    """The package that a file counts for: `stage3/metrics`, `app/views`; `app` for what lies directly in it."""
    parts = file.split("/")
    return "/".join(parts[:2]) if parts[0] == "stage3" or len(parts) > 2 else parts[0]
