"""The same plan trains alike with NeMo 2 and with Megatron-Bridge: loss and gradient norm of every step are identical.

The right values are NeMo 2's own, from the same plan on the same machine.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
from bridge.conftest import PYTHON
from cases import cases
from e2e.jobs import LLAMA, planned
from e2e.jobs import train as train_nemo
from forkserver import ForkServer, JobFailed

from nemolaunch.facts.submission import Submission
from nemolaunch.planning import Plan
from nemolaunch.run import metrics

STEPS = 8
BRIDGE: dict[str, Any] = {"backend": "bridge", "python": str(PYTHON)}
# Besides one rank in fp32, of which the tests of resuming are
LAYOUTS: dict[str, dict[str, Any]] = {
    # few tokens: some CPUs take seconds for a step in bf16
    "tied, bf16, DP2": {
        "precision": "bf16",
        "num_gpus": 2,
        "tied": True,
        "max_steps": 4,
        "global_batch_size": 4,
    },
    "TP2 SP": {"num_gpus": 2, "tensor_model_parallel_size": 2, "sequence_parallel": True},
    "PP2, another seed": {"num_gpus": 2, "pipeline_model_parallel_size": 2, "seed": 7},
    "PP2, interleaved": {
        "num_gpus": 2,
        "pipeline_model_parallel_size": 2,
        "virtual_pipeline_model_parallel_size": 2,
    },
    "DP4, optimizer in two copies": {"num_gpus": 4, "num_distributed_optimizer_instances": 2},
    "CP2": {"num_gpus": 2, "context_parallel_size": 2},
    "Mixtral": {"base": "mixtral_8x7b"},
    "Mixtral, EP2": {"base": "mixtral_8x7b", "num_gpus": 2, "expert_model_parallel_size": 2},
}
LONG = {"PP2, another seed", "DP4, optimizer in two copies", "CP2", "Mixtral, EP2"}
# are killed and continue, with Bridge
RESUMED = {"PP2, interleaved", "DP4, optimizer in two copies", "CP2", "Mixtral, EP2"}


def train_bridge(server: ForkServer, plan: Plan, **kwargs: Any) -> list[dict[str, Any]]:
    """Run the plan in as many ranks as it says. Returns what each recorded."""
    return server.run(
        "bridge.train_bridge_plan:train", {"plan_file": str(plan.run.plan), **kwargs}, nproc=plan.world_size
    )


def job(folder: Path, data: str, *, tied: bool = False, base: str = "llama3_8b", **values: Any) -> Plan:
    """A plan of a small model of that family."""
    text = LLAMA.replace("llama3_8b", base)
    text += "share_embeddings_and_output_weights: true\n" if tied else ""
    folder.mkdir()
    (folder / "model.yaml").write_text(text)
    return planned(folder, data, **{"model_name": str(folder / "model.yaml"), "max_steps": STEPS, **values})


@pytest.fixture(scope="module")
def quiet(fork_server: ForkServer, data: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What NeMo 2's own uninterrupted run on one rank had."""
    (nemo,) = train_nemo(fork_server, job(tmp_path_factory.mktemp("quiet") / "nemo2", data))
    return nemo


def test_killed_and_resumed(
    bridge_server: ForkServer, quiet: dict[str, Any], data: str, tmp_path: Path
) -> None:
    """A run that is killed after its fifth step continues from its fourth as if nothing had happened.

    So does another run that is given its checkpoint.
    """
    plan = job(tmp_path / "bridge", data, **BRIDGE, checkpoint_every=4)
    with pytest.raises(JobFailed, match="-9"):
        train_bridge(bridge_server, plan, kill_after=5)
    last = plan.run.last_checkpoint()
    assert last is not None
    assert last.name == "iter_0000004"
    (bridge,) = train_bridge(bridge_server, plan)
    assert bridge["step"] == [5, 6, 7, 8]
    for name in ("loss", "grad_norm"):
        assert bridge[name] == quiet[name][4:]
    assert last_rows(plan) == quiet["loss"]
    (other,) = train_bridge(bridge_server, job(tmp_path / "other", data, **BRIDGE, resume=str(last)))
    assert other["step"] == [5, 6, 7, 8]
    assert other["loss"] == quiet["loss"][4:]


def test_asked_to_exit_and_resumed(
    bridge_server: ForkServer, quiet: dict[str, Any], data: str, tmp_path: Path
) -> None:
    """A signal in the third step, and a time limit that is near: each saves and exits, and nothing else changes."""
    plan = job(tmp_path / "bridge", data, **BRIDGE)
    plan = dataclasses.replace(plan, submission=Submission(number=1, bin="/"))
    plan.save()
    (first,) = train_bridge(bridge_server, plan, ask_after=2)
    plan.run.slurm_end.parent.mkdir(exist_ok=True)
    plan.run.slurm_end.write_text(f"{time.time() + 100:.0f} 30\n")
    (second,) = train_bridge(bridge_server, plan)
    plan.run.slurm_end.unlink()
    (third,) = train_bridge(bridge_server, plan)
    assert [run["step"] for run in (first, second, third)] == [[1, 2, 3], [4], [5, 6, 7, 8]]
    assert first["loss"] + second["loss"] + third["loss"] == quiet["loss"]
    left = [row for row in metrics.read(plan.run.metrics) if row.get("event") == "left"]
    assert [row["step"] for row in left] == [3, 4]
    assert left[0]["text"] == "signal SIGTERM"
    assert left[1]["text"].startswith("time limit in ")
    assert json.loads(plan.run.finished.read_text())["step"] == STEPS
    assert float(plan.run.slurm_slowest_save.read_text()) > 0


def test_the_guards_act_before_an_update(bridge_server: ForkServer, data: str, tmp_path: Path) -> None:
    """An output that is not a number on one of two ranks: its update is left out by both, or ends the run.

    The first run is also profiled.
    """
    values: dict[str, Any] = {**BRIDGE, "num_gpus": 2, "max_steps": 4, "disable_dist_optim": True}
    profile: dict[str, Any] = {"profile": "pytorch", "profile_steps": "1:2", "profile_ranks": ["1"]}
    plan = job(tmp_path / "skip", data, **values, **profile, on_not_finite="skip")
    first, second = train_bridge(bridge_server, plan, spoil=[1, 3, float("nan")])
    assert [math.isfinite(loss) for loss in first["loss"]] == [True, True, False, True]
    assert first["weights"][2] == first["weights"][1]  # the third update changed nothing
    assert first["weights"][3] != first["weights"][2]
    assert first["weights"] == second["weights"]
    rows = [row for row in metrics.read(plan.run.metrics) if "loss" in row]
    assert [row.get("skipped_updates") for row in rows] == [None, None, 1, 1]
    (trace,) = (path for path in plan.run.traces.rglob("*") if path.is_file())
    assert trace.name == "rank-1.json"
    assert json.loads(trace.read_text())["traceEvents"]

    plan = job(tmp_path / "stop", data, **values)
    with pytest.raises(JobFailed, match=r"found NaN|not finite"):
        train_bridge(bridge_server, plan, spoil=[1, 3, float("nan")])
    assert [row["step"] for row in metrics.read(plan.run.metrics) if "loss" in row] == [1, 2]


def last_rows(plan: Plan) -> list[float]:
    """The loss of each step in the metrics file; of a step that was trained twice, the last."""
    rows = [json.loads(line) for line in plan.run.metrics.read_text().splitlines()]
    return list({row["step"]: row["loss"] for row in rows if "loss" in row}.values())


@pytest.mark.parametrize("name", cases(LAYOUTS, LONG))
def test_same_losses(
    name: str, bridge_server: ForkServer, fork_server: ForkServer, data: str, tmp_path: Path
) -> None:
    nemo = train_nemo(fork_server, job(tmp_path / "nemo2", data, **LAYOUTS[name]))
    half_way: dict[str, Any] = {"checkpoint_every": 4} if name in RESUMED else {}
    plan = job(tmp_path / "bridge", data, **BRIDGE, **LAYOUTS[name], **half_way)
    if name in RESUMED:
        with pytest.raises(JobFailed, match="-9"):
            train_bridge(bridge_server, plan, kill_after=5)
        rest = train_bridge(bridge_server, plan)
        assert rest[-1]["step"] == [5, 6, 7, 8]
        rows = {row["step"]: row for row in metrics.read(plan.run.metrics) if "loss" in row}
        assert [rows[step]["loss"] for step in sorted(rows)] == nemo[0]["loss"]
        assert [rows[step]["grad_norm"] for step in sorted(rows)] == nemo[0]["grad_norm"]
        return
    bridge = train_bridge(bridge_server, plan)
    assert bridge[-1]["step"] == nemo[0]["step"] == list(range(1, LAYOUTS[name].get("max_steps", STEPS) + 1))
    assert bridge[-1]["loss"] == nemo[0]["loss"]
    assert bridge[0]["grad_norm"] == nemo[0]["grad_norm"]
    assert bridge[0]["lr"] == pytest.approx(nemo[0]["lr"], rel=1e-7)  # NeMo logs it in fp32
