"""Communication that overlaps with computation."""

from __future__ import annotations

from collections.abc import Iterator

from nemolaunch.check.support import each, error, fix, flag, shown, sizes, warning, without
from nemolaunch.findings import Finding
from nemolaunch.resolve import Resolved
from nemolaunch.system.quantities import counted

TP_OVERLAP = "tp_comm_overlap"
GATHER = "overlap_param_gather"
REDUCE = "overlap_grad_reduce"


def tensor(resolved: Resolved) -> Iterator[Finding]:
    """Check tensor parallel communication overlap through Transformer Engine's userbuffers."""
    if not resolved.job.speed.tp_comm_overlap:
        return
    tp = sizes(resolved).tp
    off = without(resolved, TP_OVERLAP)
    if tp == 1:
        yield error(
            "tp-overlap-ignored",
            f"{flag(TP_OVERLAP)} has no effect with {shown('tensor_model_parallel_size', 1)}: there is no tensor "
            "parallel communication",
            off,
        )
        return
    if not resolved.job.parallelism.sequence_parallel:
        yield error(
            "tp-overlap-ignored",
            f"{flag(TP_OVERLAP)} has no effect without {flag('sequence_parallel')}: NeMo silently turns it off",
            fix(sequence_parallel=True),
            off,
        )
    if resolved.model.architecture.multi_latent_attention:
        yield error(
            "tp-overlap-ignored",
            f"{flag(TP_OVERLAP)} has no effect: Megatron turns it off for the latent attention of "
            f"{resolved.model.name}",
            off,
        )
    yield from _userbuffers(resolved, tp)


def _userbuffers(resolved: Resolved, tp: int) -> Iterator[Finding]:
    batch, per_node = resolved.job.batch, resolved.job.launch.num_gpus or 1
    off = without(resolved, TP_OVERLAP)
    # A Grace-Blackwell rack is one NVLink domain
    if tp > per_node and not resolved.gpu.name.startswith("gb"):
        yield error(
            "tp-overlap-impossible",
            f"{flag(TP_OVERLAP)} cannot be combined with {shown('tensor_model_parallel_size', tp)} on nodes of "
            f"{counted(per_node, 'GPU')}: userbuffers need NVLink between all tensor parallel ranks",
            off,
        )
        return
    blockwise = batch.fp8 and batch.fp8_recipe == "blockwise"
    if batch.precision == "fp32":
        yield error(
            "tp-overlap-impossible",
            f"{flag(TP_OVERLAP)} cannot be combined with {shown('precision', 'fp32')}: NeMo creates userbuffers for "
            "bf16",
            *([] if blockwise else [fix(precision="bf16")]),
            off,
        )
    elif blockwise:
        yield error(
            "tp-overlap-impossible",
            f"{flag(TP_OVERLAP)} cannot be combined with {shown('fp8_recipe', 'blockwise')}: userbuffers do not "
            "support blockwise scaling",
            *each("fp8_recipe", ["tensorwise"]),
            off,
        )


def data(resolved: Resolved) -> Iterator[Finding]:
    """Check the communication of gradients and weights between data parallel ranks."""
    speed, a = resolved.job.speed, resolved.model.architecture
    unused = a.kind == "bert" or a.num_kv_shared_layers  # Gemma 4: norms of keys that are replaced
    if speed.overlap_grad_reduce and unused:
        yield error(
            "grad-reduce-unsupported",
            f"{flag(REDUCE)} is not possible: not every weight of {resolved.model.name} gets a gradient in every step",
            without(resolved, REDUCE),
        )
    if speed.overlap_param_gather:
        yield from _gather(resolved)
    given = speed.overlap_param_gather is True or speed.overlap_grad_reduce is False
    shared = resolved.data_parallel_size * sizes(resolved).cp > 1
    if given and shared and is_overlapped(resolved, GATHER) and not is_overlapped(resolved, REDUCE):
        origin = "" if speed.overlap_param_gather else " (set by the recipe)"
        yield warning(
            "param-gather-in-one",
            f"{flag(GATHER)}{origin} without {flag(REDUCE)} gathers all weights at once, which hides little",
            *(() if unused else (fix(overlap_grad_reduce=True),)),
            fix(overlap_param_gather=False),
        )


def _gather(resolved: Resolved) -> Iterator[Finding]:
    job = resolved.job
    if job.optimizer.disable_dist_optim:
        yield error(
            "param-gather-not-sharded",
            f"{flag(GATHER)} has no effect with {flag('disable_dist_optim')}: every rank holds all weights",
            fix(disable_dist_optim=False, optimizer="adam"),
            without(resolved, GATHER),
        )
    elif job.batch.fp8 and job.batch.fp8_recipe == "mxfp8":
        yield error(
            "param-gather-with-mxfp8",
            f"{flag(GATHER)} cannot be combined with {shown('fp8_recipe', 'mxfp8')}: updated weights would never be "
            "used",
            without(resolved, GATHER),
            fix(fp8_recipe="tensorwise"),
        )


def is_overlapped(resolved: Resolved, name: str) -> bool:
    """Return whether this communication is overlapped in the end.

    A given flag decides. Otherwise NeMo's callback turns both on if there are data parallel ranks and a sharded
    optimizer (`MegatronCommOverlapCallback._get_optimizer_overlap_cfgs`); otherwise the recipe decides.
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
