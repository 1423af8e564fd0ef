"""YAML that says each thing once, read with little memory."""

import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

# A case has some hundred values at a depth of six; what is larger by far is no case.
_LARGEST_BYTES, _MOST_VALUES, _DEEPEST = 16_000_000, 200_000, 50


class YamlFault(ValueError):
    """What is wrong with a YAML file, as a part of a sentence that has the line."""


def yaml_content(path: Path) -> Any:
    """The content of a YAML file.

    YAML takes the last of two equal keys in silence, and its aliases and brackets let a short text
    stand for any amount of data or depth: both are refused before anything is built.

    **Errors:** [`YamlFault`][].
    """
    size = path.stat().st_size
    if size > _LARGEST_BYTES:
        raise YamlFault(f"it has {size / 1e6:.0f} MB")
    try:
        text = path.read_text(encoding="utf-8")
        _refuse_deep(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            return None
        # The values below each node with aliases written out; None while it is counted.
        sizes: dict[int, int | None] = {}
        if _values(node, sizes) > _MOST_VALUES:
            raise YamlFault(f"its aliases stand for more than {_MOST_VALUES} values")
        for mapping in _mappings(node, set()):
            _refuse_twins(mapping)
        return yaml.SafeLoader("").construct_document(node)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        reason = str(getattr(error, "problem", None) or error).splitlines()[0]
        raise YamlFault(f"it is no YAML{line}: {reason}") from None
    except (ValueError, OverflowError) as error:
        if isinstance(error, YamlFault):
            raise
        # a date that is none, a number of too many digits
        raise YamlFault(f"it is no YAML: a value cannot be read ({error})") from None


def printable(name: str) -> str:
    """A name that can be told from others on a screen and in a file.

    **Errors:** `ValueError` for an empty one and for control characters, NUL and line breaks.
    """
    if not name.strip():
        raise ValueError("the name is empty")
    odd = [c for c in name if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
    if odd:
        raise ValueError(f"the name {name[:60]!r} holds the control character {odd[0]!r}")
    return name


def _refuse_deep(text: str) -> None:
    """The parser goes down by recursion from here on."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEEPEST:
                line = event.start_mark.line + 1
                raise YamlFault(f"brackets or indents are more than {_DEEPEST} deep in line {line}")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _parts(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _values(node: yaml.Node, sizes: dict[int, int | None]) -> int:
    if id(node) in sizes:
        size = sizes[id(node)]
        if size is None:
            raise YamlFault(f"an alias stands for itself in line {node.start_mark.line + 1}")
        return size
    sizes[id(node)] = None
    size = 1 + sum(_values(part, sizes) for part in _parts(node))
    sizes[id(node)] = size
    return size


def _mappings(node: yaml.Node, seen: set[int]) -> Iterator[yaml.MappingNode]:
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        yield node
    for part in _parts(node):
        yield from _mappings(part, seen)


def _refuse_twins(mapping: yaml.MappingNode) -> None:
    """Equal keys, however they are written; a merged one (`<<`) may be written over."""
    first: dict[Any, yaml.Node] = {}
    loader = yaml.SafeLoader("")
    for key, _ in mapping.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        name = loader.construct_document(key) if not key.tag.endswith(":merge") else "<<"
        if name in first:
            lines = [node.start_mark.line + 1 for node in (first[name], key)]
            raise YamlFault(
                f"the key {str(key.value)[:60]!r} stands in line {lines[0]} and again in line "
                f"{lines[1]}"
            )
        first[name] = key
