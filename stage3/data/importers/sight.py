"""What a file looks like from its name and first bytes: enough to tell formats apart without reading them."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["json", "xml", "yaml", "rar", "7z", "pdf", "tar", "zip", "empty", "other"]
MAX_DEPTH = 12


@dataclass(frozen=True)
class Sight:
    """The first bytes of a file.

    Attributes:
        name: the file's name in its source.
        kind: what it is, by content (YAML by name).
        keys: of JSON: paths of the keys seen, such as "images[].file_name"; of YAML: keys at the top.
        root: of XML: name of the first element.
        tags: of XML: names of the elements seen, without namespaces.
    """

    name: str
    kind: Kind
    keys: frozenset[str] = frozenset()
    root: str = ""
    tags: frozenset[str] = frozenset()

    def has(self, *keys: str) -> bool:
        """Whether all of these keys (JSON) or elements (XML) were seen."""
        return all(key in self.keys or key in self.tags for key in keys)

    def described(self) -> str:
        """What was seen, for messages."""
        if self.kind == "json":
            top = sorted({key.removeprefix("[].").partition(".")[0].removesuffix("[]") for key in self.keys})
            return f"JSON with {', '.join(top[:6])}" if top else "JSON without keys"
        if self.kind == "xml":
            return f"XML of <{self.root}>" if self.root else "XML without an element"
        return {"empty": "empty", "other": "neither JSON nor XML", "yaml": "YAML"}.get(self.kind, self.kind.upper())


def look(name: str, head: bytes) -> Sight:
    """What the first bytes of a file show."""
    kind = _kind(name, head)
    if kind == "json":
        return Sight(name, kind, keys=json_keys(_text(head)))
    if kind == "xml":
        root, tags = xml_tags(_text(head))
        return Sight(name, kind, root=root, tags=tags)
    if kind == "yaml":
        return Sight(name, kind, keys=frozenset(_YAML_KEY.findall(_text(head))))
    return Sight(name, kind)


def _kind(name: str, head: bytes) -> Kind:
    for start, kind in _STARTS.items():
        if head.startswith(start):
            return kind
    if head[257:262] == b"ustar":
        return "tar"
    text = _text(head[:512]).lstrip()
    if not text:
        return "empty" if not head.strip() else "other"
    if text[0] in "{[":
        return "json"
    if text[0] == "<":
        return "xml"
    return "yaml" if name.lower().endswith((".yaml", ".yml")) else "other"


_YAML_KEY = re.compile(r"^([\w-]+)\s*:", re.MULTILINE)
_STARTS: dict[bytes, Kind] = {
    b"Rar!": "rar",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"%PDF": "pdf",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",  # an empty archive
}


def _text(head: bytes) -> str:
    utf16 = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return head.decode("utf-16" if utf16 else "utf-8-sig", "replace")


_JSON = re.compile(r'"(?:[^"\\]|\\.)*"\s*:?|"(?:[^"\\]|\\.)*\\?\Z|[{}\[\]]', re.DOTALL)


def json_keys(text: str) -> frozenset[str]:
    """Paths of the keys in the beginning of a JSON document.

    Example:
        >>> sorted(json_keys('{"images": [{"id": 1, "file_name": "a'))
        ['images', 'images[].file_name', 'images[].id']
    """
    keys: set[str] = set()
    inside: list[str] = []  # what leads to the values of each open object or list
    here = ""  # what leads to the next value
    for token in _JSON.findall(text):
        if token in ("{", "["):
            if len(inside) == MAX_DEPTH:
                break
            here += "[]" if token == "[" else ""
            inside.append(here)
        elif token in ("}", "]"):
            if inside:
                inside.pop()
            here = inside[-1] if inside else ""
        elif token.endswith(":"):
            name = token[1 : token.rindex('"')]
            here = ".".join(filter(None, (inside[-1] if inside else "", name)))
            keys.add(here)
    return frozenset(keys)


_TAG = re.compile(r"<(?![!?/])(?:[\w.-]+:)?([\w.-]+)")
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)


def xml_tags(text: str) -> tuple[str, frozenset[str]]:
    """Name of the first element and names of all elements in the beginning of an XML document."""
    names = _TAG.findall(_COMMENT.sub("", text))
    return (names[0] if names else ""), frozenset(names)
