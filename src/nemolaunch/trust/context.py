"""Check what `context/io.json` names before fiddle sees it, and what fiddle would call with those names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemolaunch.system.json_files import read_json
from nemolaunch.trust.links import is_within
from nemolaunch.trust.names import fault, may_be_in_context, may_be_in_part
from nemolaunch.trust.pickled import looked_at

IO = "context/io.json"
MAX_CONTEXT_BYTES = 1 << 26  # of some hundred kilobytes that a context has
CODE = "trust_remote_code"
MOST_REFS = 100  # of a chain of references


def context_fault(folder: Path) -> str | None:
    """Return what is wrong with the names in a checkpoint's `context/io.json`, as a clause; None if nothing is."""
    context = folder / "context"
    try:
        content = read_json(context / "io.json", MAX_CONTEXT_BYTES)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return f"its {IO} cannot be read: {error}"
    objects = content.get("objects") if isinstance(content, dict) else None
    if not isinstance(objects, dict):
        return f"its {IO} is damaged: it has no objects"
    refused = [name for name in _named(content) if not may_be_in_context(*name)]
    return fault(IO, refused) or _code_fault(objects) or _pickles_fault(context, objects)


def _named(content: Any) -> Iterator[tuple[str, str]]:
    """Yield what a context names. NeMo imports the type of an object whatever kind of entry it says to be."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "module" in value:
                yield str(value["module"]), str(value.get("name"))
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _code_fault(objects: dict[str, Any]) -> str | None:
    """Return a fault if an argument `trust_remote_code` is on.

    fiddle takes the names of arguments from a tuple in the metadata, whatever the labels of the values say.
    """
    for entry in objects.values():
        items = _items(entry)
        labels = [str(item[0]).removeprefix("Attr(name='").removesuffix("')") for item in _pairs(entry)]
        for names in (labels, [_plain(name, objects) for name in _argument_names(entry, objects)]):
            if any(
                n == CODE and _plain(v, objects) not in (False, None)
                for n, v in zip(names, items, strict=False)
            ):
                return fault(IO, [(CODE, "True")])
    return None


def _argument_names(entry: Any, objects: dict[str, Any]) -> list[Any]:
    """Return the names of an object's items: the keys of a dictionary, or the arguments of a call."""
    about = _entry(entry.get("metadata"), objects) if isinstance(entry, dict) else None
    found = _items(about)
    for inner in found[1:2]:  # of a call's metadata, the first is what is called
        names = _items(_entry(inner, objects))
        if names:
            return names
    return found


def _pickles_fault(context: Path, objects: dict[str, Any]) -> str | None:
    """Check the pickles in the context: NeMo reads one for an object that has one item, a file's name."""
    for entry in objects.values():
        items = _items(entry)
        name = _plain(items[0], objects) if len(items) == 1 else None
        if not isinstance(name, str) or "\0" in name or _is_builtin(entry) or not (context / name).is_file():
            continue
        if not is_within(context / name, context.parent):
            return f"its {IO} names the file {name!r}, which is not in the checkpoint"
        found = _pickle_fault(context / name)
        if found:
            return found
    return None


def _pickle_fault(path: Path) -> str | None:
    shown = f"context/{path.name}"
    try:
        with open(path, "rb") as file:
            names, called, texts = looked_at(file.read(MAX_CONTEXT_BYTES))
    except Exception as error:  # a damaged pickle can raise anything
        return f"its {shown} cannot be read: {type(error).__name__}: {error}"
    refused = [name for name in names if not (may_be_in_context(*name) or may_be_in_part(*name))]
    refused += [name for name in called if not may_be_in_part(*name)]
    return fault(shown, refused or ([(CODE, "True")] if CODE in texts else []))


def _is_builtin(entry: dict[str, Any]) -> bool:
    kind = entry.get("type")
    return isinstance(kind, dict) and kind.get("module") == "builtins"


def _items(entry: Any) -> list[Any]:
    return [value for _, value in _pairs(entry)]


def _pairs(entry: Any) -> list[Any]:
    """Return the labels and values of an object."""
    items = entry.get("items") if isinstance(entry, dict) else None
    return (
        [item for item in items if isinstance(item, list) and len(item) == 2]
        if isinstance(items, list)
        else []
    )


def _entry(value: Any, objects: dict[str, Any]) -> Any:
    """Return what a reference refers to, or the value itself."""
    for _ in range(MOST_REFS):
        if not isinstance(value, dict) or value.get("type") != "ref":
            return value
        value = objects.get(str(value.get("key")))
    return None


def _plain(value: Any, objects: dict[str, Any]) -> Any:
    """Return a leaf's value; anything else as it is."""
    value = _entry(value, objects)
    return value.get("value") if isinstance(value, dict) and value.get("type") == "leaf" else value
