"""Lower layers never import higher ones, and planning imports nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "nemolaunch"

# From the bottom up. Packages on one row do not import each other, except where the row says so below.
ROWS: list[set[str]] = [
    {"errors", "findings", "causes", "quantities"},
    {
        "index",
        "rundir",
        "slurmqueue",
        "processes",
        "owncode",
        "plainly",
        "fingerprint",
        "blend",
        "profiling",
        "workers",
        "nearby",
        "ask",
        "jobfield",
        "textfiles",
        "vocabulary",
    },
    {
        "startpoint",
        "submission",
        "starts",
        "runlock",
        "variables",
        "datafile",
        "tokenizerdir",
        "cluster",
        "streamspec",
        "sshhost",
    },
    {"failure"},
    {"job", "catalogue", "streamfacts"},
    {"facts"},
    {"arithmetic", "mixture", "streamplan", "attention"},
    {"resolve", "devrun"},
    {"check", "estimate"},
    {"advice", "fit"},
    {"plan"},
    {"batchjob"},
    {"sbatch", "tokens", "corpora", "checkpoint", "masking"},
    {"stream"},
    {"nemo2"},
    {"execute", "observe", "evaluate"},
    {"diagnose"},
    {"slurm_run", "publish"},
    {"onhost"},
    {"status", "doctor"},
    {"cli"},
]
SAME_ROW_MAY: set[tuple[str, str]] = set()
ONLY_NEMO2 = {"nemo", "megatron", "nemo_run", "lightning"}
HEAVY = ["torch", "numpy", "nemo", "nemo_run", "lightning", "megatron", "transformers", "tokenizers", "rich"]


def layer_of(module: str) -> int:
    for number, row in enumerate(ROWS):
        if module in row:
            return number
    raise AssertionError(f"nemolaunch.{module} has no place in the layers: put it into ROWS")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "nemolaunch":
                yield from (f"nemolaunch.{alias.name}" for alias in node.names)
            else:
                yield node.module


def modules() -> list[Path]:
    return sorted(p for p in SOURCE.rglob("*.py") if p.name != "__init__.py" or p.parent != SOURCE)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_down(path: Path) -> None:
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    for name in imports(path):
        root, _, rest = name.partition(".")
        if root in ONLY_NEMO2:
            assert own == "nemo2", f"{name} may be imported in nemo2/ only"
        if root == "nemolaunch" and rest:
            other = rest.partition(".")[0]
            allowed = other == own or (own, other) in SAME_ROW_MAY or layer_of(other) < layer_of(own)
            assert allowed, f"nemolaunch.{other} is not below nemolaunch.{own}"


def test_planning_imports_nothing_heavy() -> None:
    """`--help` and a dry run answer at once because of this."""
    code = (
        "import sys; import nemolaunch.plan, nemolaunch.cli.pretrain, nemolaunch.cli.main;"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
