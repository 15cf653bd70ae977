"""JSON without what the standard allows to differ: no NaN, no name twice, no number or nesting without bounds."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from stage3.errors import StorageError

MAX_DIGITS = 40  # of a whole number: all of 128 bits
MAX_DEPTH = 64  # of lists and objects in each other; nothing of ours needs ten


def parse_object(data: bytes, source: Path) -> dict[str, Any]:
    """Parse one strict JSON object; StorageError names `source`."""
    try:
        value = json.loads(
            data.decode("utf-8"),
            parse_constant=_refuse_constant,
            parse_int=_bounded,
            parse_float=_finite_number,
            object_pairs_hook=_unique,
        )
        _check_depth(value)
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise StorageError(f"{source}: damaged, not readable as JSON ({error})") from None
    if not isinstance(value, dict):
        raise StorageError(f"{source}: damaged, holds a {type(value).__name__}, expected an object")
    return value


def _check_depth(value: Any) -> None:
    """Refuse what code that follows a value into its depth could not follow."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [v for v in level if isinstance(v, dict | list) and v]
        if not level:
            return
        level = [inner for v in level for inner in (v.values() if isinstance(v, dict) else v)]
    raise ValueError(f"nested more than {MAX_DEPTH} deep")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _bounded(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a whole number of {len(digits):,} digits")
    return int(digits)


def _finite_number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is not finite")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name occurs twice in one object")
    return value


def to_json(value: Any) -> str:
    """Strict JSON (NaN and infinities become null), the one way every file and `--json` writes it."""
    return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if hasattr(value, "item") and not isinstance(value, str):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
