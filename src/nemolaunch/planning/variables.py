"""Environment variables of the training processes."""

from __future__ import annotations

from nemolaunch.job import Job
from nemolaunch.job.env_presets import given_values, preset_values
from nemolaunch.resolve import Resolved


def given_variables(job: Job) -> dict[str, str]:
    """Return the variables set by flags. Raise UsageError for one that looks like a secret."""
    interface = job.launch.network_interface
    named = dict.fromkeys(("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"), interface) if interface else {}
    return {**named, **given_values(job.launch.env)}


def environment(resolved: Resolved) -> dict[str, str]:
    """Return the variables that the training processes need, and those of presets. Exported values override them.

    The GPU settings are those of NVIDIA's scripts (NeMo, `PerfEnvPlugin`): up to Hopper, communication only
    overlaps correctly with tensor or context parallelism if there is one hardware queue; Blackwell needs 32.
    """
    variables = {"TOKENIZERS_PARALLELISM": "false", "TORCH_NCCL_AVOID_RECORD_STREAMS": "1"}
    sources = resolved.stream.sources if resolved.stream else ()
    remote = any(source.is_remote for source in sources)
    if resolved.facts.tokenizer and resolved.facts.tokenizer.folder and not remote:
        variables["HF_HUB_OFFLINE"] = "1"
    p = resolved.job.parallelism
    if resolved.device == "gpu":
        if p.tensor_model_parallel_size > 1 or p.context_parallel_size > 1:
            blackwell = (resolved.gpu.compute_capability or (0, 0)) >= (10, 0)
            variables["CUDA_DEVICE_MAX_CONNECTIONS"] = "32" if blackwell else "1"
        variables["NVTE_FWD_LAYERNORM_SM_MARGIN"] = "16"
        variables["NVTE_BWD_LAYERNORM_SM_MARGIN"] = "16"
    else:
        processes = max(1, resolved.job.launch.num_gpus or 1)
        variables["OMP_NUM_THREADS"] = str(max(1, resolved.facts.host.num_cpus // processes))
        variables["CUDA_DEVICE_MAX_CONNECTIONS"] = "1"
        variables["TORCHDYNAMO_DISABLE"] = "1"
    return {**variables, **preset_values(resolved.job.launch.env_preset)}
