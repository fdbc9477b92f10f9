"""Build Megatron's index of a plan's data, without a GPU and without a model.

    python -m nemolaunch.nemo2.build_index PLAN.json

The data module is that of the compiled recipe, set up with the numbers of its trainer, as NeMo does in a training.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nemolaunch.nemo2 import patches
from nemolaunch.planning import Plan

TRAINER_VALUES = ("max_steps", "val_check_interval", "limit_val_batches", "limit_test_batches")


def build_index(plan: Plan) -> None:
    """Build the indices of all splits in `plan.index_folder`. Those that are there are not built again."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    for name, value in plan.environment.items():
        os.environ.setdefault(name, value)
    patches.apply()
    if importlib.util.find_spec("transformer_engine") is None:
        from nemolaunch import cpu

        cpu.install()
    import fiddle as fdl
    import torch.distributed as dist

    from nemolaunch.nemo2.ramp import use_batch_sizes
    from nemolaunch.nemo2.recipe import compile_recipe
    from nemolaunch.nemo2.validation_sets import set_dataset

    recipe = compile_recipe(plan)
    data: Any = fdl.build(recipe.data)
    data.trainer = SimpleNamespace(**{name: getattr(recipe.trainer, name) for name in TRAINER_VALUES})
    use_batch_sizes(data, plan)
    # Megatron has rank 0 build, and asks which rank this is
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        if plan.stream is None:
            data.setup()
        for each in plan.validation_sets:
            set_dataset(plan, data, each)
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    build_index(Plan.load(Path(sys.argv[1])))
