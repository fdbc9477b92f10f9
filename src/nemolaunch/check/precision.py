"""Number formats: what the GPUs can do, and what fp8 asks of shapes."""

from __future__ import annotations

from collections.abc import Iterator

from nemolaunch import catalogue
from nemolaunch.arithmetic import mixers
from nemolaunch.check.support import error, fix, flag, shown, sizes, warning
from nemolaunch.errors import UsageError
from nemolaunch.findings import Finding
from nemolaunch.resolve import Resolved

# Transformer Engine's fp8 needs Ada or newer; bf16 matrix units come with Ampere (NVIDIA architecture guides)
FP8_CAPABILITY = (8, 9)
BF16_CAPABILITY = (8, 0)
# cuBLASLt takes fp8 matrices whose sides are multiples of 16 only
FP8_UNIT = 16


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Number format by GPU, and shapes by number format."""
    batch = resolved.job.batch
    if batch.fp8 and batch.precision == "fp32":
        yield error(
            "fp8-with-fp32",
            f"{flag('fp8')} with {shown('precision', 'fp32')}: it would train without fp8",
            fix(precision="bf16"),
            fix(fp8=False),
        )
    elif batch.fp8:
        yield from _shapes(resolved)
    cp = sizes(resolved).cp
    if batch.precision == "fp32" and cp > 1 and resolved.device == "gpu" and _has_attention(resolved):
        yield error(
            "fp32-with-cp",
            f"{shown('precision', 'fp32')} with {shown('context_parallel_size', cp)}: fused attention, which "
            "context parallelism needs, has no fp32",
            fix(precision="bf16"),
            fix(context_parallel_size=1),
        )
    yield from _hardware(resolved)


def _has_attention(resolved: Resolved) -> bool:
    pattern = resolved.model.architecture.hybrid_override_pattern
    return pattern is None or "*" in pattern


def _hardware(resolved: Resolved) -> Iterator[Finding]:
    launch = resolved.job.launch
    names = set(resolved.facts.host.gpus) if launch.executor == "local" else {launch.gpu or ""}
    for name in sorted(names if resolved.device == "gpu" else ()):
        capability = gpu_capability(name)
        if capability is None:
            continue
        if resolved.job.batch.fp8 and capability < FP8_CAPABILITY:
            yield error("fp8-hardware", f"{flag('fp8')}: {name} has no fp8 matrix units", fix(fp8=False))
        elif resolved.job.batch.precision == "bf16" and capability < BF16_CAPABILITY:
            yield warning(
                "bf16-hardware",
                f"{shown('precision', 'bf16')}: {name} has no bf16 matrix units and emulates them",
                fix(precision="fp32"),
            )


def gpu_capability(name: str) -> tuple[int, int] | None:
    """CUDA compute capability of what the driver calls by that name; None if the catalogue lacks it."""
    words = name.replace("NVIDIA", "").replace("Tesla", "").replace("GeForce", "").split()
    tries = [" ".join(words), words[0] if words else "", words[0].split("-")[0] if words else ""]
    for word in tries:
        try:
            return catalogue.gpu(word).compute_capability
        except UsageError:
            continue
    return None


def fp8_widths(resolved: Resolved) -> dict[str, int]:
    """Sides of the matrices that fp8 multiplies on one rank, by what they are."""
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
    """Tokens of one forward pass on one rank."""
    s, job = sizes(resolved), resolved.job
    share = s.cp * (s.tp if job.parallelism.sequence_parallel else 1)
    return (job.data.seq_length or 1) * job.batch.micro_batch_size // share


def _shapes(resolved: Resolved) -> Iterator[Finding]:
    odd = {what: width for what, width in fp8_widths(resolved).items() if width % FP8_UNIT}
    tokens = fp8_tokens(resolved)
    if tokens % FP8_UNIT:
        odd["tokens of a forward pass"] = tokens
    if odd:
        listed = ", ".join(f"{what} = {width}" for what, width in odd.items())
        yield error("fp8-shapes", f"{flag('fp8')}: {listed} is not a multiple of {FP8_UNIT}", fix(fp8=False))
