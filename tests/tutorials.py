"""The tutorials, run as written in a shell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "tutorials"
TIMEOUT_S = 1200


def typed(tutorial: str, folder: Path, **variables: str) -> str:
    """Run every command of a tutorial in a folder that has the examples, as a clone does. Return the output.

    Raises AssertionError with the end of the output if a command fails.
    """
    (folder / "examples").symlink_to(ROOT / "examples")
    text = (FOLDER / tutorial).read_text(encoding="utf-8")
    program = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.S))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", program],
        cwd=folder,
        env={**os.environ, **variables, "PATH": path, "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    return done.stdout
