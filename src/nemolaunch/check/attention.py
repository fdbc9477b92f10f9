"""Attention kernels: whether the backend supports the job, and whether environment variables match it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from nemolaunch.check.environment import variables, without_variables
from nemolaunch.check.precision import capabilities
from nemolaunch.check.support import each, error, fix, shown, sizes, warning, without
from nemolaunch.findings import Finding, Fix
from nemolaunch.resolve import Resolved, attention

BACKEND = "attention_backend"
DOCUMENTS = ("reset_attention_mask", "reset_position_ids")


def kernels(resolved: Resolved) -> Iterator[Finding]:
    """Check the backend against number format, layout, head widths, model and GPU."""
    given, model = resolved.job.speed.attention_backend, resolved.model
    if not attention.has_attention(model.architecture):
        if given is not None:
            yield warning(
                "attention-backend-not-used",
                f"{shown(BACKEND, given)} has no effect: {model.name} has no attention layers",
                without(resolved, BACKEND),
            )
    elif attention.has_own(model) and given != "local":
        if given is not None and resolved.device == "gpu":
            yield warning(
                "attention-backend-not-used",
                f"{shown(BACKEND, given)} has no effect: {model.name} uses its own attention",
                without(resolved, BACKEND),
            )
    else:
        yield from _possible(resolved)


def _possible(resolved: Resolved) -> Iterator[Finding]:
    backend = attention.backend_of(resolved.job, resolved.model)
    reason = _refusal(resolved, backend)
    if reason is None:
        return
    cp, fp32 = sizes(resolved).cp, resolved.job.batch.precision == "fp32"
    if fp32 and cp > 1 and backend != "local":
        return  # reported as fp32-with-cp
    others = [other for other in ("auto", "fused", "flash", "unfused") if not _refusal(resolved, other)]
    fixes = each(BACKEND, others[:2])
    if fp32 and backend != "local":
        fixes = (*fixes, fix(precision="bf16"))
    if cp > 1 and not fixes:
        fixes = (fix(context_parallel_size=1),)
    if resolved.job.data.reset_attention_mask:
        more = (fix(attention_backend="auto", precision="bf16"), without(resolved, *DOCUMENTS))
        fixes = tuple(f for f in (*fixes, *more) if f.changes and _is_possible(resolved, f))
    given = resolved.job.speed.attention_backend
    origin = "" if given else " (set by the recipe)"
    yield error("attention-backend", f"{shown(BACKEND, backend)}{origin} is not possible: {reason}", *fixes)


def _is_possible(resolved: Resolved, change: Fix) -> bool:
    """Return whether the job's backend is possible after a change."""
    job = resolved.job.with_values(**change.changes)
    return not _refusal(dataclasses.replace(resolved, job=job), attention.backend_of(job, resolved.model))


def _refusal(resolved: Resolved, backend: str) -> str | None:
    """Return why the job cannot use this backend on all of its GPUs; None if it can.

    On a CPU, or without Transformer Engine, PyTorch's attention replaces every backend but `local`.
    """
    local, host = resolved.job.launch.executor == "local", resolved.facts.host
    if backend != "local" and (resolved.device == "cpu" or (local and not host.transformer_engine)):
        return None
    has_flash = host.flash_attention or not local
    known: list[tuple[int, int] | None] = [capability for _, capability in capabilities(resolved)]
    reasons = (
        attention.refusal(backend, resolved.job, resolved.model, capability, flash=has_flash)
        for capability in known or [None]
    )
    return next((reason for reason in reasons if reason), None)


def switches(resolved: Resolved) -> Iterator[Finding]:
    """Check Transformer Engine's variables: Megatron only accepts those that match the backend."""
    backend, found = attention.backend_of(resolved.job, resolved.model), variables(resolved)
    wanted = attention.VARIABLES[backend]
    odd = [name for name, value in wanted.items() if found.get(name, value) != value]
    if not odd:
        return
    fitting = [name for name in attention.VARIABLES if _fits(name, found) and not _refusal(resolved, name)]
    actual = " and ".join(f"{name}={found[name]}" for name in odd)
    origin = "" if resolved.job.speed.attention_backend else " (set by the recipe)"
    yield error(
        "attention-variables",
        f"{actual} contradicts {shown(BACKEND, backend)}{origin}: Megatron requires "
        + " and ".join(f"{name}={wanted[name]}" for name in odd),
        *each(BACKEND, fitting[:1]),
        *without_variables(resolved, odd),
    )


def _fits(backend: str, found: Mapping[str, str]) -> bool:
    return all(found.get(name, value) == value for name, value in attention.VARIABLES[backend].items())
