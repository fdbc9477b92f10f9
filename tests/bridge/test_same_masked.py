"""Masked language models with Megatron-Bridge: losses, gradients and checkpoints are those of NeMo 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bridge.test_same_training import BRIDGE, job, train_bridge
from cases import cases
from e2e.jobs import train as train_nemo
from e2e.test_mlm import MLM
from forkserver import ForkServer, JobFailed
from held_out import held_out_corpora
from safetensors.torch import load_file

from nemolaunch.checkpoint.convert.convert import convert
from nemolaunch.facts.checkpoint import look_at_checkpoint
from nemolaunch.planning import Plan
from nemolaunch.run import metrics

SHORT: dict[str, Any] = {"max_steps": 4, "global_batch_size": 8, **MLM}
TWO: dict[str, Any] = {"num_gpus": 2}
CASES: dict[str, dict[str, Any]] = {
    "bert, TP2 SP": {
        **TWO,
        "tensor_model_parallel_size": 2,
        "sequence_parallel": True,
        "mlm_replacement": "bert",
    },
    "PP2, interleaved": {
        **TWO,
        "pipeline_model_parallel_size": 2,
        "virtual_pipeline_model_parallel_size": 2,
    },
    "CP2": {**TWO, "context_parallel_size": 2},
}
LONG = {"bert, TP2 SP", "CP2"}


@pytest.mark.parametrize("name", cases(CASES, LONG))
def test_same_losses(
    name: str, bridge_server: ForkServer, fork_server: ForkServer, data: str, tmp_path: Path
) -> None:
    values = {**SHORT, **CASES[name]}
    nemo = train_nemo(fork_server, job(tmp_path / "nemo2", data, **values))
    bridge = train_bridge(bridge_server, job(tmp_path / "bridge", data, **BRIDGE, **values))
    assert bridge[-1]["loss"] == nemo[0]["loss"]
    assert bridge[0]["grad_norm"] == nemo[0]["grad_norm"]


def test_killed_resumed_validated_and_exported(
    bridge_server: ForkServer, fork_server: ForkServer, data: str, tmp_path: Path
) -> None:
    """A run that is killed continues with the same masks; its checkpoint says that it looks both ways.

    It becomes the Hugging Face model that NeMo 2's becomes.
    """
    held = held_out_corpora(tmp_path / "corpora")
    values: dict[str, Any] = {**SHORT, "dataset_dir": [str(held)], "split": None, "mlm_replacement": "span"}
    values |= {"limit_val_batches": 1, "val_check_interval": 2, "checkpoint_every": 2}
    nemo = job(tmp_path / "nemo2", data, **values)
    (expected,) = train_nemo(fork_server, nemo)
    plan = job(tmp_path / "bridge", data, **BRIDGE, **values)
    with pytest.raises(JobFailed, match="-9"):
        train_bridge(bridge_server, plan, kill_after=3)
    (rest,) = train_bridge(bridge_server, plan)
    assert rest["step"] == [3, 4]
    assert rest["loss"] == expected["loss"][2:]
    for row, right in zip(all_of_validations(plan)[-2:], all_of_validations(nemo), strict=True):
        assert row == pytest.approx(right, rel=1e-4)  # NeMo 2 averages the losses of batches, not of tokens
    last, others = plan.run.last_checkpoint(), nemo.run.last_checkpoint()
    assert last is not None
    assert others is not None
    assert look_at_checkpoint(str(last)).both_sides is True
    folders = tmp_path / "hf-bridge", tmp_path / "hf-nemo2"
    convert(last, folders[0], "hf")
    convert(others, folders[1], "hf")
    configs = [json.loads((folder / "config.json").read_text()) for folder in folders]
    assert configs[0] == configs[1]
    assert configs[0]["model_type"] == "llama_bidirectional"
    bridge, right_one = (load_file(folder / "model.safetensors") for folder in folders)
    assert bridge.keys() == right_one.keys()
    assert all((bridge[name] == right_one[name]).all() for name in bridge)
    convert(folders[0], tmp_path / "again", "bridge")
    assert look_at_checkpoint(str(tmp_path / "again")).both_sides is True


def all_of_validations(plan: Plan) -> list[dict[str, float]]:
    """Losses and accuracies of each validation, those of sets included."""
    rows = [row for row in metrics.read(plan.run.metrics) if "val_loss" in row]
    return [{name: row[name] for name in row if name.startswith(("val_loss", "val_masked"))} for row in rows]
