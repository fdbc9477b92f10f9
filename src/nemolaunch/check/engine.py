"""GPUs without Transformer Engine: dense decoders train on plain PyTorch layers, everything else needs it."""

from __future__ import annotations

from collections.abc import Iterator

from nemolaunch import catalogue
from nemolaunch.check.support import error, flag, shown, sizes, warning, without
from nemolaunch.findings import Finding, Fix
from nemolaunch.resolve import Resolved


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Check for features that need Transformer Engine if it is missing on this machine's GPUs."""
    local = resolved.job.launch.executor == "local"
    if resolved.device != "gpu" or not local or resolved.facts.host.transformer_engine:
        return
    needing = list(_needing(resolved))
    yield from needing
    if not needing:
        yield warning(
            "no-transformer-engine",
            "Transformer Engine is not installed: plain PyTorch layers replace its own; they are slower and use "
            "more memory, but checkpoints are the same",
        )


def _needing(resolved: Resolved) -> Iterator[Finding]:
    job, model = resolved.job, resolved.model
    asked = {
        "fp8": job.batch.fp8,
        "cpu_offloading": job.memory.cpu_offloading,
        "optim_cpu_offloading": job.memory.optim_cpu_offloading,
        "cuda_graphs": job.speed.cuda_graphs,
        "tp_comm_overlap": job.speed.tp_comm_overlap,
        "attention_backend": job.speed.attention_backend in ("flash", "fused", "unfused"),
    }
    for name in (name for name, given in asked.items() if given):
        yield _error(flag(name), without(resolved, name))
    if sizes(resolved).cp > 1:
        cp = shown("context_parallel_size", sizes(resolved).cp)
        yield _error(cp, without(resolved, "context_parallel_size"))
    if model.architecture.num_moe_experts:
        yield _error(f"{model.name} has experts and")
    elif catalogue.cpu_rehearsal(model.recipe, model.architecture).status == "unsupported":
        yield _error(model.name)


def _error(what: str, *fixes: Fix) -> Finding:
    text = f"{what} needs Transformer Engine, which is not installed here; NVIDIA's container includes it"
    return error("needs-transformer-engine", text, *fixes)
