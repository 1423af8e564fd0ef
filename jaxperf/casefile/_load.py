"""Reading a case file, with errors as sentences that name file and key."""

import difflib
import os
import re
import reprlib
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from .._misc import InputError
from .._yaml import yaml_content, YamlFault
from ._schema import Case
from ._units import usual_of

# Of a value in a sentence: characters, and entries of what is no single value.
_LONGEST = 100
_BRIEF = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxstring, _BRIEF.maxother = 2, _LONGEST, _LONGEST
# How pydantic marks the member of a union that it tried.
_MEMBER = re.compile(r"(function|constrained)-|(dict|literal)\[")


def load_case(path: str | os.PathLike) -> Case:
    """Read and validate a case file.

    **Errors:** [`InputError`][] naming the file and the first offending key; all of them are in
    [`case_errors`][].

    **Example:**

    ```python
    import jaxperf as jp
    case = jp.casefile.load_case(jp.jobs.write_starter("heart", spacing_mm=5.0))
    print(case.lesions)
    ```
    """
    raw = read_yaml(path)
    try:
        return Case.model_validate(raw)
    except ValidationError as error:
        raise case_errors(error, str(path))[0] from None


def read_yaml(path: str | os.PathLike) -> dict[str, Any]:
    """The mapping in a YAML file.

    **Example:**

    ```python
    from pathlib import Path
    import jaxperf as jp
    Path("case.yaml").write_text("title: one heart\\n")
    content = jp.casefile.read_yaml("case.yaml")
    ```
    """
    path, where = Path(path), str(path)
    if not path.is_file():
        what = "it is a folder" if path.is_dir() else "there is no such file"
        raise InputError(
            what,
            where=where,
            expected="a case file (YAML)",
            fix="Check the path, or write one with `jaxperf init DIR`",
        )
    try:
        raw = yaml_content(path)
    except YamlFault as error:
        raise InputError(
            str(error),
            where=where,
            expected="a case file (YAML) that says each thing once",
            fix="Correct the line, or start from `jaxperf init DIR`",
        ) from None
    if not isinstance(raw, dict):
        raise InputError(
            f"it holds a {type(raw).__name__}",
            where=where,
            expected="keys such as kind, tree and ventricle",
            fix="Start from `jaxperf init DIR`",
        )
    return raw


def case_errors(error: ValidationError, where: str) -> list[InputError]:
    """Every complaint of the schema as one sentence."""
    return [_sentence(entry, where) for entry in error.errors(include_url=False)]


def _sentence(entry: Any, where: str) -> InputError:
    # the type of a union's member is part of the location but no key of the file
    keys = [k for k in entry["loc"] if not (isinstance(k, str) and _MEMBER.match(k))]
    key = ".".join(_shown(k, str) for k in keys) or "the case"
    place = f"{where}, {key}"
    kind, value = entry["type"], entry.get("input")
    if kind == "extra_forbidden":
        known = _known_keys(keys[:-1])
        close = difflib.get_close_matches(str(keys[-1]), known, n=1, cutoff=0.5)
        fix = "Remove it, or see `jaxperf schema`"
        if close:
            fix = f"Did you mean {close[0]}?"
        else:
            around = [keys[:i] for i in range(len(keys) - 1) if keys[-1] in _known_keys(keys[:i])]
            if around:
                owner = ".".join(str(k) for k in around[-1]) or "the case itself"
                fix = f"Remove it here; {keys[-1]} is a key of {owner}, see `jaxperf schema`"
        return InputError(
            f"the key {_shown(keys[-1])} is unknown",
            where=place,
            expected=f"one of {', '.join(known)}" if known else "a key of the schema",
            fix=fix,
        )
    if kind == "missing":
        return InputError(
            "the key is missing",
            where=place,
            expected=_described(keys) or "a value",
            fix="Add it; `jaxperf schema` prints what each key means",
        )
    message = entry["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if kind == "value_error":
        return InputError(
            message, where=place, expected="a value that fits its key and section", fix="Correct it"
        )
    return InputError(
        f"the value is {_shown(value)}",
        where=place,
        expected=message,
        fix=_other_unit(keys, value) or _described(keys) or "Correct the value",
    )


def _other_unit(keys: Sequence[int | str], value: Any) -> str | None:
    """What a number that the schema refuses would be in another unit."""
    usual = usual_of([str(key) for key in keys])
    try:
        return None if usual is None else usual.likely(float(value))
    except (TypeError, ValueError):
        return None


def _shown(value: Any, form: Callable[[Any], str] = _BRIEF.repr) -> str:
    """A value as a part of a sentence: a file may hold any amount of text."""
    text = form(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The sections named in an annotation, such as `Labels | None` or `tuple[Lesion, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, tuple):
        return [m for part in typing.get_args(annotation) for m in _models(part)]
    return []


def _section(keys: Sequence[int | str]) -> type[BaseModel] | None:
    section: type[BaseModel] | None = Case
    for key in keys:
        if isinstance(key, int):
            continue
        field = section.model_fields.get(str(key)) if section else None
        section = next(iter(_models(field.annotation)), None) if field else None
    return section


def _known_keys(keys: Sequence[int | str]) -> list[str]:
    section = _section(keys)
    return list(section.model_fields) if section else []


def _described(keys: Sequence[int | str]) -> str:
    section = _section(keys[:-1])
    field = section.model_fields.get(str(keys[-1])) if section and keys else None
    return (field.description or "").rstrip(".") if field else ""
