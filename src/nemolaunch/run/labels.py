"""Tags and notes that a user gives a run, to find it again and to remember what it was for."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from nemolaunch.errors import UsageError
from nemolaunch.run.folder import RunDir
from nemolaunch.system.atomic_files import write_json
from nemolaunch.system.json_files import read_json

_TAG = re.compile(r"[^\s,]{1,64}")


@dataclass(frozen=True, kw_only=True)
class Note:
    """A remark about a run, and when it was made, in Unix seconds."""

    text: str
    time: float


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The tags and the notes of a run, oldest first."""

    tags: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()


def labels_of(run: RunDir) -> Labels:
    """Return the labels of a run; none if there is no file of them, or it is damaged."""
    try:
        content: Any = read_json(run.labels)
        notes = (Note(text=str(row["text"]), time=float(row["time"])) for row in content["notes"])
        return Labels(tags=tuple(map(str, content["tags"])), notes=tuple(notes))
    except (OSError, ValueError, LookupError, TypeError):
        return Labels()


def checked_tags(words: Iterable[str]) -> tuple[str, ...]:
    """Return tags, each once.

    Raises:
        UsageError: one is empty, too long, or contains a space or a comma.
    """
    tags = tuple(dict.fromkeys(words))
    for tag in tags:
        if not _TAG.fullmatch(tag):
            raise UsageError(f"the tag {tag!r} must have 1 to 64 characters, without spaces and commas")
    return tags


def label(run: RunDir, *, add: Iterable[str] = (), remove: Iterable[str] = (), note: str = "") -> Labels:
    """Change the labels of a run, and return what they are now.

    Raises:
        UsageError: a tag is not valid, or one that is to be removed is not there.
    """
    before, gone = labels_of(run), set(remove)
    if missing := sorted(gone - set(before.tags)):
        have = f"; it has {', '.join(before.tags)}" if before.tags else "; it has none"
        raise UsageError(f"--remove {missing[0]}: the run has no such tag{have}")
    tags = tuple(tag for tag in before.tags if tag not in gone)
    after = replace(before, tags=checked_tags((*tags, *checked_tags(add))))
    if note.strip():
        after = replace(after, notes=(*after.notes, Note(text=note.strip(), time=time.time())))
    if after != before:
        run.root.mkdir(parents=True, exist_ok=True)
        write_json(run.labels, asdict(after))
    return after
