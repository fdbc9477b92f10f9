"""Megatron-Bridge's own validation of random jobs that the checks accept. Runs in a process of its fork server."""

from __future__ import annotations

import contextlib
import os
import random
import sys
from collections import Counter
from collections.abc import Iterator
from types import ModuleType
from typing import Any
from unittest import mock

import check_jobs
from random_jobs import random_values

from nemolaunch import catalogue
from nemolaunch.catalogue import bridge_models
from nemolaunch.check import check
from nemolaunch.facts import Host
from nemolaunch.facts.interpreter import Interpreter
from nemolaunch.findings import errors
from nemolaunch.planning import Plan, compose
from nemolaunch.resolve import Resolved

MOST_FIXES = 40
NAMES = [*(recipe.name for recipe in catalogue.recipes()), *catalogue.flavours(), *catalogue.only_in_bridge()]
MODELS = [name for name in NAMES if bridge_models.refusal(catalogue.model(name)) is None]
FACTS = {
    "host": Host(gpus=("NVIDIA H100 80GB HBM3",) * 512, num_cpus=64, memory_bytes=2**42),
    "interpreter": Interpreter(path="/env/bin/python", bridge="0.6.2", megatron="0.19.2"),
}
BRIDGE = {"backend": "bridge", "executor": "local"}
# Of Bridge's configuration: of the model, the optimizer, a part with owners, and one that does not exist
SETTINGS = (
    "model.hidden_dropout=0.1",
    "optimizer.decoupled_weight_decay=false",
    "ddp.bucket_size=40000000",
    "mixed_precision.grad_reduce_in_fp32=false",
    "train.train_iters=3",
    "ddp.bucket=40000000",
)


def compare(seed: int, count: int) -> dict[str, Any]:
    """Draw jobs until the checks have accepted `count`. Return how often each model was, and what Bridge refuses."""
    rng = random.Random(seed)
    accepted: Counter[str] = Counter()
    disagreements = []
    while accepted.total() < count:
        values = accepted_values(rng)
        if values is None:
            continue
        accepted[values["model_name"]] += 1
        why = verdict(values)
        if why:
            disagreements.append({"values": values, "theirs": why})
    return {"accepted": accepted, "disagreements": disagreements}


def own_layouts() -> dict[str, str | None]:
    """Return why Bridge refuses a model that only it has, in the catalogue's layout, or None; by model."""
    return {name: verdict(in_own_layout(name)) for name in catalogue.only_in_bridge()}


def in_own_layout(name: str) -> dict[str, Any]:
    """Return the values of a job in the layout that the catalogue has for a model."""
    recipe = catalogue.recipe(name)
    names = (
        "tensor_model_parallel_size", "pipeline_model_parallel_size", "expert_model_parallel_size",
        "expert_tensor_parallel_size", "sequence_parallel", "global_batch_size",
    )  # fmt: skip
    layout = {each: getattr(recipe, each) for each in names}
    gpus = recipe.num_nodes * recipe.num_gpus_per_node
    return {"model_name": name, "max_steps": 10, "num_gpus": gpus, "num_nodes": 1, **layout, **BRIDGE}


def accepted_values(rng: random.Random) -> dict[str, Any] | None:
    """Draw a job and apply fixes of the checks until they accept it; None if they do not."""
    values = {**random_values(rng, MODELS), **BRIDGE, "num_nodes": 1}
    if "set" in values:
        values["set"] = tuple(rng.sample(SETTINGS, k=rng.choice((1, 2))))
    for _ in range(MOST_FIXES):
        found = errors(check(_resolved(values)))
        if not found:
            return values
        fixes = [fix.changes for fix in found[0].fixes if fix.changes.get("backend", "bridge") == "bridge"]
        if not fixes:
            return None
        values.update(rng.choice(fixes))
    return None


def verdict(values: dict[str, Any]) -> str | None:
    """Return why Bridge refuses a job's configuration; None if it accepts it."""
    from megatron.bridge.training.config import runtime_config_update
    from megatron.core import utils
    from packaging.version import Version

    from nemolaunch.bridge.config import compile_config

    utils._te_version = Version("2.16.0")  # what the container with Bridge 0.5 has
    plan = compose(_resolved(values), ())
    try:
        with _rank_of(plan):
            config, _ = compile_config(plan)
            runtime_config_update(config)
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return None


def _resolved(values: dict[str, Any]) -> Resolved:
    return check_jobs.resolved(check_jobs.job(**values), **FACTS)


@contextlib.contextmanager
def _rank_of(plan: Plan) -> Iterator[None]:
    """Have the environment of the plan's first rank."""
    before = dict(os.environ)
    os.environ.update({**plan.variables, "WORLD_SIZE": str(plan.world_size), "RANK": "0"})
    try:
        with mock.patch.dict(sys.modules, _optimizers()):
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _optimizers() -> dict[str, ModuleType]:
    """Return what Megatron asks of Transformer Engine's Adam, which this machine does not have: its arguments."""

    class FusedAdam:
        def __init__(
            self,
            master_weight_dtype: Any = None,
            exp_avg_dtype: Any = None,
            exp_avg_sq_dtype: Any = None,
            use_decoupled_grad: bool = False,
        ) -> None: ...

    names = ("transformer_engine", "transformer_engine.pytorch", "transformer_engine.pytorch.optimizers")
    modules = {name: ModuleType(name) for name in names}
    modules[names[-1]].FusedAdam = FusedAdam  # type: ignore[attr-defined]
    return modules
