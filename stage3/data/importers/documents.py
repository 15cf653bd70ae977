"""JSON, XML and YAML of unknown origin: bounded, and refused by name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import yaml
from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from stage3.data.importers.trees import SourceProblem, Tree
from stage3.data.readers.jsonfile import PageProblem, parse

MAX_DOCUMENT = 256 * 2**20  # bytes of an annotation file; parsed it takes about ten times as much memory
MAX_SETTINGS = 2**20  # bytes of a small file: class names, metadata


def read_json(tree: Tree, name: str) -> Any:
    """One JSON document.

    Raises:
        SourceProblem: too large, not JSON, a key twice, nested too deeply.
    """
    data = tree.read(name, MAX_DOCUMENT)
    try:
        value = parse(data)
        return _without_surrogates(value) if _ESCAPED_SURROGATE.search(data) else value
    except PageProblem as problem:
        raise SourceProblem(problem.code, f"{tree.show(name)}: {problem.detail}") from None
    except RecursionError:
        raise SourceProblem("json_too_deep", f"{tree.show(name)}: nested too deeply") from None


_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def _without_surrogates(value: Any) -> Any:
    """The value with U+FFFD for halves of characters, which no file can hold."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_without_surrogates(v) for v in value]
    if isinstance(value, dict):
        return {_without_surrogates(k): _without_surrogates(v) for k, v in value.items()}
    return value


def read_xml(tree: Tree, name: str, limit: int = MAX_DOCUMENT) -> Element:
    """The root of an XML document, its elements without namespaces.

    Raises:
        SourceProblem: too large, not well formed, or it has a DTD or entities, which are never expanded.
    """
    data = tree.read(name, limit)
    try:
        root: Element = ElementTree.fromstring(data, forbid_dtd=True)
    except DefusedXmlException:
        raise SourceProblem(
            "xml_dtd", f"{tree.show(name)}: has a DTD or entities, which are refused. Save it without <!DOCTYPE …>."
        ) from None
    except (ParseError, ValueError, LookupError) as error:  # also an encoding that does not exist
        raise SourceProblem("xml_syntax", f"{tree.show(name)}: not well-formed XML: {error}") from None
    for element in root.iter():
        if isinstance(element.tag, str) and element.tag.startswith("{"):
            element.tag = element.tag.rpartition("}")[2]
    return root


def read_yaml(tree: Tree, name: str) -> dict[str, Any]:
    """A YAML mapping.

    Raises:
        SourceProblem: too large, not YAML, or no mapping.
    """
    data = tree.read(name, MAX_SETTINGS)
    if b"*" in data and b"&" in data:  # a few hundred bytes of aliases expand to gigabytes
        raise SourceProblem("yaml_aliases", f"{tree.show(name)}: has aliases (& and *), which are refused")
    try:
        value = yaml.safe_load(data.decode("utf-8-sig"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SourceProblem(
            "yaml_syntax", f"{tree.show(name)}: not YAML: {' '.join(str(error).split())[:200]}"
        ) from None
    if not isinstance(value, dict):
        raise SourceProblem("yaml_syntax", f"{tree.show(name)}: expected 'name: value' lines")
    return value


def words(element: Element) -> str:
    """All text within an element as one line."""
    return " ".join("".join(element.itertext()).split())


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """The objects in a list; anything else is passed by."""
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, dict))
