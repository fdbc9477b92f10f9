"""Takes a job through NeMo's and Megatron's own checks in the order in which a run meets them.

Runs in a process of the fork server. What needs several processes is asked of one rank among torch's fake
process groups; models are built without memory for their weights, with one layer of each kind.
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
    """For each job, named by its flags: where and why NeMo fails, or None."""
    build.prepare()
    return [verdict(values) for values in jobs]


def verdict(values: dict[str, Any]) -> str | None:
    """The first thing that fails, as `stage: error`; None if nothing does."""
    plan = compose(check_jobs.resolved(check_jobs.job(**values)), ())
    job = Job(plan)
    for stage in STAGES:
        try:
            stage(job)
        except Exception as error:
            job.close()
            return f"{stage.__name__}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    job.close()
    return None


class Job:
    """A plan on its way: each stage adds what it made."""

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
        """Forget the process groups."""
        import torch
        from megatron.core import parallel_state

        with contextlib.suppress(Exception):
            parallel_state.destroy_model_parallel()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def compiled(job: Job) -> None:
    """Our own part: plan to recipe."""
    from nemolaunch.nemo2.recipe import compile_recipe

    job.recipe = compile_recipe(job.plan)


def constructed(job: Job) -> None:
    """Model config, strategy, precision plugin and optimizer config, as built on the node."""
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


def validated(job: Job) -> None:
    """`_validate_config`, which `llm.pretrain` calls first."""
    from nemo.collections.llm.api import _validate_config

    values = job.values
    _validate_config(
        SimpleNamespace(config=job.config),
        SimpleNamespace(**{n: values[n] for n in ("micro_batch_size", "global_batch_size", "seq_length")}),
        SimpleNamespace(strategy=job.strategy, num_devices=values["num_gpus"], num_nodes=values["num_nodes"]),
    )


def connected(job: Job) -> None:
    """`MegatronStrategy.connect`: the config gets its parallel sizes and checks itself again."""
    from nemo.lightning._strategy_lib import set_model_parallel_attributes
    from nemo.lightning.pytorch.plugins.mixed_precision import update_config_with_dtype_overrides

    model = SimpleNamespace(config=job.config, configure_model=None)
    set_model_parallel_attributes(model, job.strategy.parallelism)
    job.config = update_config_with_dtype_overrides(job.dtypes, job.config)
    job.config.__post_init__()  # fp8 and the rest, as `io.reinit` of a model chunk checks them
    job.optimizer = update_config_with_dtype_overrides(job.dtypes, job.optimizer)


def placed(job: Job) -> None:
    """Process groups of the whole world."""
    steps.place(job.strategy, job.values["num_nodes"] * job.values["num_gpus"])


def batched(job: Job) -> None:
    """The microbatch calculator."""
    steps.count_microbatches(job.values)


def built(job: Job) -> None:
    """The model of the first and last pipeline stage, and how many layers each stage gets."""
    job.config.fp8 = None  # its layers are Transformer Engine's; the config's own rules about it are through
    variables = {**job.plan.environment, **job.plan.variables}
    build.choose_attention(job.config, variables)
    job.model = build.model(
        job.recipe.model.__fn_or_cls__, job.config, job.values["pipeline_model_parallel_size"], variables
    )


def optimized(job: Job) -> None:
    """The distributed optimizer's and the schedule's own rules."""
    steps.wrap_optimizer(job.optimizer)
    steps.follow_schedule(job.values)


def stepped(job: Job) -> None:
    """What the first training step meets: batches cut, experts, the interleaved schedule."""
    steps.cut_sequence(job.values, job.config)
    build.enter_experts(job.model)
    if job.config.virtual_pipeline_model_parallel_size is not None:
        steps.enter_schedule(job.config, job.values)


STAGES: tuple[Callable[[Job], None], ...] = (
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
    """Codes of the errors that the checks find."""
    found = check_jobs.check(check_jobs.resolved(check_jobs.job(**values)))
    return sorted({finding.code for finding in errors(found)})
