"""Communication that hides behind computation."""

from __future__ import annotations

from collections.abc import Iterator

from nemolaunch.check.support import each, error, fix, flag, shown, sizes, warning, without
from nemolaunch.findings import Finding
from nemolaunch.resolve import Resolved

TP_OVERLAP = "tp_comm_overlap"
GATHER = "overlap_param_gather"
REDUCE = "overlap_grad_reduce"


def tensor(resolved: Resolved) -> Iterator[Finding]:
    """Tensor parallel communication in Transformer Engine's userbuffers."""
    if not resolved.job.speed.tp_comm_overlap:
        return
    tp = sizes(resolved).tp
    off = without(resolved, TP_OVERLAP)
    if tp == 1:
        yield error(
            "tp-overlap-ignored",
            f"{flag(TP_OVERLAP)} with {shown('tensor_model_parallel_size', 1)}: there is nothing to hide",
            off,
        )
        return
    if not resolved.job.parallelism.sequence_parallel:
        yield error(
            "tp-overlap-ignored",
            f"{flag(TP_OVERLAP)} without {flag('sequence_parallel')}: NeMo would train without",
            fix(sequence_parallel=True),
            off,
        )
    if resolved.model.architecture.multi_latent_attention:
        yield error(
            "tp-overlap-ignored",
            f"{flag(TP_OVERLAP)}: Megatron would train {resolved.model.name} without, for its latent attention",
            off,
        )
    yield from _userbuffers(resolved, tp)


def _userbuffers(resolved: Resolved, tp: int) -> Iterator[Finding]:
    batch, per_node = resolved.job.batch, resolved.job.launch.num_gpus or 1
    off = without(resolved, TP_OVERLAP)
    if batch.precision == "fp32":
        yield error(
            "tp-overlap-impossible",
            f"{flag(TP_OVERLAP)} with {shown('precision', 'fp32')}: userbuffers are made for bf16",
            fix(precision="bf16"),
            off,
        )
    elif batch.fp8 and batch.fp8_recipe == "blockwise":
        yield error(
            "tp-overlap-impossible",
            f"{flag(TP_OVERLAP)} with {shown('fp8_recipe', 'blockwise')}: userbuffers take no blocks",
            *each("fp8_recipe", ["tensorwise"]),
            off,
        )
    # Grace-Blackwell racks are one NVLink domain
    if tp > per_node and not resolved.gpu.name.startswith("gb"):
        yield error(
            "tp-overlap-impossible",
            f"{flag(TP_OVERLAP)} with {shown('tensor_model_parallel_size', tp)} over nodes of {per_node} GPU(s): "
            "userbuffers need NVLink",
            off,
        )


def data(resolved: Resolved) -> Iterator[Finding]:
    """Gradients and weights over data parallel ranks."""
    speed, bert = resolved.job.speed, resolved.model.architecture.kind == "bert"
    if speed.overlap_grad_reduce and bert:
        yield error(
            "grad-reduce-unsupported",
            f"{flag(REDUCE)}: not every weight of {resolved.model.name} gets a gradient in every step",
            without(resolved, REDUCE),
        )
    if speed.overlap_param_gather:
        yield from _gather(resolved)
    given = speed.overlap_param_gather is True or speed.overlap_grad_reduce is False
    shared = resolved.data_parallel_size * sizes(resolved).cp > 1
    if given and shared and hides(resolved, GATHER) and not hides(resolved, REDUCE):
        whose = "" if speed.overlap_param_gather else " (the recipe's)"
        yield warning(
            "param-gather-in-one",
            f"{flag(GATHER)}{whose} without {flag(REDUCE)}: all weights are gathered at once, which hides little",
            *(() if bert else (fix(overlap_grad_reduce=True),)),
            fix(overlap_param_gather=False),
        )


def _gather(resolved: Resolved) -> Iterator[Finding]:
    job = resolved.job
    if job.optimizer.disable_dist_optim:
        yield error(
            "param-gather-not-sharded",
            f"{flag(GATHER)} with {flag('disable_dist_optim')}: every rank has all weights",
            fix(disable_dist_optim=False, optimizer="adam"),
            without(resolved, GATHER),
        )
    elif job.batch.fp8 and job.batch.fp8_recipe == "mxfp8":
        yield error(
            "param-gather-with-mxfp8",
            f"{flag(GATHER)} with {shown('fp8_recipe', 'mxfp8')}: updated weights would never be used",
            without(resolved, GATHER),
            fix(fp8_recipe="tensorwise"),
        )


def hides(resolved: Resolved, name: str) -> bool:
    """Whether that communication is hidden in the end.

    What is given counts. Else NeMo's callback turns both on where there are data parallel ranks and a sharded
    optimizer (`MegatronCommOverlapCallback._get_optimizer_overlap_cfgs`); else the recipe's buffers say.
    """
    job, recipe = resolved.job, resolved.model.recipe
    given = getattr(job.speed, name)
    if given is not None:
        return bool(given)
    unsharded = job.optimizer.disable_dist_optim
    if name == GATHER and (unsharded or (job.batch.fp8 and job.batch.fp8_recipe == "mxfp8")):
        return False
    if "MegatronCommOverlapCallback" in recipe.callbacks and not unsharded:
        return resolved.data_parallel_size > 1
    return bool(getattr(recipe, name))
