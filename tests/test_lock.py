"""`requirements.lock` fits `constraints.txt` and `pyproject.toml`: tested versions, hashes, all that is needed."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def name_of(text: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", text, maxsplit=1)[0]).lower()


def locked() -> dict[str, tuple[str, int]]:
    """Version and number of hashes by package."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8").replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        if line and not line.startswith(("#", " ")):
            version = re.search(r"==([^ ;]+)", line)
            assert version, line
            found[name_of(line)] = (version[1], len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", line)))
    return found


def test_every_locked_package_has_hashes_and_the_version_that_was_tested():
    pins = {
        name_of(line): line.split("==")[1].strip()
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line and not line.startswith("#")
    }
    lock = locked()
    assert len(lock) > 60
    assert [name for name, (_, hashes) in lock.items() if not hashes] == []
    assert {n: v for n, (v, _) in lock.items() if n in pins and v.split("+")[0] != pins[n].split("+")[0]} == {}


def test_what_the_package_and_the_explorer_need_is_locked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {name_of(d) for d in (*project["dependencies"], *project["optional-dependencies"]["app"])}
    assert needed - set(locked()) == set()
