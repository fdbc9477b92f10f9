"""Whether a copy of a tokenizer is complete."""

from __future__ import annotations

from pathlib import Path

from nemolaunch.checkpoint.storage.check import Check
from nemolaunch.tokenizer import completion
from nemolaunch.tokenizer.files import files_of


def tokenizer_check(tokenizer: Path, target: Path) -> Check:
    """Compare every file of a tokenizer folder with its copy in `target`."""
    rewritten = completion.REWRITTEN if completion.reason(tokenizer) else ()
    files = [file for file in files_of(tokenizer) if file.name not in rewritten]
    wrong = []
    for file in files:
        copy = target / file.name
        if not copy.is_file():
            wrong.append(f"{file.name} is missing")
        elif copy.read_bytes() != file.read_bytes():
            wrong.append(f"{file.name} differs")
    return Check("tokenizer", len(files), wrong)
