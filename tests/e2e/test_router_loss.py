"""The router's loss has the gradient of its formula, and recomputed modules run twice without changing anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from e2e.jobs import ROOT, planned
from forkserver import ForkServer

MODEL = str(ROOT / "tests" / "truth" / "models" / "experts.yaml")
LAYERS, MICRO_BATCHES, RATE = 4, 2, 0.1
# plain steepest descent, so that the change of a weight is its gradient
DESCENT: dict[str, Any] = {
    "optimizer": "sgd",
    "disable_dist_optim": True,
    "lr": RATE,
    "min_lr": RATE,
    "warmup_steps": 0,
    "clip_grad": 0.0,
    "max_steps": 1,
    "global_batch_size": MICRO_BATCHES,
}


def trained(
    server: ForkServer, folder: Path, data: str, **values: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a step reports, and what was recorded of its last router."""
    import torch

    folder.mkdir()
    plan = planned(folder, data, model_name=MODEL, **{**DESCENT, **values})
    job = {"plan_file": str(plan.run.plan), "record": str(folder / "record.pt")}
    (result,) = server.run("e2e.router_job:train", job)
    return result, torch.load(folder / "record.pt")


def test_gradient_and_recompute(fork_server: ForkServer, data: str, tmp_path: Path) -> None:
    import torch

    plain, before = trained(fork_server, tmp_path / "plain", data)
    weight = 0.5
    recomputed = {"recompute_granularity": "selective", "recompute_modules": ("moe", "core_attn")}
    other, after = trained(fork_server, tmp_path / "other", data, moe_z_loss_coeff=weight, **recomputed)

    assert other["loss"] == plain["loss"], "it is not part of the reported loss"
    assert plain["ran"] == {"moe": LAYERS * MICRO_BATCHES, "core_attn": LAYERS * MICRO_BATCHES}
    # attention kernels are called again by the layer's own checkpoint, experts inside their layer
    assert len(before["inputs"]) == MICRO_BATCHES
    assert len(after["inputs"]) == 2 * MICRO_BATCHES
    assert other["ran"]["core_attn"] == 2 * LAYERS * MICRO_BATCHES

    router = before["before"].clone().requires_grad_()
    for x in before["inputs"]:  # ST-MoE (arXiv 2202.08906), equation 5
        logits = x.reshape(-1, x.shape[-1]).float() @ router.float().T
        (weight * logits.logsumexp(-1).square().mean() / MICRO_BATCHES).backward()
    assert router.grad is not None
    changed = after["after"] - before["after"]
    assert changed.norm() > 0
    assert torch.equal(after["before"], before["before"])
    assert (changed + RATE * router.grad).norm() <= 1e-4 * (RATE * router.grad).norm()
