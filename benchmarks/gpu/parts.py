"""Split files into parts of limited size, and put them together again. Standard library only."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

MIB = 2**20
MANIFEST = "manifest.json"
CHUNK = 8 * MIB


def split(folder: Path, target: Path, limit: int) -> list[Path]:
    """Split the files in `folder` into `target/part-1`, `part-2`, …, each of at most `limit` bytes.

    Files are cut where a part is full. Every part contains the list of all pieces with their SHA-256.
    """
    for old in target.glob("part-*"):
        shutil.rmtree(old)
    pieces: list[dict[str, Any]] = []
    part, room = 0, 0
    for path in sorted(folder.iterdir(), key=lambda p: p.stat().st_size):
        left, number = path.stat().st_size, 0
        with open(path, "rb") as file:
            while left or number == 0:
                if room == 0:
                    part, room = part + 1, limit
                    (target / f"part-{part}").mkdir(parents=True)
                size, number = min(left, room), number + 1
                name = f"{path.name}.{number:03}"
                digest = _copy(file, target / f"part-{part}" / name, size)
                pieces.append(
                    {"file": path.name, "piece": name, "part": part, "bytes": size, "sha256": digest}
                )
                left, room = left - size, room - size
    parts = [target / f"part-{number}" for number in range(1, part + 1)]
    for folder_of_part in parts:
        (folder_of_part / MANIFEST).write_text(json.dumps({"parts": part, "pieces": pieces}, indent=1))
    return parts


def _copy(source: Any, target: Path, size: int) -> str:
    """Copy `size` bytes. Return their SHA-256."""
    digest = hashlib.sha256()
    with open(target, "wb") as file:
        while size:
            block = source.read(min(size, CHUNK))
            digest.update(block)
            file.write(block)
            size -= len(block)
    return digest.hexdigest()


def collect(arrived: list[Path], stash: Path) -> list[int]:
    """Copy parts into `stash`. Return the numbers of the parts still missing.

    Raises:
        ValueError: a piece is damaged, or the parts belong to different lists.
    """
    stash.mkdir(parents=True, exist_ok=True)
    kept = stash / MANIFEST
    for folder in arrived:
        text = (folder / MANIFEST).read_text()
        if kept.exists() and kept.read_text() != text:
            raise ValueError(f"{folder} belongs to another set of wheels than {stash}; empty {stash} first")
        kept.write_text(text)
        for piece in json.loads(text)["pieces"]:
            path = folder / piece["piece"]
            if path.exists():
                shutil.copyfile(path, stash / piece["piece"])
    if not kept.exists():
        return []
    pieces = json.loads(kept.read_text())["pieces"]
    return sorted({piece["part"] for piece in pieces if not _whole(stash, piece)})


def _whole(stash: Path, piece: dict[str, Any]) -> bool:
    """Return whether a piece is in `stash`. Raises ValueError if it is damaged."""
    path = stash / piece["piece"]
    if not path.exists():
        return False
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
    if digest.hexdigest() != piece["sha256"]:
        raise ValueError(f"{path} is damaged: copy part {piece['part']} again")
    return True


def join(stash: Path, target: Path) -> list[Path]:
    """Put the files together in `target`. All parts must be in `stash`. Return their paths."""
    target.mkdir(parents=True, exist_ok=True)
    files: dict[str, list[str]] = {}
    for piece in json.loads((stash / MANIFEST).read_text())["pieces"]:
        files.setdefault(piece["file"], []).append(piece["piece"])
    for name, pieces in files.items():
        with open(target / name, "wb") as whole:
            for piece in pieces:
                with open(stash / piece, "rb") as file:
                    shutil.copyfileobj(file, whole, CHUNK)
    return [target / name for name in files]
