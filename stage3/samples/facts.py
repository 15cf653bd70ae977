"""Ground truth about the panels drawn: `facts.jsonl`, one panel a line.

Story panels only; covers and advertisements have none. A row has `canonical_id`, `panel_number` (from 1), `layout`,
`setting`, `time`, `shot`, `emotion` (of the main character; "calm" where nobody is; filled in by `read`, not stored
twice), `characters` (main one first), `props` and `named`. A character has `name`, `kind`, `hair`,
`clothes`, `clothes_color`, `action`, `emotion` and `holds` (a prop or null). All of them but the
ids and `name` are categorical; `VOCABULARIES` lists their values in a fixed order. `named` holds the keys of the facts
that the panel's words name: `setting`, `time`, `shot`, `prop.0`, `kind.0`, `action.1` … (the number counts
characters or props).
"""

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


def read(path: Path) -> list[dict[str, Any]]:
    """Read `facts.jsonl`, or the one in a folder of sample comics."""
    path = Path(path)
    path = path / "facts.jsonl" if path.is_dir() else path
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    for row in rows:
        for character in row["characters"]:
            character.setdefault("holds", None)
        row["emotion"] = row["characters"][0]["emotion"] if row["characters"] else "calm"
    return rows
