"""The complete estimate of a job: memory, time and disk."""

from __future__ import annotations

from dataclasses import dataclass

from nemolaunch import arithmetic
from nemolaunch.catalogue import Gpu, ModelSpec
from nemolaunch.estimate.disk import DiskEstimate, estimate_disk
from nemolaunch.estimate.layout import Layout, layout_of
from nemolaunch.estimate.memory import MemoryEstimate, memory
from nemolaunch.estimate.published import Utilization, default_utilization
from nemolaunch.estimate.time import TimeEstimate, estimate_time
from nemolaunch.resolve import Resolved
from nemolaunch.resolve.validation import batches_per_validation

USABLE_SHARE = 0.96  # of a GPU's memory: the driver and allocator fragments take the rest


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Memory, time and disk of a job on a GPU.

    Attributes:
        gpu, gpu_origin: the GPU that the estimate is for, and why this one.
        layout: parallel sizes, batch and memory savings.
        parameters, active_parameters: all weights of the model; those that one token passes through.
        vocab_rows, vocabulary: rows of the embedding, and where their number comes from.
        memory: memory of the fullest GPU.
        rehearsal: memory of one process of a CPU rehearsal, else None.
        time: duration and FLOPs of the run.
        disk: size of its checkpoints.
    """

    gpu: Gpu
    gpu_origin: str
    layout: Layout
    parameters: int
    active_parameters: int
    vocab_rows: int
    vocabulary: str
    memory: MemoryEstimate
    rehearsal: MemoryEstimate | None
    time: TimeEstimate
    disk: DiskEstimate

    @property
    def fits(self) -> bool | None:
        """Whether the job fits on the fullest GPU; None if the answer lies within the estimate's error."""
        usable = self.gpu.memory_bytes * USABLE_SHARE
        if self.memory.total + self.memory.error <= usable:
            return True
        return False if self.memory.total - self.memory.error > usable else None


@dataclass(frozen=True, kw_only=True)
class SpeedAssumption:
    """An assumption about the speed of a GPU; without values, that of published runs.

    Attributes:
        mfu: model FLOPs utilization, by the convention that counts full attention.
        flops_per_s: model FLOPs per second and GPU measured in an earlier run, by the same convention.
        run: the name of that run.
    """

    mfu: float | None = None
    flops_per_s: float | None = None
    run: str = ""


MOST = 2**40
MOST_PROCESSES = 2**20


def estimable(layout: Layout) -> bool:
    """Return whether the numbers are small enough for sums over ranks and stages, and for floats."""
    sizes = (layout.world_size, layout.tensor, layout.pipeline, layout.virtual, layout.context, layout.expert)
    counts = (layout.micro_batch_size, layout.global_batch_size, layout.seq_length)
    return max(*sizes, layout.expert_tensor) <= MOST_PROCESSES and max(counts) <= MOST


def estimate(resolved: Resolved, speed: SpeedAssumption = SpeedAssumption()) -> Estimate | None:
    """Estimate a resolved job on its GPU.

    Returns None for impossible sizes, which the checks report.
    """
    job = resolved.job
    layout, sizes = layout_of(resolved), resolved.batch_sizes
    if not estimable(layout):
        return None
    tokenizer = resolved.facts.tokenizer
    steps = min(MOST, max(0, job.batch.max_steps or 0))
    result = estimate_layout(
        resolved.model,
        layout,
        resolved.gpu,
        steps=steps,
        fewer_samples=steps * sizes.full - sizes.samples(steps),
        validations=max(0, job.batch.max_steps or 0) // max(1, job.logging.val_check_interval or 1),
        validation_batches=batches_per_validation(
            job, resolved.validation_sets, stream=resolved.stream is not None
        ),
        vocab_size=tokenizer.vocab_size if tokenizer else None,
        speed=speed,
        keep=job.checkpoint.keep_latest,
        save_every=job.checkpoint.checkpoint_every or job.logging.val_check_interval or 0,
        gpu_origin=resolved.gpu_origin,
        rehearsal=resolved.device == "cpu",
    )
    return result


def estimate_layout(
    model: ModelSpec,
    layout: Layout,
    gpu: Gpu,
    *,
    steps: int = 1,
    fewer_samples: int = 0,
    validations: int = 0,
    validation_batches: int = 0,
    vocab_size: int | None = None,
    speed: SpeedAssumption = SpeedAssumption(),
    keep: int = 3,
    save_every: int = 0,
    gpu_origin: str = "given",
    rehearsal: bool = False,
) -> Estimate:
    """Estimate a model in a layout. See `estimate` for the arguments."""
    vocabulary, origin = arithmetic.model_vocab_rows(model, vocab_size, layout.tensor)
    counts = arithmetic.parameters(model.architecture, vocabulary)
    precision = "fp8" if layout.fp8 else layout.precision
    if speed.mfu is not None:
        utilization = Utilization(mfu=speed.mfu, error=0.0, source="given")
    else:
        active = counts.active_non_embedding
        utilization = default_utilization(model.architecture, gpu, precision, active)
    saves = -(-steps // save_every) if save_every > 0 else 1
    return Estimate(
        gpu=gpu,
        gpu_origin=gpu_origin,
        layout=layout,
        parameters=counts.total,
        active_parameters=counts.active,
        vocab_rows=vocabulary,
        vocabulary=origin,
        memory=memory(model.architecture, layout, vocabulary),
        rehearsal=memory(model.architecture, layout, vocabulary, gpu=False) if rehearsal else None,
        time=estimate_time(
            model.architecture,
            layout,
            vocabulary,
            gpu,
            steps,
            fewer_samples=fewer_samples,
            validations=validations,
            validation_batches=validation_batches,
            utilization=utilization,
            measured_flops_per_s=speed.flops_per_s,
            measured_in=speed.run,
        ),
        disk=estimate_disk(counts.total, layout, keep, saves),
    )
