"""Known causes of failed training runs: the text each one leaves, what it means, and what to change.

The order matters: the first pattern found in the output of the first failed rank is reported. Errors that are
often only a consequence of another rank's failure come last.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """A known cause of failure.

    Attributes:
        code: stable identifier.
        shows: text that appears in an exception, a log, or Slurm's output.
        meaning: what happened, in one sentence.
        change: what to do; `{node}` is replaced by the node's name, if known.
    """

    code: str
    shows: re.Pattern[str]
    meaning: str
    change: str


def _cause(code: str, shows: str, meaning: str, change: str) -> Cause:
    return Cause(code, re.compile(shows, re.IGNORECASE), meaning, change)


_RESUME = (
    "nothing: the next job resumes from the last checkpoint; if none is queued, run `nemolaunch resume RUN`"
)

CAUSES: tuple[Cause, ...] = (
    _cause(
        "setup",
        r"the set-up of the job failed",
        "a module, the set-up script or a command that runs before the ranks failed",
        "correct --modules, --setup or --pre-commands; its own message is in the output of the batch script "
        "(`nemolaunch logs RUN --job`)",
    ),
    _cause(
        "preflight",
        r"\bUnfit(Elsewhere)?: preflight: ",
        "the preflight found a slow or sick node before the first step",
        "on Slurm, resume without it: `nemolaunch resume RUN --exclude {node}`, or with `--exclude-slow`, which leaves "
        "out all nodes that preflights of the run named; preflight/result.json has what was measured",
    ),
    _cause(
        "gpu-memory",
        r"CUDA out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED",
        "a GPU ran out of memory",
        "reduce --micro-batch-size, increase -TP or -PP, or set --recompute-granularity full or "
        "--optim-cpu-offloading; `nemolaunch suggest` ranks layouts that fit",
    ),
    _cause(
        "disk-full",
        r"No space left on device|ENOSPC|Disk quota exceeded",
        "the file system of the run folder, or the node's /tmp, is full",
        "free some space, keep fewer checkpoints with --keep-latest, or use another --output-dir; then "
        "`nemolaunch resume`",
    ),
    _cause(
        "not-finite",
        r"found NaN|Unexpected result (nan|inf)|\bNaN\b.{0,40}(loss|grad)|(loss|grad\w*).{0,40}\bNaN\b"
        r"|not finite",
        "the loss or a gradient became NaN or infinite",
        "lower --lr, increase --warmup-steps, or train without --fp8; check the loss curve before the failure "
        "with `nemolaunch report`, and the data of that step",
    ),
    _cause(
        "data-missing",
        r"(FileNotFoundError|No such file or directory).{0,300}\.(bin|idx)\b"
        r"|\.(bin|idx)\b.{0,200}(not found|No such file)",
        "a node cannot see the data",
        "check that {node} mounts the same file system as the other nodes, and that --container-mounts includes "
        "the targets of any symbolic links",
    ),
    _cause(
        "container",
        r"pyxis:.{0,200}(error|failed|No such file)|enroot.{0,80}(failed|error)"
        r"|\[ERROR\].{0,200}(sqsh|image|credentials|nvcr)"
        r"|unrecognized option '--container-image'|the container did not start",
        "the container did not start",
        "check --container-image and --container-mounts; on Slurm also the registry credentials "
        "(~/.config/enroot/.credentials), and on a cluster without containers use --container-image none; "
        "`nemolaunch pretrain … --dry-run` checks an engine on this machine",
    ),
    _cause(
        "versions",
        # the first two are how Megatron-Core 0.16 fails in NeMo 2.7 (NVIDIA-NeMo/Speech#15458)
        r"\w+\(\) got an unexpected keyword argument|megatron-core was not found"
        r"|No module named 'nemo\.collections\.llm|(cannot import name|No module named).{0,80}megatron\.core",
        "the releases of NeMo and Megatron-Core in the environment of the ranks do not fit together",
        "use a container whose releases are known to work, such as the default of --container-image; with "
        "--container-image none, `pip install -c constraints.txt 'nemolaunch[train]'`; `nemolaunch doctor` judges the "
        "installed releases",
    ),
    _cause(
        "import",
        r"ModuleNotFoundError|ImportError|undefined symbol",
        "a Python package is missing from the environment of the ranks, or is incompatible with another package",
        "use a container image that has the package (-I); with --container-image none, install it in the "
        "environment the job runs in",
    ),
    _cause(
        "checkpoint",
        r"Checkpoint(ing)?Exception|size mismatch for|Error\(s\) in loading state_dict"
        r"|Missing key\(s\) in state_dict|unpickling|PytorchStreamReader failed",
        "the checkpoint does not match the model, or is corrupt",
        "resume with the model and layout it was saved with, or choose an earlier checkpoint with --resume PATH",
    ),
    _cause(
        "hub",
        r"GatedRepoError|RepositoryNotFoundError|LocalEntryNotFoundError|401 Client Error"
        r"|offline mode is enabled|A gated dataset needs HF_TOKEN|no connection to the hub",
        "a download from the Hugging Face hub failed",
        "export HF_TOKEN before submitting; if {node} has no network access to the hub, pass local folders to "
        "--hf-model-id and --dataset-dir",
    ),
    _cause(
        "gpu-broken",
        r"uncorrectable ECC|fallen off the bus|\bXid\b|No CUDA GPUs are available|no CUDA-capable device"
        r"|CUDA driver version is insufficient|cudaErrorDevicesUnavailable|busy or unavailable",
        "a GPU of {node} is faulty or not available",
        "report {node} to the cluster's administrators, and resume without it: "
        "`nemolaunch resume RUN --exclude {node}`",
    ),
    _cause(
        "token-ids",
        r"index out of range in self|srcIndex < srcSelectDimSize|vectorized_gather_kernel",
        "the data contains a token id outside the model's vocabulary",
        "train with the tokenizer that the data was tokenised with; `nemolaunch inspect` shows the largest id",
    ),
    _cause(
        "gpu-fault",
        r"illegal memory access|device-side assert|CUBLAS_STATUS_EXECUTION_FAILED|misaligned address",
        "a GPU kernel failed: a token id outside the vocabulary, or faulty hardware",
        "check the data's tokenizer with `nemolaunch inspect`; if only {node} ever fails, use --exclude {node}",
    ),
    _cause(
        "port-taken",
        r"EADDRINUSE|Address already in use",
        "another job on {node} uses the rendezvous port of this one",
        "submit again; jobs with exclusive nodes (the default) cannot collide",
    ),
    _cause(
        "hang",
        r"Timeout \(\d+:\d\d:\d\d\)!|(ended|killed) by SIGALRM|Alarm clock",
        "no step finished within --hang-timeout",
        "read the stacks of all ranks at the end of their logs (`nemolaunch logs RUN --rank N`); often one "
        "rank is waiting for a file system, or did not join a collective",
    ),
    _cause(
        "host-memory",
        r"oom.?kill|Out Of Memory|OUT_OF_MEMORY|Cannot allocate memory|MemoryError|(ended|killed) by SIGKILL"
        r"|: Killed",
        "the kernel killed a process, most likely because {node} ran out of memory",
        "reduce --num-workers, set --no-async-save, or use nodes with more memory (jobs already request all of a "
        "node's memory)",
    ),
    _cause(
        "crashed",
        r"Segmentation fault|SIGSEGV|SIGBUS|Bus error|SIGILL|core dumped",
        "a process crashed in native code",
        "a bus error often means that /dev/shm is full: reduce --num-workers; otherwise try another node or "
        "container image",
    ),
    _cause(
        "preempted",
        r"DUE TO PREEMPTION|\bPREEMPTED\b",
        "the job was preempted by one with higher priority",
        _RESUME,
    ),
    _cause("node-failed", r"DUE TO NODE FAILURE|\bNODE_FAIL\b|Node failure on", "a node failed", _RESUME),
    _cause(
        "time-limit",
        r"DUE TO TIME LIMIT|(?-i:\bTIMEOUT\b)",
        "the time limit was reached before the ranks had saved a checkpoint and exited",
        "nothing if the next job resumes; otherwise use a longer --time or a larger --exit-margin",
    ),
    _cause(
        "no-time-to-save",
        r"and a checkpoint takes \d+ s",
        "the time left in the job was too short to save a checkpoint, so none was started",
        "use a longer --time, or a faster file system for --output-dir",
    ),
    _cause(
        "collective-timeout",
        r"Watchdog caught collective operation timeout|Timed out waiting \d+ ?ms|ncclCommAbort"
        r"|\bTimeoutError\b|Socket Timeout|wait timeout",
        "a rank timed out waiting for the others: one of them hung, or died without an error message",
        "find the rank whose log stops first; if the ranks never connected, set --network-interface, and "
        "NCCL_DEBUG=INFO for details",
    ),
    _cause(
        "network",
        r"NCCL (WARN|error)|ncclSystemError|ncclRemoteError|ncclInternalError|unhandled system error"
        r"|Connection (reset|refused|closed)|DistNetworkError|No route to host|Name or service not known",
        "the ranks could not communicate, or one of them disappeared",
        "if the ranks never connected, set --network-interface; otherwise another rank failed first",
    ),
    _cause(
        "terminated",
        r"SIGTERMException|received SIGTERM|(ended|killed) by SIG(TERM|HUP|INT|USR[12])\b|User defined signal"
        r"|: (Terminated|Hangup)$",
        "something outside the run ended its processes: a person, a batch system, or a shutdown of {node}",
        _RESUME,
    ),
)


def cause_of(text: str) -> Cause | None:
    """Return the first known cause whose pattern occurs in a text, or None."""
    return next((cause for cause in CAUSES if cause.shows.search(text)), None)
