"""Build the wheel and the sdist, the same bytes each time: `make dist`.

They hold what git tracks, with the time SOURCE_DATE_EPOCH (by default that of the last commit), whatever lies around,
the umask and the clock. https://reproducible-builds.org/docs/source-date-epoch/
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Write both to the folder given on the command line, `dist` by default, and print their digests."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "dist").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or git("log", "-1", "--format=%ct"))
    with tempfile.TemporaryDirectory() as name:
        clean = Path(name) / "source"
        for path in filter(None, git("ls-files", "-z").split("\0")):
            if (ROOT / path).is_file():
                copy(ROOT / path, clean / path)
        for kind in ("sdist", "wheel"):
            built = clean / "built" / build(clean, kind, epoch)
            if kind == "sdist":
                repack(built, epoch)
            shutil.copyfile(built, folder / built.name)
            shutil.rmtree(clean / "built")
            print(hashlib.sha256((folder / built.name).read_bytes()).hexdigest(), folder / built.name)


def git(*words: str) -> str:
    """Return what a command of git prints."""
    return subprocess.run(
        ["git", "-C", str(ROOT), *words], check=True, capture_output=True, text=True
    ).stdout.strip()


def copy(source: Path, target: Path) -> None:
    """Copy a file with permissions that do not depend on the umask."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755 if os.access(source, os.X_OK) else 0o644)


def build(source: Path, kind: str, epoch: int) -> str:
    """Have setuptools build one of the two in `built`. Return the name of the file."""
    code = (
        f"import sys; from setuptools import build_meta as b; print(b.build_{kind}('built'), file=sys.stderr)"
    )
    variables = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "PYTHONHASHSEED": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=source,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        umask=0o022,
    )
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}cannot build the {kind}")
    return done.stderr.strip().splitlines()[-1]


def repack(path: Path, epoch: int) -> None:
    """Write an sdist again with members in order, without owners and with the same time."""
    packed = io.BytesIO()
    with tarfile.open(path) as old, tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as new:
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    with open(path, "wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=epoch) as compressed:
        compressed.write(packed.getvalue())


if __name__ == "__main__":
    main()
