"""Ground truth about the panels drawn: `facts.jsonl.gz`, one panel a line.

Story panels only; covers and advertisements have none. A row has `canonical_id`, `panel_number` (from 1), `layout`,
`setting`, `time`, `shot`, `emotion` (of the main character; "calm" where nobody is; filled in by `read`, not stored
twice), `characters` (main one first), `props` and `named`. A character has `name`, `kind`, `hair`,
`clothes`, `clothes_color`, `action`, `emotion` and `holds` (a prop or null). All of them but the
ids and `name` are categorical; `VOCABULARIES` lists their values in a fixed order. `named` holds the keys of the facts
that the panel's words name: `setting`, `time`, `shot`, `prop.0`, `kind.0`, `action.1` … (the number counts
characters or props).
"""

import gzip
import json
from pathlib import Path
from typing import Any

from stage3.samples import world

VOCABULARIES: dict[str, tuple[str, ...]] = {
    "layout": world.LAYOUTS,
    "setting": world.SETTINGS,
    "time": world.TIMES,
    "shot": world.SHOTS,
    "emotion": world.EMOTIONS,
    "props": world.PROPS,
    "kind": world.KINDS,
    "hair": world.HAIR,
    "clothes": world.CLOTHES,
    "clothes_color": world.COLORS,
    "action": world.ACTIONS,
}
"""Field of a panel or of a character -> its values, in the order that class numbers follow."""


FACTS = "facts.jsonl.gz"
"""Name of the file in a set of sample comics."""


def read(path: Path) -> list[dict[str, Any]]:
    """Read `facts.jsonl.gz`, or the one in a folder of sample comics."""
    path = Path(path)
    path = path / FACTS if path.is_dir() else path
    lines = gzip.decompress(path.read_bytes()).decode("utf-8").splitlines()
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines if line]
    for row in rows:
        for character in row["characters"]:
            character.setdefault("holds", None)
        row["emotion"] = row["characters"][0]["emotion"] if row["characters"] else "calm"
    return rows
