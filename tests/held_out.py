"""Corpora of which `nemolaunch tokenize` held out a share, for the tests of validation sets."""

from __future__ import annotations

from pathlib import Path

from check_jobs import TOKENIZER

from nemolaunch.cli.commands.tokenize import main as tokenize

CORPUS = Path(__file__).parents[1] / "examples" / "corpus"


def held_out_corpora(folder: Path) -> Path:
    """Tokenise two corpora, a fifth of each held out. Return the folder of their files."""
    for name in ("en", "zh_hant"):
        words = ["--hf-tokenizer", TOKENIZER, "--data-prefix", name, "--output-dir", str(folder)]
        words += ["--input-dir", str(CORPUS / f"{name}.jsonl"), "--validation-share", "0.2"]
        assert tokenize(words) == 0
    return folder / "preprocessed"
