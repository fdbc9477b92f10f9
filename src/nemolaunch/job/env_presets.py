"""Environment variables of a job: named sets for known networks and purposes, and the user's own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nemolaunch.errors import UsageError
from nemolaunch.system.secret_values import name_is_secret, value_is_secret


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Variables that belong together. A variable that the user has exported overrides a preset's.

    Attributes:
        about: its purpose, in a few words.
        source: where the values come from.
    """

    about: str
    source: str
    values: dict[str, str]


PRESETS: dict[str, Preset] = {
    "slingshot": Preset(
        about="HPE Slingshot through libfabric's cxi provider",
        source="user documentation of CSCS Alps (communication/nccl) and of Isambard-AI (guides, NCCL)",
        values={
            "NCCL_NET": "AWS Libfabric",
            "NCCL_NET_GDR_LEVEL": "PHB",
            "NCCL_CROSS_NIC": "1",
            "FI_CXI_DISABLE_HOST_REGISTER": "1",
            "FI_CXI_DEFAULT_CQ_SIZE": "131072",
            "FI_MR_CACHE_MONITOR": "userfaultfd",
        },
    ),
    "efa": Preset(
        about="AWS Elastic Fabric Adapter",
        source="AWS, awsome-distributed-training, efa-cheatsheet.md",
        values={"FI_PROVIDER": "efa", "FI_EFA_USE_HUGE_PAGE": "0"},
    ),
    "gb200": Preset(
        about="Grace with Blackwell: GPUDirect RDMA over the chip-to-chip link",
        source="NeMo 2.7, scripts/performance/executors.py",
        values={"NCCL_NET_GDR_LEVEL": "PHB", "NCCL_NET_GDR_C2C": "1"},
    ),
    "save-memory": Preset(
        about="less GPU memory for NCCL buffers and fragmentation",
        source="NeMo 2.7, scripts/performance/executors.py",
        values={"NCCL_NVLS_ENABLE": "0", "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"},
    ),
    "fused-attention": Preset(
        about="Transformer Engine may choose flash or cuDNN's fused attention",
        source="NeMo 2.7, scripts/performance/executors.py",
        values={"NVTE_FLASH_ATTN": "1", "NVTE_FUSED_ATTN": "1"},
    ),
    "deterministic": Preset(
        about="bitwise reproducible losses; slower",
        source="Megatron Core user guide, deterministic training",
        values={
            "NCCL_ALGO": "Ring",
            "NVTE_ALLOW_NONDETERMINISTIC_ALGO": "0",
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        },
    ),
    "debug": Preset(
        about="verbose logs of NCCL and torch.distributed",
        source="NCCL user guide, NCCL_DEBUG; PyTorch, distributed debugging",
        values={
            "NCCL_DEBUG": "INFO",
            "NCCL_DEBUG_SUBSYS": "INIT,NET,ENV",
            "TORCH_DISTRIBUTED_DEBUG": "DETAIL",
        },
    ),
}


def preset_values(names: Iterable[str]) -> dict[str, str]:
    """Return the variables of presets; later presets win, and unknown names are ignored."""
    return {k: v for name in names if name in PRESETS for k, v in PRESETS[name].values.items()}


def given_values(words: Iterable[str]) -> dict[str, str]:
    """Return `("A=1", "B=x y", "C")` as a dictionary; a variable without a value is not in it.

    Raises:
        UsageError: a name or a value looks like a secret, which would be written into files.
    """
    values = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            continue
        if name_is_secret(name, value) or value_is_secret(value, name):
            raise UsageError(
                f"--env {name}=… looks like a secret, and --env values are written into the plan and the batch "
                f"script. Export {name} before the command and use --env {name} instead: it then reaches the ranks "
                f"through the job's environment and is not written to any file"
            )
        values[name] = value
    return values


def passed_names(words: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the variables that are passed on from the shell: `--env NAME`."""
    return tuple(dict.fromkeys(word for word in words if word and "=" not in word))
