"""What of a training is not moved to another framework until it has been shown to continue there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nemolaunch.catalogue import version_pairs
from nemolaunch.checkpoint.migrate.names import EXTRA_STATE, is_left_out, kind_of
from nemolaunch.checkpoint.migrate.progress import CONTENT, Progress
from nemolaunch.checkpoint.storage.dcp import DcpSource
from nemolaunch.errors import NemolaunchError
from nemolaunch.run.folder import RunDir, read_json

# Releases of Megatron-Bridge and its Megatron-Core by their first two numbers, those of constraints-bridge.txt
BRIDGE_RELEASES = {"megatron-bridge": (0, 6), "megatron-core": (0, 19)}

QUERY_NORM = "self_attention.linear_q_proj.layer_norm_weight"


def check(
    path: Path, stored: DcpSource, progress: Progress, optimizer: Mapping[str, Any], ddp: Mapping[str, Any],
    model: Mapping[str, Any], versions: Mapping[str, str],
) -> None:  # fmt: skip
    """Refuse a training by name.

    Args:
        optimizer, ddp, model: the fields of the source's configuration.
        versions: the releases that trained it, as far as known.

    Raises:
        NemolaunchError: with everything that is refused.
    """
    faults = [
        *_configured(optimizer, ddp, model),
        *_content(progress.content),
        *_moments(stored),
        *_objects(stored),
        *unknown_releases(versions),
    ]
    if faults:
        lines = "".join(f"\n  {fault}" for fault in faults)
        raise NemolaunchError(
            f"{path}: its training cannot be moved with its optimizer:{lines}\nIts weights can: use --weights-only"
        )


def versions_of(checkpoint: Path) -> dict[str, str]:
    """Return the releases that trained the run which a checkpoint lies in; empty if that is not recorded."""
    plan = read_json(RunDir(checkpoint.resolve().parent.parent).plan) or {}
    found = plan.get("versions")
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def unknown_releases(versions: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence about releases that this is not tested with. What is not recorded is not judged."""
    if "megatron-bridge" in versions:
        for name, known in BRIDGE_RELEASES.items():
            has = versions.get(name)
            if has and version_pairs.release(has)[:2] != known:
                yield f"unknown version: {name} {has}; known is {known[0]}.{known[1]}"
        return
    nemo, megatron = versions.get("nemo_toolkit"), versions.get("megatron-core")
    if nemo and megatron and version_pairs.judge(nemo, megatron).status != "works":
        yield f"unknown version: NeMo {nemo} with Megatron-Core {megatron} is no proven pair"


def _configured(
    optimizer: Mapping[str, Any], ddp: Mapping[str, Any], model: Mapping[str, Any]
) -> Iterator[str]:
    if optimizer.get("use_precision_aware_optimizer"):
        yield "precision-aware optimizer: its state has other types of numbers (use_precision_aware_optimizer)"
    instances = max(int(part.get("num_distributed_optimizer_instances") or 1) for part in (ddp, optimizer))
    if instances > 1:
        yield f"hybrid sharding: the optimizer is in {instances} copies (num_distributed_optimizer_instances)"
    if model.get("fp8") or model.get("fp4"):
        yield f"fp8: the model has scales of its numbers (fp8 {model.get('fp8') or model.get('fp4')!r})"
    if model.get("fp16"):
        yield "fp16: the optimizer has a scale of the loss"


def _content(content: Mapping[str, Any]) -> Iterator[str]:
    for name, value in content.items():
        if name not in CONTENT:
            yield f"unknown version: its content_metadata has {name}={value!r}"
        elif value not in CONTENT[name]:
            yield f"its optimizer state is saved with {name}={value!r}; known is {CONTENT[name][0]!r}"


def _moments(stored: DcpSource) -> Iterator[str]:
    kinds = {kind_of(name): info.dtype for name, info in stored.tensors.items() if info.dtype != "float32"}
    small = {kind: dtype for kind, dtype in kinds.items() if kind is not None}
    for kind, dtype in sorted(small.items()):
        yield f"precision-aware optimizer: {kind} is in {dtype}"


def query_norms(names: Iterable[str]) -> Iterator[str]:
    """Yield a clause about parameters that Megatron-Core 0.19 adds to models of multi-latent attention."""
    found = next((name for name in names if name.endswith(QUERY_NORM) and not kind_of(name)), None)
    if found:
        yield (
            f"a norm of queries that the original model does not have ({found}): Megatron-Core 0.19 adds it where "
            "there is no q_lora_rank, unless nemolaunch trains (NVIDIA-NeMo/Megatron-Bridge#5261)"
        )


def _objects(stored: DcpSource) -> Iterator[str]:
    strange = [name for name in stored.objects if EXTRA_STATE not in name and not is_left_out(name)]
    if strange:
        yield f"unknown version: it holds {strange[0]}"
