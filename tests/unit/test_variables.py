"""Variables of a job: shown with where they come from, and no secret among them."""

from __future__ import annotations

import pytest
from golden.batch_plans import plan_of

from nemolaunch.cli.commands import pretrain
from nemolaunch.cli.views.launch import launch_lines
from nemolaunch.errors import UsageError
from nemolaunch.job.env_presets import PRESETS, given_values, preset_values


@pytest.mark.parametrize("name", ["HF_TOKEN", "WANDB_API_KEY", "aws_secret_access_key", "MY_PASSWORD"])
def test_a_secret_is_refused_and_not_repeated(name: str) -> None:
    with pytest.raises(UsageError) as raised:
        given_values([f"{name}=canary"])
    assert f"Export {name}" in str(raised.value)
    assert "canary" not in str(raised.value)


def test_a_secret_is_refused_before_anything_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-M", "llama32_1b", "--executor", "slurm", "--env", "HF_TOKEN=canary", "--dry-run"]
    assert pretrain.main(words) == 2
    said = capsys.readouterr()
    assert "canary" not in said.out + said.err


def test_values_with_equals_signs_and_harmless_names_pass() -> None:
    words = ["NCCL_SOCKET_IFNAME==eth0", "TOKENIZERS_PARALLELISM=true", "CUDA_DEVICE_MAX_CONNECTIONS=1"]
    assert given_values(words)["NCCL_SOCKET_IFNAME"] == "=eth0"
    assert len(given_values(words)) == 3


def test_of_two_presets_the_later_one_wins() -> None:
    both = preset_values(["deterministic", "debug"])
    assert both == {**PRESETS["deterministic"].values, **PRESETS["debug"].values}
    assert all(preset.source and preset.values for preset in PRESETS.values())


def test_the_plan_shows_variables_and_mounts_with_where_they_come_from() -> None:
    shown = "\n".join(" ".join(line.split()) for line in launch_lines(plan_of("torchrun")))
    assert "NCCL_NET=AWS Libfabric preset slingshot, unless exported" in shown
    assert "GLOO_SOCKET_IFNAME=hsn0 flag" in shown
    assert "mounts /data/corpus/preprocessed:/data/corpus/preprocessed" in shown
    assert "mounts" not in "\n".join(launch_lines(plan_of("no-container")))
