"""NeMo's and Megatron's own checks of a job, in the order in which a run encounters them.

Runs in a process of the fork server. Checks that need several processes run as one rank in torch's fake process
groups; models are built without memory for their weights, with one layer of each kind.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import check_jobs

from nemolaunch.findings import errors
from nemolaunch.planning import Plan, compose
from truth import build, steps


def verdicts(jobs: list[dict[str, Any]]) -> list[str | None]:
    """Return for each job, given by its flags, where and why NeMo fails, or None."""
    build.prepare()
    return [verdict(values) for values in jobs]


def verdict(values: dict[str, Any]) -> str | None:
    """Return the first failure as `stage: error`; None if there is none."""
    plan = compose(check_jobs.resolved(check_jobs.job(**values)), ())
    job = StagedJob(plan)
    for stage in STAGES:
        try:
            stage(job)
        except Exception as error:
            job.close()
            return f"{stage.__name__}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    job.close()
    return None


class StagedJob:
    """A plan that passes through the stages; each stage adds its result."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.values = plan.job.values()
        self.recipe: Any = None
        self.config: Any = None
        self.strategy: Any = None
        self.dtypes: Any = None
        self.optimizer: Any = None
        self.model: Any = None

    def close(self) -> None:
        """Destroy the process groups."""
        import torch
        from megatron.core import parallel_state

        with contextlib.suppress(Exception):
            parallel_state.destroy_model_parallel()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def compiled(job: StagedJob) -> None:
    """Compile the plan to a recipe, which is our own part."""
    from nemolaunch.nemo2.recipe import compile_recipe

    job.recipe = compile_recipe(job.plan)


def constructed(job: StagedJob) -> None:
    """Build model config, strategy, precision plugin and optimizer config as on the node."""
    import fiddle

    config = job.recipe.model.config
    config.use_cpu_initialization = True
    config.perform_initialization = False
    config.gradient_accumulation_fusion = False  # a CUDA extension
    if hasattr(config, "use_transformer_engine_full_layer_spec"):
        config.use_transformer_engine_full_layer_spec = False
    job.config = fiddle.build(config)
    job.strategy = fiddle.build(job.recipe.trainer.strategy)
    plugins = job.recipe.trainer.plugins
    job.strategy.precision_plugin = fiddle.build(plugins)
    job.dtypes = job.strategy._precision_plugin.dtype_config
    job.optimizer = fiddle.build(job.recipe.optim.config)


def validated(job: StagedJob) -> None:
    """Call `_validate_config`, which `llm.pretrain` calls first."""
    from nemo.collections.llm.api import _validate_config

    values = job.values
    _validate_config(
        SimpleNamespace(config=job.config),
        SimpleNamespace(**{n: values[n] for n in ("micro_batch_size", "global_batch_size", "seq_length")}),
        SimpleNamespace(strategy=job.strategy, num_devices=values["num_gpus"], num_nodes=values["num_nodes"]),
    )


def connected(job: StagedJob) -> None:
    """Do what `MegatronStrategy.connect` does: set the parallel sizes and run the config's checks again."""
    from nemo.lightning._strategy_lib import set_model_parallel_attributes
    from nemo.lightning.pytorch.plugins.mixed_precision import update_config_with_dtype_overrides

    model = SimpleNamespace(config=job.config, configure_model=None)
    set_model_parallel_attributes(model, job.strategy.parallelism)
    job.config = update_config_with_dtype_overrides(job.dtypes, job.config)
    job.config.__post_init__()  # fp8 and the rest, as `io.reinit` of a model chunk checks them
    job.optimizer = update_config_with_dtype_overrides(job.dtypes, job.optimizer)


def placed(job: StagedJob) -> None:
    """Create the process groups of the whole world."""
    steps.place(job.strategy, job.values["num_nodes"] * job.values["num_gpus"])


def batched(job: StagedJob) -> None:
    """Run the microbatch calculator."""
    steps.count_microbatches(job.values)


def built(job: StagedJob) -> None:
    """Build the model of the first and last pipeline stage, and count the layers of each stage."""
    job.config.fp8 = (
        None  # fp8 layers need Transformer Engine; the config's own rules about fp8 have been applied
    )
    variables = {**job.plan.environment, **job.plan.variables}
    build.choose_attention(job.config, variables)
    job.model = build.model(
        job.recipe.model.__fn_or_cls__, job.config, job.values["pipeline_model_parallel_size"], variables
    )


def optimized(job: StagedJob) -> None:
    """Apply the rules of the distributed optimizer and the schedule."""
    steps.wrap_optimizer(job.optimizer)
    steps.follow_schedule(job.values)


def stepped(job: StagedJob) -> None:
    """Run the checks of the first training step: splitting of batches, experts, the interleaved schedule."""
    steps.cut_sequence(job.values, job.config)
    build.enter_experts(job.model)
    if job.config.virtual_pipeline_model_parallel_size is not None:
        steps.enter_schedule(job.config, job.values)


STAGES: tuple[Callable[[StagedJob], None], ...] = (
    compiled,
    constructed,
    validated,
    connected,
    placed,
    batched,
    built,
    optimized,
    stepped,
)


def refused_by_us(values: dict[str, Any]) -> list[str]:
    """Return the codes of the errors that the checks find."""
    found = check_jobs.check(check_jobs.resolved(check_jobs.job(**values)))
    return sorted({finding.code for finding in errors(found)})
