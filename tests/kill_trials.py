"""Interrupt commands that replace something, at random moments, and look at what remains.

    python tests/kill_trials.py FOLDER NUM_TRIALS [COMMAND ...]

Each trial forks this process, which has imported everything, and runs the command with `--overwrite` over an earlier
result. Just before one of its calls that change names, flush or lock, it receives a signal, or the disk is full from
then on. Prints one JSON object: trials, faults, and how often each state was found.
"""

from __future__ import annotations

import collections
import importlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from nemolaunch.system import renames
from nemolaunch.system.replacement import complete_files, tidy

NAMES = ("rename", "replace", "unlink", "fsync", "mkdir", "ftruncate", "rmdir")
INTERRUPTIONS = ("KILL", "HUP", "INT", "TERM", "full")
WAYS = ("exchange", "two renames")
HERE = Path(__file__).parent


class Merge:
    """`merge` of two pairs."""

    module = "nemolaunch.cli.commands.merge"

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "out"
        import numpy as np

        from nemolaunch.tokenization.index import write_index

        for version in (1, 2):
            lengths = np.full(30 * version, 3, np.int32)
            lengths.tofile(folder / "seq")
            np.ones_like(lengths).tofile(folder / "doc")  # sequences of each document
            for part in "ab":
                np.full(lengths.sum(), version, np.int32).tofile(folder / f"in{version}{part}.bin")
                index = folder / f"in{version}{part}.idx"
                write_index(index, "int32", folder / "seq", folder / "doc")

    def words(self, version: int) -> list[str]:
        """Return the arguments that make the result of a version."""
        inputs = [str(self.folder / f"in{version}{part}") for part in "ab"]
        return [*inputs, "--output-prefix", str(self.out), "--overwrite"]

    def result(self) -> bytes | None:
        """Return what readers find under the name; None if nothing."""
        index = self.out.with_name(self.out.name + ".idx")
        return index.read_bytes() + index.with_suffix(".bin").read_bytes() if index.exists() else None

    def recover(self) -> None:
        """Do what the next command does first."""
        complete_files(self.out.with_name(f"{self.out.name}.merging"))

    def rubbish(self) -> list[str]:
        """Return what is neither an input nor a result."""
        names = [path.name for path in self.out.parent.iterdir()]
        return [name for name in names if name.startswith(".") or name.endswith((".merging", ".unfinished"))]


class Tokenize(Merge):
    """`tokenize` of a JSONL file."""

    module = "nemolaunch.cli.commands.tokenize"

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "preprocessed" / "data_text_document"
        shutil.copytree(HERE / "golden" / "tokens" / "tokenizer", folder / "tokenizer")
        for version in (1, 2):
            lines = [json.dumps({"text": f"some words {n} {version}"}) + "\n" for n in range(200 * version)]
            (folder / f"in{version}.jsonl").write_text("".join(lines))

    def words(self, version: int) -> list[str]:
        """Return the arguments that make the result of a version."""
        return [
            *("--hf-tokenizer", str(self.folder / "tokenizer"), "--input-dir"),
            *(
                str(self.folder / f"in{version}.jsonl"),
                "--output-dir",
                str(self.folder),
                "--data-prefix",
                "data",
            ),
            *("--workers", "1", "--engine", "hf", "--overwrite", "--restart"),
        ]

    def recover(self) -> None:
        """Do what the next command does first."""
        complete_files(self.out.parent / "data.unfinished")


class Convert(Merge):
    """`convert` of a Hugging Face folder to NeMo 2."""

    module = "nemolaunch.cli.commands.convert"

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "results" / "out"
        sys.path.insert(0, str(HERE))
        from tiny_llama import write_llama

        for version in (1, 2):
            write_llama(folder / f"in{version}", seed=version)

    def words(self, version: int) -> list[str]:
        """Return the arguments that make the result of a version."""
        source = str(self.folder / f"in{version}")
        return [source, str(self.out), "--to", "nemo2", "--verify", "none", "--overwrite"]

    def result(self) -> bytes | None:
        """Return what readers find under the name; None if nothing."""
        weights = self.out / "weights"
        if not (self.out / "context" / "io.json").exists() or not (weights / ".metadata").exists():
            return None
        return b"".join(
            path.read_bytes() for path in sorted(weights.glob("*.distcp"))
        )  # .metadata has a random id

    def recover(self) -> None:
        """Do what the next command does first."""
        tidy(self.out)


PLACES = {"merge": Merge, "convert": Convert, "tokenize": Tokenize}


def forked(work: Callable[[], int]) -> int:
    """Run in a child process. Return its exit code, negative for a signal."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        code = 1
        try:
            silent = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silent, 1)
            os.dup2(silent, 2)
            code = work()
        except SystemExit as error:
            code = int(error.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code & 255)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def command(place: Merge, version: int, number: int, what: str, way: str, count: Path) -> int:
    """Run the command, interrupted before its call with that number; 0 only counts the calls, into a file."""
    calls = 0

    def watched(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number and what == "full":
                resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
            elif calls == number:
                os.kill(os.getpid(), getattr(signal, f"SIG{what}"))
            return real(*given, **more)

        return call

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    if way == "two renames":
        renames._renameat2 = lambda: None  # type: ignore[assignment]
    else:
        renames._rename_with = watched(renames._rename_with)
    for name in NAMES:
        setattr(os, name, watched(getattr(os, name)))
    code = importlib.import_module(place.module).main(place.words(version))
    if not number:
        count.write_text(str(calls))
    return int(code)


def trials(
    kind: str, folder: Path, num_trials: int, chance: random.Random
) -> tuple[list[str], dict[str, int]]:
    """Interrupt one command that many times. Return what was lost or left behind, and the states that were found."""
    folder.mkdir()
    place, count = PLACES[kind](folder), folder / "count"
    importlib.import_module(place.module)
    expected, faults, seen = {}, [], collections.Counter[str]()
    for version in (1, 2):
        assert forked(partial(command, place, version, 0, "", "exchange", count)) == 0
        expected[version] = place.result()
    assert expected[1] != expected[2]
    num_calls, there = int(count.read_text()), 2
    for trial in range(num_trials):
        what, way = INTERRUPTIONS[trial % len(INTERRUPTIONS)], WAYS[trial // len(INTERRUPTIONS) % 2]
        number, wanted = chance.randint(1, num_calls), 3 - there
        code = forked(partial(command, place, wanted, number, what, way, count))
        about = f"{kind}, {what} before call {number} of {num_calls}, {way}, exit code {code}"
        found = place.result()
        if found is None:
            place.recover()
            found = place.result()
            seen["restored by the next command"] += found is not None
        state = {expected[there]: "old", expected[wanted]: "new"}.get(found)
        seen[state or "lost"] += 1
        if state is None:
            faults.append(f"{about}: lost")
        if (
            forked(partial(command, place, wanted, 0, "", "exchange", count))
            or place.result() != expected[wanted]
        ):
            faults.append(f"{about}: the next command does not succeed")
        if left := place.rubbish():
            faults.append(f"{about}: left behind {left}")
        there = wanted
    return faults, dict(seen)


def main(folder: str, num_trials: str, *kinds: str) -> None:
    """Run the trials and print what was found."""
    chance = random.Random(7)
    faults: list[str] = []
    seen: dict[str, dict[str, int]] = {}
    for kind in kinds or PLACES:
        more, seen[kind] = trials(kind, Path(folder, kind), int(num_trials), chance)
        faults += more
    print(json.dumps({"trials": int(num_trials) * len(seen), "faults": faults, "seen": seen}))


if __name__ == "__main__":
    main(*sys.argv[1:])
