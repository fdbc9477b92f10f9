"""Training time: FLOPs divided by what a GPU achieves, or a measured speed."""

from __future__ import annotations

from dataclasses import dataclass

from nemolaunch import arithmetic
from nemolaunch.catalogue import Architecture, Gpu
from nemolaunch.estimate.layout import Layout, stage_layers
from nemolaunch.estimate.published import Utilization, peak

MEASURED_ERROR = 0.05  # variation of tokens/s within a run, between hours and restarts


@dataclass(frozen=True, kw_only=True)
class TimeEstimate:
    """Time and FLOPs of a whole run.

    Attributes:
        flops_per_token_full, flops_per_token_causal: by the conventions of `arithmetic.flops_per_token`.
        mfu_full, mfu_causal: assumed share of the GPU's peak, by each convention.
        bubble: share of a step in which pipeline stages wait; included in the MFU.
        recompute_overhead: additional FLOPs of recomputation, as a share of the model's own.
        tokens_per_step, steps: tokens of one optimizer step; number of steps.
        fewer_tokens: tokens that the steps of a batch size ramp lack to `tokens_per_step`, in all.
        validations, tokens_per_validation: how often is validated, on how many tokens in all sets together.
        tokens_per_s: on all GPUs together.
        num_gpus: number of GPUs.
        error: relative error of all times, in either direction.
        source: where the speed comes from.
        is_measured: whether an earlier run measured the speed.
    """

    flops_per_token_full: float
    flops_per_token_causal: float
    mfu_full: float
    mfu_causal: float
    bubble: float
    recompute_overhead: float
    tokens_per_step: int
    steps: int
    tokens_per_s: float
    num_gpus: int
    error: float
    source: str
    fewer_tokens: int = 0
    validations: int = 0
    tokens_per_validation: int = 0
    is_measured: bool = False

    @property
    def step_s(self) -> float:
        """Seconds per optimizer step with the full batch."""
        return self.tokens_per_step / self.tokens_per_s

    @property
    def total_s(self) -> float:
        """Seconds of all steps, without startup, validation and checkpoints."""
        return self.tokens / self.tokens_per_s

    @property
    def validation_s(self) -> float:
        """Seconds of all validations: a forward pass, a third of the FLOPs of a training step."""
        return self.validations * self.tokens_per_validation / (3 * self.tokens_per_s)

    @property
    def gpu_hours(self) -> float:
        """GPUs times hours, which is what most clusters charge."""
        return self.total_s / 3600 * self.num_gpus

    @property
    def tokens(self) -> int:
        """Tokens of the whole run."""
        return self.tokens_per_step * self.steps - self.fewer_tokens


def bubble_share(layout: Layout) -> float:
    """Return the idle share of a pipelined step: (p - 1) / (v m) of the busy time (arXiv 2104.04473, 2.2)."""
    idle = (layout.pipeline - 1) / (layout.virtual * layout.num_microbatches)
    return idle / (1 + idle)


def recompute_overhead(architecture: Architecture, layout: Layout) -> float:
    """Return the additional FLOPs of recomputing whole layers, relative to the model's: a third for all layers."""
    if layout.recompute_granularity != "full":
        return 0.0
    if layout.recompute_method != "block":
        return 1 / 3
    chunks = [c for s in range(layout.pipeline) for c in stage_layers(architecture, layout, s)]
    layers = sum(min(len(c), layout.recompute_num_layers or 0) for c in chunks)
    return layers / max(1, architecture.num_layers) / 3


def estimate_time(
    architecture: Architecture,
    layout: Layout,
    vocab_rows: int,
    gpu: Gpu,
    steps: int,
    *,
    fewer_samples: int = 0,
    validations: int = 0,
    validation_batches: int = 0,
    utilization: Utilization,
    measured_flops_per_s: float | None = None,
    measured_in: str = "",
) -> TimeEstimate:
    """Estimate the time of `steps` steps at a utilization, or at a measured speed if one is given.

    The utilization is that of well-tuned runs with a small bubble and little recomputation; the additional cost of this
    layout's bubble and recomputation is added.
    """
    flops = flops_of(architecture, vocab_rows, layout)
    bubble, again = bubble_share(layout), recompute_overhead(architecture, layout)
    top = peak(gpu, "fp8" if layout.fp8 else layout.precision)
    if measured_flops_per_s is not None:
        per_gpu = measured_flops_per_s / max(1.0, flops.full)
        error, source = MEASURED_ERROR, f"measured in {measured_in}"
    else:
        mfu = utilization.mfu / (1 + again) * (1 - max(0.0, bubble - PUBLISHED_BUBBLE))
        if layout.both_sides:  # published runs skip half of the attention that their utilization includes
            causal = flops_of(architecture, vocab_rows, layout.with_values(both_sides=False))
            mfu *= causal.causal / causal.full
        per_gpu = mfu * top / max(1.0, flops.full)
        error, source = utilization.error, utilization.source
    return TimeEstimate(
        flops_per_token_full=flops.full,
        flops_per_token_causal=flops.causal,
        mfu_full=per_gpu * flops.full / top,
        mfu_causal=per_gpu * flops.causal / top,
        bubble=bubble,
        recompute_overhead=again,
        tokens_per_step=layout.global_batch_size * layout.seq_length,
        steps=steps,
        fewer_tokens=fewer_samples * layout.seq_length,
        validations=validations,
        tokens_per_validation=validation_batches * layout.global_batch_size * layout.seq_length,
        tokens_per_s=per_gpu * layout.world_size,
        num_gpus=layout.world_size,
        error=error,
        source=source,
        is_measured=measured_flops_per_s is not None,
    )


PUBLISHED_BUBBLE = 0.03  # typical of published runs with pipelines: 1 to 7 %


def flops_of(architecture: Architecture, vocab_rows: int, layout: Layout) -> arithmetic.FlopsPerToken:
    """Return the FLOPs per token; for an encoder-decoder 6 per weight, as if every token passed through all."""
    if architecture.kind != "t5":
        return arithmetic.flops_per_token(
            architecture, vocab_rows, layout.seq_length, both_sides=layout.both_sides
        )
    count = 6.0 * arithmetic.parameters(architecture, vocab_rows).active_non_embedding
    return arithmetic.FlopsPerToken(full=count, causal=count)
