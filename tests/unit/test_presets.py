"""`--preset`: flags below those of a file and of the command line, each with its origin."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemolaunch import catalogue
from nemolaunch.cli.commands.pretrain import main
from nemolaunch.cli.parsing.flags import job_from, origins_from
from nemolaunch.errors import UsageError

PRESET = str(Path(__file__).with_name("preset_for_h200.yaml"))


def test_flags_and_files_win_over_a_preset(tmp_path: Path) -> None:
    config = tmp_path / "job.yaml"
    config.write_text(f"preset: {PRESET}\nmodel_name: llama32_1b\nglobal_batch_size: 64\n")
    job = job_from({"fp8": False}, config)
    assert (job.batch.micro_batch_size, job.batch.fp8) == (2, False)
    assert (job.batch.global_batch_size, job.batch.global_batch_tokens) == (64, None)
    assert origins_from({"fp8": False}, config) == {
        "preset": "file job.yaml",
        "model_name": "file job.yaml",
        "global_batch_size": "file job.yaml",
        "micro_batch_size": f"preset {PRESET}",
        "fp8": "flag",
    }


def test_the_plan_says_what_comes_from_the_preset(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["-M", "llama32_1b", "--preset", PRESET, "--gpu", "h100", "--dataset-dir", str(tmp_path)]
    main([*words, "--output-dir", str(tmp_path / "run"), "--executor", "slurm", "--dry-run"])
    said = capsys.readouterr()
    assert "preset-gpu" in said.err + said.out
    assert "was measured on NVIDIA H200, but this job is for h100" in " ".join((said.err + said.out).split())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("flags: {no_such_flag: 1}", "no_such_flag"),
        ("flags: {micro_batch_size: many}", "--micro-batch-size takes a whole number"),
        ("flags: {max_steps: 1, max_tokens: 1M}", "set the same quantity"),
        ("flags: {preset: other}", "names another preset"),
        ("micro_batch_size: 2", "has no `flags:`"),
        ("flags: {}\nspeed: 3", "unknown key speed"),
        ("flags: [", "test.yaml"),
    ],
)
def test_a_wrong_preset_is_refused(text: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "test.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match="--preset") as caught:
        job_from({"model_name": "llama32_1b", "preset": str(path)}, None)
    assert why in str(caught.value)


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(UsageError, match="no preset 'h200'"):
        job_from({"model_name": "llama32_1b", "preset": "h200"}, None)


def test_every_shipped_preset_has_a_source_and_valid_flags() -> None:
    for name in catalogue.presets():
        shipped = catalogue.preset(name)
        assert shipped.source
        assert job_from({"model_name": shipped.model or "llama32_1b", "preset": name}, None)


def test_presets_for_a_gpu_were_measured() -> None:
    for shipped in map(catalogue.preset, catalogue.presets()):
        if not shipped.gpu:
            continue
        assert catalogue.gpu(shipped.gpu)
        assert shipped.model in {recipe.name for recipe in catalogue.recipes()}
        assert shipped.figures["tokens_per_s_per_gpu"] > 0
