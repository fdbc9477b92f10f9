"""Known reasons why a training fails: how each one shows, what it means, and what to change.

The order matters: the first cause that shows in the first failing rank's words is the one named. Those that
are often only the echo of another rank's end come last.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """One reason.

    Attributes:
        code: stable identifier.
        shows: what stands in an exception, a log, or what Slurm says.
        meaning: one sentence.
        change: what to do; `{node}` and `{nodes}` are filled in where they are known.
    """

    code: str
    shows: re.Pattern[str]
    meaning: str
    change: str


def _cause(code: str, shows: str, meaning: str, change: str) -> Cause:
    return Cause(code, re.compile(shows, re.IGNORECASE), meaning, change)


_RESUME = "nothing: the next job goes on from the last checkpoint, or `nemolaunch resume RUN`"

CAUSES: tuple[Cause, ...] = (
    _cause(
        "gpu-memory",
        r"CUDA out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED",
        "a GPU has too little memory for the job",
        "a smaller --micro-batch-size, a larger -TP or -PP, --recompute-granularity full, or "
        "--optim-cpu-offloading; `nemolaunch suggest` ranks layouts that fit",
    ),
    _cause(
        "disk-full",
        r"No space left on device|ENOSPC|Disk quota exceeded",
        "the file system of the run folder, or the node's own /tmp, is full",
        "free space, fewer checkpoints with --keep-latest, or another --output-dir; then `nemolaunch resume`",
    ),
    _cause(
        "not-finite",
        r"found NaN|Unexpected result (nan|inf)|\bNaN\b.{0,40}(loss|grad)|(loss|grad\w*).{0,40}\bNaN\b"
        r"|not finite",
        "the loss or a gradient is no longer a finite number",
        "a lower --lr, more --warmup-steps, or training without --fp8; look at the loss before it with "
        "`nemolaunch report`, and at the data of that step",
    ),
    _cause(
        "data-missing",
        r"(FileNotFoundError|No such file or directory).{0,300}\.(bin|idx)\b"
        r"|\.(bin|idx)\b.{0,200}(not found|No such file)",
        "a node does not see the data",
        "check that {node} mounts the same file system as the others, and that --container-mounts covers "
        "what the data files link to",
    ),
    _cause(
        "container",
        r"pyxis:.{0,200}(error|failed|No such file)|enroot.{0,80}(failed|error)"
        r"|\[ERROR\].{0,200}(sqsh|image|credentials|nvcr)"
        r"|unrecognized option '--container-image'",
        "the container did not start",
        "check --container-image and the registry's credentials (~/.config/enroot/.credentials); on a "
        "cluster without containers use --container-image none",
    ),
    _cause(
        "import",
        r"ModuleNotFoundError|ImportError|cannot import name|undefined symbol",
        "a Python package is missing in the environment of the ranks, or does not fit the others",
        "use a container image that has it (-I), or install it where --container-image none runs",
    ),
    _cause(
        "checkpoint",
        r"Checkpoint(ing)?Exception|size mismatch for|Error\(s\) in loading state_dict"
        r"|Missing key\(s\) in state_dict|unpickling|PytorchStreamReader failed",
        "the checkpoint does not fit the model, or is damaged",
        "resume with the layout and model it was saved with, or name an earlier one with --resume PATH",
    ),
    _cause(
        "hub",
        r"GatedRepoError|RepositoryNotFoundError|LocalEntryNotFoundError|401 Client Error"
        r"|offline mode is enabled|A gated dataset needs HF_TOKEN|there is no connection to the hub",
        "something was to be fetched from the Hugging Face hub, and could not",
        "export HF_TOKEN before submitting; where {node} has no way to the hub, name local folders with --hf-model-id "
        "and --dataset-dir",
    ),
    _cause(
        "gpu-broken",
        r"uncorrectable ECC|fallen off the bus|\bXid\b|No CUDA GPUs are available|no CUDA-capable device"
        r"|CUDA driver version is insufficient|cudaErrorDevicesUnavailable|busy or unavailable",
        "a GPU of {node} is broken or not there",
        "tell the cluster's operators about {node}, and go on without it: "
        "`nemolaunch resume RUN --exclude {node}`",
    ),
    _cause(
        "token-ids",
        r"index out of range in self|srcIndex < srcSelectDimSize|vectorized_gather_kernel",
        "the data hold a token id beyond the model's vocabulary",
        "train with the tokenizer the data were made with; `nemolaunch inspect` shows their largest id",
    ),
    _cause(
        "gpu-fault",
        r"illegal memory access|device-side assert|CUBLAS_STATUS_EXECUTION_FAILED|misaligned address",
        "a GPU kernel failed: a token id beyond the vocabulary, or a fault of the GPU",
        "check the data's tokenizer with `nemolaunch inspect`; if only {node} ever fails, --exclude {node}",
    ),
    _cause(
        "port-taken",
        r"EADDRINUSE|Address already in use",
        "another job on {node} uses the port at which the ranks meet",
        "submit again; jobs with whole nodes of their own (the default) do not share ports",
    ),
    _cause(
        "hang",
        r"Timeout \(\d+:\d\d:\d\d\)!|ended by SIGALRM|Alarm clock",
        "no step finished within --hang-timeout",
        "the stacks of all ranks stand at the end of their logs: `nemolaunch logs RUN --rank N`; often one "
        "rank waits for a file system or has left a collective",
    ),
    _cause(
        "host-memory",
        r"oom.?kill|Out Of Memory|OUT_OF_MEMORY|Cannot allocate memory|MemoryError|ended by SIGKILL|: Killed",
        "the kernel ended a process: most often because the memory of {node} ran out",
        "fewer --num-workers, --no-async-save, or nodes with more memory; jobs ask for all of a node's",
    ),
    _cause(
        "crashed",
        r"Segmentation fault|SIGSEGV|SIGBUS|Bus error|SIGILL|core dumped",
        "a process crashed in compiled code",
        "a bus error is often a full /dev/shm: fewer --num-workers; else try another node or container image",
    ),
    _cause(
        "preempted", r"DUE TO PREEMPTION|\bPREEMPTED\b", "a job of higher priority took the nodes", _RESUME
    ),
    _cause("node-failed", r"DUE TO NODE FAILURE|\bNODE_FAIL\b|Node failure on", "a node died", _RESUME),
    _cause(
        "time-limit",
        r"DUE TO TIME LIMIT|(?-i:\bTIMEOUT\b)",
        "the time limit came before the ranks had saved and left",
        "nothing if the next job goes on; else a longer --time, or a larger --exit-margin",
    ),
    _cause(
        "no-time-to-save",
        r"and a checkpoint takes \d+ s",
        "jobs are too short for a checkpoint, so that none is started",
        "a longer --time, or a faster file system for --output-dir",
    ),
    _cause(
        "collective-timeout",
        r"Watchdog caught collective operation timeout|Timed out waiting \d+ ?ms|ncclCommAbort"
        r"|\bTimeoutError\b|Socket Timeout|wait timeout",
        "a rank waited in vain for the others: one of them hung or died without a word",
        "look at the first rank that fell silent; if the ranks never met, name the network with "
        "--network-interface, and set NCCL_DEBUG=INFO",
    ),
    _cause(
        "network",
        r"NCCL (WARN|error)|ncclSystemError|ncclRemoteError|ncclInternalError|unhandled system error"
        r"|Connection (reset|refused|closed)|DistNetworkError|No route to host|Name or service not known",
        "the ranks could not talk to each other, or one of them went away",
        "if the ranks never met, name the network with --network-interface; else the cause is another rank's",
    ),
)


def cause_of(text: str) -> Cause | None:
    """The first known cause that shows in a text, or None."""
    return next((cause for cause in CAUSES if cause.shows.search(text)), None)
