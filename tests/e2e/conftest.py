"""Data that the end-to-end tests share."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The sample corpus, tokenised by the project's own script."""
    folder = tmp_path_factory.mktemp("data")
    words = ["--hf-tokenizer", "examples/tokenizer", "--data-prefix", "sample"]
    words += ["--input-dir", "examples/corpus", "--output-dir", str(folder)]
    subprocess.run(["bash", "preprocess_data.sh", *words], cwd=ROOT, check=True, capture_output=True)
    return str(folder)
