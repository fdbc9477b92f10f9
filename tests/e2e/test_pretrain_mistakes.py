"""A user's mistake on the command line: what is wrong, in a line, an exit code, and nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e.command import pretrain
from e2e.jobs import LLAMA, TOKENIZER

# arguments besides those of a sound job → exit code, and what stderr has to say
MISTAKES: dict[str, tuple[list[str], int, str]] = {
    "misspelt flag": (["--max-step", "3"], 2, "near: --max-steps"),
    "stray word": (["stray"], 2, "stray"),
    "no value": (["--max-steps"], 2, "--max-steps"),
    "not a number": (["--max-steps", "three"], 2, "--max-steps: invalid int value: 'three'"),
    "no such choice": (["--optimizer", "lion"], 2, "'adam', 'sgd'"),
    "no such model": (["-M", "llama3_8"], 2, "Did you mean llama3_8b"),
    "the same twice": (["--max-tokens", "1M"], 2, "--max-steps and --max-tokens"),
    "no such file": (["--config", "none.yaml"], 2, "--config none.yaml: No such file"),
    "not YAML": (["--config", "broken.yaml"], 2, "--config broken.yaml is not YAML"),
    "unknown keys": (["--config", "wrong.yaml"], 2, "'max_stepz'; did you mean max_steps?"),
    "does not divide": (["-TP", "3"], 1, "-TP 3 does not divide the 4 attention heads"),
    "odd batch": (["-gbs", "7", "-mbs", "2"], 1, "-gbs 7 is not a multiple of"),
    "below its range": (["--seq-length", "0"], 1, "--seq-length 0 is out of range: it must be between 1"),
    "not a rate": (["--lr", "nan"], 1, "--lr nan is out of range: it must be above 0"),
    "no such data": (["--dataset-dir", "nowhere"], 1, "nowhere is neither a folder nor"),
    "no such tokenizer": (["--hf-model-id", "./nowhere"], 1, "--hf-model-id: there is no folder ./nowhere"),
    "no such checkpoint": (["--nemo-model", "nowhere"], 1, "--nemo-model"),
    "no folder name": (["-E", "../x"], 1, "-E '../x'"),
    "not on a CPU": (["-M", "hyena_1b"], 1, "Hyena layers need CUDA kernels"),
    "too large for this machine": (["-M", "deepseek_v3"], 1, "of host memory, but this machine has"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_in_a_line(name: str, data: str, tmp_path: Path) -> None:
    arguments, code, said = MISTAKES[name]
    (tmp_path / "small.yaml").write_text(LLAMA)
    (tmp_path / "broken.yaml").write_text("a: [b\n")
    (tmp_path / "wrong.yaml").write_text("max_stepz: 3\n")
    before = sorted(tmp_path.rglob("*"))
    sound = ["-M", "small.yaml", "--dataset-dir", data, "--hf-model-id", TOKENIZER]
    sound += ["-gbs", "8", "--max-steps", "3"]
    done = pretrain(*sound, *arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("note", "warning"))]
    assert all(line.startswith("error") for line in lines)
    assert len(lines) == 1 or lines[-1].endswith("nothing was started")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_model_is_required(tmp_path: Path) -> None:
    done = pretrain("--max-steps", "3", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --model-name is required")
    assert list(tmp_path.iterdir()) == []
