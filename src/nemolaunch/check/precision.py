"""Number formats: what the GPUs support, and what fp8 requires of shapes."""

from __future__ import annotations

from collections.abc import Iterator

from nemolaunch import catalogue
from nemolaunch.arithmetic import mixers
from nemolaunch.check.support import each, error, fix, flag, shown, sizes, warning, without
from nemolaunch.findings import Finding
from nemolaunch.job import spec_of
from nemolaunch.resolve import Resolved
from nemolaunch.resolve.attention import has_attention

# Minimum compute capability of each recipe: Transformer Engine's check_fp8_support, _block_scaling_, check_mxfp8_
FP8_CAPABILITY = {"delayed": (8, 9), "tensorwise": (8, 9), "blockwise": (9, 0), "mxfp8": (10, 0)}
# Recipes other than delayed scaling with which NeMo gathers weights in fp8 (`recipes.precision.mixed_precision`)
FP8_GATHERED = ("tensorwise", "mxfp8")
# bf16 matrix units come with Ampere (NVIDIA architecture guides)
BF16_CAPABILITY = (8, 0)
# cuBLASLt requires the dimensions of fp8 matrices to be multiples of 16; MXFP8 scales blocks of 32
FP8_UNIT = {"delayed": 16, "tensorwise": 16, "blockwise": 16, "mxfp8": 32}


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Check the number format against the GPU, and shapes against the number format."""
    batch = resolved.job.batch
    if batch.fp8 and batch.precision == "fp32":
        yield error(
            "fp8-with-fp32",
            f"{flag('fp8')} has no effect with {shown('precision', 'fp32')}: the job would train without fp8",
            fix(precision="bf16"),
            fix(fp8=False),
        )
    elif batch.fp8:
        yield from _shapes(resolved)
    elif batch.fp8_recipe != spec_of("fp8_recipe").default and resolved.device == "gpu":
        yield error(
            "fp8-not-switched-on",
            f"{shown('fp8_recipe', batch.fp8_recipe)} has no effect without {flag('fp8')}: the job would train without "
            "fp8",
            fix(fp8=True),
            without(resolved, "fp8_recipe"),
        )
    if batch.fp8 and batch.fp8_recipe in FP8_GATHERED and resolved.job.memory.optim_cpu_offloading:
        yield error(
            "optimizer-offload-with-fp8",
            f"{flag('optim_cpu_offloading')} cannot be combined with {shown('fp8_recipe', batch.fp8_recipe)}: the "
            "offloaded optimizer supports fp8 weights with delayed scaling only",
            fix(fp8_recipe="delayed"),
            fix(optim_cpu_offloading=False),
        )
    cp = sizes(resolved).cp
    if (
        batch.precision == "fp32"
        and cp > 1
        and resolved.device == "gpu"
        and has_attention(resolved.model.architecture)
    ):
        yield error(
            "fp32-with-cp",
            f"{shown('precision', 'fp32')} cannot be combined with {shown('context_parallel_size', cp)}: context "
            "parallelism needs fused attention, which does not support fp32",
            fix(precision="bf16"),
            fix(context_parallel_size=1),
        )
    yield from _hardware(resolved)


def _hardware(resolved: Resolved) -> Iterator[Finding]:
    batch = resolved.job.batch
    for name, capability in capabilities(resolved):
        if batch.fp8 and capability < FP8_CAPABILITY[batch.fp8_recipe]:
            yield _without_fp8(resolved, name, capability)
        elif batch.precision == "bf16" and capability < BF16_CAPABILITY:
            yield warning(
                "bf16-hardware",
                f"{shown('precision', 'bf16')} is slow on {name}, which has no bf16 matrix units and emulates them",
                fix(precision="fp32"),
            )


def capabilities(resolved: Resolved) -> list[tuple[str, tuple[int, int]]]:
    """Return name and compute capability of every kind of GPU that the job is known to run on."""
    if resolved.device != "gpu":
        return []
    if resolved.job.launch.is_here:
        seen = {name: catalogue.gpu_seen(name) for name in sorted(set(resolved.facts.host.gpus))}
    else:
        seen = {resolved.gpu.name: resolved.gpu} if resolved.gpu_is_known else {}
    return [(name, row.compute_capability) for name, row in seen.items() if row and row.compute_capability]


def _without_fp8(resolved: Resolved, name: str, capability: tuple[int, int]) -> Finding:
    recipe = resolved.job.batch.fp8_recipe
    possible = [r for r, least in FP8_CAPABILITY.items() if capability >= least]
    if not possible:
        return error(
            "fp8-hardware", f"{flag('fp8')} is not possible: {name} has no fp8 matrix units", fix(fp8=False)
        )
    return error(
        "fp8-hardware",
        f"{shown('fp8_recipe', recipe)} is not possible: {name} has no matrix units for it",
        *each("fp8_recipe", possible[:1]),
        fix(fp8=False),
    )


def fp8_widths(resolved: Resolved) -> dict[str, int]:
    """Return the dimensions of the matrices that fp8 multiplies on one rank, by name."""
    s, a = sizes(resolved), resolved.model.architecture
    widths = {"hidden_size": a.hidden_size, "ffn_hidden_size/TP": a.ffn_hidden_size // s.tp}
    if not a.multi_latent_attention:
        widths["heads·kv_channels/TP"] = a.num_attention_heads * a.kv_channels // s.tp
        heads = a.num_attention_heads + 2 * a.num_query_groups
        widths["(heads+2·groups)·kv_channels/TP"] = heads * a.kv_channels // s.tp
    if a.moe_ffn_hidden_size:
        widths["moe_ffn_hidden_size/ETP"] = a.moe_ffn_hidden_size // s.etp
    if a.kind == "mamba":
        widths["width of the Mamba projection"] = (
            2 * mixers.mamba_inner_width(a)
            + 2 * a.mamba_num_groups * a.mamba_state_dim
            + mixers.mamba_heads(a)
        )
    return widths


def fp8_tokens(resolved: Resolved) -> int:
    """Return the tokens per forward pass on one rank."""
    s, job = sizes(resolved), resolved.job
    share = s.cp * (s.tp if job.parallelism.sequence_parallel else 1)
    return (job.data.seq_length or 1) * job.batch.micro_batch_size // share


def _shapes(resolved: Resolved) -> Iterator[Finding]:
    unit = FP8_UNIT[resolved.job.batch.fp8_recipe]
    sides = {**fp8_widths(resolved), "tokens per forward pass": fp8_tokens(resolved)}
    odd = [f"{what} = {size}" for what, size in sides.items() if size % unit]
    if odd:
        other = [] if any(size % 16 for size in sides.values()) else each("fp8_recipe", ["delayed"])
        yield error(
            "fp8-shapes",
            f"{flag('fp8')} needs matrix dimensions that are multiples of {unit}, but {', '.join(odd)}",
            *other,
            fix(fp8=False),
        )
