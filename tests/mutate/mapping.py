"""Which tests see which file: the mirror, and what stands beside it."""

from __future__ import annotations

from pathlib import Path

# Tests of a package that do not lie in its mirror; the longest prefix of a file counts.
MORE = {
    "stage3/losses": ["tests/losses", "tests/model/test_objectives.py"],
    "stage3/metrics": ["tests/metrics", "tests/projection", "tests/search"],
    "stage3/model/baselines.py": ["tests/model", "tests/evaluate"],
    "stage3/evaluate": ["tests/evaluate", "tests/metrics"],
    "stage3/features": ["tests/features"],
    "stage3/train": ["tests/train", "tests/model/test_objectives.py"],
    "stage3/selection.py": ["tests/test_apart.py"],
    "stage3/config.py": ["tests/test_config.py", "tests/test_settings.py"],
    "app": [f"tests/app/test_app_{n}.py" for n in "views map search results page data cache evidence theme named fresh".split()],
    "app/store/jobs.py": ["tests/app/test_app_jobs.py", "tests/app/test_app_retrain.py"],
    "app/store/imports.py": ["tests/app/test_app_add.py"],
    "app/store/uploads.py": ["tests/app/test_app_add.py"],
    "app/guard.py": ["tests/app/test_app_guard.py"],
}
for _part in ("views/retrain", "parts/retrain_form", "parts/forms", "parts/strip", "store/children", "store/waiter"):
    MORE[f"app/{_part}.py"] = ["tests/app/test_app_retrain.py", "tests/app/test_app_jobs.py"]
for _part in ("views/add", "parts/add_import", "parts/add_train", "parts/add_source", "parts/add_choice"):
    MORE[f"app/{_part}.py"] = ["tests/app/test_app_add.py"]
for _part in ("parts/moved", "store/places"):
    MORE[f"app/{_part}.py"] = ["tests/app/test_app_moved.py"]
# They need a browser, a second process or a minute, and repeat what others look at.
LEFT_OUT = ("test_app_browser", "test_app_security", "test_app_many_runs")
TOO_LONG = "not thousand and not notebook"  # as pytest's -k


def tests_of(root: Path, file: str) -> list[str]:
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
    """The package that a file counts for: `stage3/metrics`, `app`."""
    parts = file.split("/")
    return "/".join(parts[:2]) if parts[0] == "stage3" else parts[0]
