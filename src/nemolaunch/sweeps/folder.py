"""The folder of a sweep: its record, and a run folder for each run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nemolaunch.errors import NemolaunchError
from nemolaunch.run.folder import RunDir
from nemolaunch.run.lock import RunLock
from nemolaunch.system.atomic_files import write_json
from nemolaunch.system.json_files import read_json

FORMAT = 1
RECORD, PAGE = "sweep.json", "report.html"


@dataclass(frozen=True, kw_only=True)
class Member:
    """One run as the sweep's record has it.

    Attributes:
        name: of its folder in that of the sweep.
        changes: the fields that it changes.
        weights: that its tokens per parameter count: active ones, without the input embedding.
        tokens: that it trains on.
        held_out: whether a ladder predicts it, and does not fit it.
    """

    name: str
    changes: dict[str, Any]
    weights: int = 0
    tokens: int = 0
    held_out: bool = False


@dataclass(frozen=True, kw_only=True)
class Record:
    """What `sweep.json` holds.

    Attributes:
        objective: the result by which runs are compared; the lowest is the best.
        kind: `sweep` or `ladder`.
    """

    kind: str
    members: tuple[Member, ...]
    objective: str = "val_loss"


def is_sweep(folder: Path) -> bool:
    """Return whether a folder is that of a sweep."""
    return (folder / RECORD).is_file()


def run_dir(folder: Path, name: str) -> RunDir:
    """Return the folder of a run of a sweep."""
    return RunDir(folder.absolute() / name)


def lock_of(folder: Path) -> RunLock:
    """Return the lock of a sweep's folder, which the process that starts its runs holds."""
    return RunLock(folder / "lock")


def write_record(folder: Path, record: Record) -> None:
    """Write the record of a sweep; runs of an earlier one in the same folder stay members."""
    if is_sweep(folder):
        own = {member.name for member in record.members}
        earlier = tuple(m for m in read_record(folder).members if m.name not in own)
        record = Record(**{**vars(record), "members": (*earlier, *record.members)})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / RECORD, {"format": FORMAT, **asdict(record)})
    except OSError as error:
        raise NemolaunchError(f"cannot write {folder / RECORD}: {error.strerror}") from None


def read_record(folder: Path) -> Record:
    """Read the record of a sweep.

    Raises:
        NemolaunchError: the folder has none, or it is damaged.
    """
    path = folder / RECORD
    try:
        content: Any = read_json(path)
        if content.pop("format") != FORMAT:
            raise ValueError("it has another format")
        content["members"] = tuple(Member(**row) for row in content["members"])
        return Record(**content)
    except OSError as error:
        raise NemolaunchError(f"{folder} is not a sweep: cannot read {path}: {error.strerror}") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise NemolaunchError(f"{path} is not the record of a sweep: {error}") from None


def sweeps_below(folder: Path) -> list[Path]:
    """Return the sweeps in a folder, by name."""
    return sorted(path.parent for path in folder.glob(f"*/{RECORD}"))
