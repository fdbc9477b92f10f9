"""The machine this runs on: GPUs, cores, memory, and the installed releases."""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nemolaunch.system.commands import answers

VERSIONED = (
    "nemolaunch", "torch", "nemo_toolkit", "megatron-bridge", "megatron-core", "nemo_run", "lightning", "transformers",
    "tokenizers", "transformer-engine", "numpy",
)  # fmt: skip

# Modules that training imports, which containers may have without the records of an installation, and their packages
TO_TRAIN = {
    "torch": "torch", "nemo": "nemo_toolkit", "megatron": "megatron-core", "nemo_run": "nemo_run",
    "lightning": "lightning",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Host:
    """The machine this runs on. `gpus` holds one name per visible GPU.

    `transformer_engine`, `flash_attention`: whether they are installed, which matters if the job runs in this
    environment, as do the installed releases `nemo` and `megatron`. `slow_bf16`: its processor multiplies bf16
    matrices without instructions of its own. `missing`: packages that training with NeMo 2 needs and that are not
    installed.
    """

    name: str = "localhost"
    gpus: tuple[str, ...] = ()
    gpu_memory_bytes: int = 0
    num_cpus: int = 1
    memory_bytes: int = 0
    transformer_engine: bool = True
    flash_attention: bool = True
    nemo: str | None = None
    megatron: str | None = None
    slow_bf16: bool = False
    missing: tuple[str, ...] = ()


def look_at_host() -> Host:
    """Return the GPUs this process may use (considering CUDA_VISIBLE_DEVICES), cores and memory."""
    names, memory_bytes = _gpus()
    installed = installed_versions()
    return Host(
        name=socket.gethostname(),
        gpus=names,
        gpu_memory_bytes=memory_bytes,
        num_cpus=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        transformer_engine=importlib.util.find_spec("transformer_engine") is not None,
        flash_attention=any(importlib.util.find_spec(name) for name in ("flash_attn", "flash_attn_3")),
        nemo=installed.get("nemo_toolkit"),
        megatron=installed.get("megatron-core"),
        slow_bf16=_multiplies_bf16_slowly(),
        missing=tuple(name for module, name in TO_TRAIN.items() if importlib.util.find_spec(module) is None),
    )


def _multiplies_bf16_slowly() -> bool:
    """Return whether oneDNN, with which PyTorch multiplies on x86, lacks bf16 kernels for this processor.

    They need AVX-512 with BW, VL and DQ (oneDNN's documentation, "Data Types"). False for other architectures.
    """
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    flags = next((line.split() for line in text.splitlines() if line.startswith("flags")), None)
    return flags is not None and not {"avx512bw", "avx512vl", "avx512dq"} <= set(flags)


def _gpus() -> tuple[tuple[str, ...], int]:
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    (answer,) = answers(query, timeout_s=20)
    rows = [line.rpartition(",") for line in (answer or "").splitlines() if "," in line]
    if not rows:
        return (), 0
    names = [name.strip() for name, _, _ in rows]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        chosen = [part.strip() for part in visible.split(",")]
        chosen = chosen[: chosen.index("-1")] if "-1" in chosen else [c for c in chosen if c]
        names = [names[int(c)] if c.isdigit() and int(c) < len(names) else names[0] for c in chosen]
    memory = rows[0][2].strip()
    return tuple(names), int(memory) * 2**20 if memory.isdigit() else 0


def installed_versions(packages: Iterable[str] = VERSIONED) -> dict[str, str]:
    """Return the versions of Python and of those packages that are installed; by default of all a run depends on."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
