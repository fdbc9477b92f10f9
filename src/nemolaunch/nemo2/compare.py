"""Compare what a Hugging Face model and a checkpoint of NeMo 2 or Megatron-Bridge compute on real text, in float32.

The models run one after the other, each in its own process, so that only one is in memory at a time. On the CPU,
stand-ins replace Transformer Engine's layers, as in a rehearsal.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.checkpoint.storage.check import Check
from nemolaunch.cpu.adapt import REFUSED_MODELS
from nemolaunch.errors import NemolaunchError
from nemolaunch.facts.interpreter import Interpreter
from nemolaunch.families import registry
from nemolaunch.families.nemo_config import NemoConfig
from nemolaunch.nemo2.logits import REASON, UNABLE
from nemolaunch.tokenizer import library

HERE = "nemolaunch.nemo2.logits"
# With a launcher's variables, Lightning would wait for the ranks of another job
LAUNCHER_PREFIXES = ("SLURM_", "PMI_", "PMIX_", "OMPI_", "TORCHELASTIC_")
LAUNCHER_NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK")
SETTINGS = {
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONWARNINGS": "ignore",
    "TORCHDYNAMO_DISABLE": "1",
}
BASE_BYTES = 2 * 2**30  # NeMo's imports, and the logits
FLOAT32_BYTES = 4
MESSAGE_LENGTH = 200
RESULT = 3  # the place of the result's path among the arguments
SLACK = 1.6  # a float16 checkpoint is loaded and then widened

# The differences come from rounding; a wrong weight causes far larger ones
MAX_RELATIVE_DIFFERENCE = 1e-3
MAX_KL = 1e-5
MAX_RELATIVE_PERPLEXITY = 1e-4


@dataclass(frozen=True)
class Runner:
    """How a checkpoint's logits are computed.

    Attributes:
        name: of the framework.
        module: what computes them, as a program.
        unable: why the framework cannot run here, or None.
        python: the interpreter that has it, if it is not this one.
    """

    name: str
    module: str
    unable: str | None
    python: str | None = None


TRANSFORMERS = Runner("transformers", HERE, None)


def nemo() -> Runner:
    """Return NeMo 2 in this environment."""
    installed = importlib.util.find_spec("nemo") is not None
    return Runner("NeMo", HERE, None if installed else "NeMo is not installed here")


def bridge(found: Interpreter) -> Runner:
    """Return Megatron-Bridge in the environment of an interpreter."""
    unable = (
        None if found.bridge else "Megatron-Bridge is not installed here (`make install-bridge` in a clone)"
    )
    return Runner("Bridge", "nemolaunch.bridge.logits", unable, None if found.here else found.path)


def compare(
    hf: Path,
    megatron: Path,
    config: NemoConfig,
    num_parameters: int,
    tokenizer: Path,
    runner: Runner,
    *,
    trust_remote_code: bool = False,
) -> Check:
    """Compare both models' logits for the same text: largest difference, KL divergence, perplexities.

    The Hugging Face model is transformers' own, made of the folder `hf` as it is. `tokenizer` is the folder whose
    tokenizer makes the text's ids. The check is skipped, with the reason, if one of the models cannot run here.

    Raises `NemolaunchError` if a model cannot be loaded from its checkpoint.
    """
    reason = runner.unable or _unable(config, num_parameters, runner)
    if reason:
        return Check("logits", 0, skipped=reason)
    with tempfile.TemporaryDirectory(prefix="nemolaunch-compare-") as folder:
        results = {side: Path(folder) / f"{side}.npy" for side in ("hf", "megatron")}
        ids = Path(folder) / "ids.json"
        trusted = [library.FLAG] if trust_remote_code else []
        for side, model, program in (("hf", hf, TRANSFORMERS), ("megatron", megatron, runner)):
            words = [side, str(model), str(ids), str(results[side]), str(tokenizer), *trusted]
            reason = _run(program, words, Path(folder))
            if reason:
                return Check("logits", 0, skipped=reason)
        return _check(results["hf"], results["megatron"], json.loads(ids.read_text()), runner.name)


def _unable(config: NemoConfig, num_parameters: int, runner: Runner) -> str | None:
    """Return why the models cannot be run here, or None."""
    family = registry.of_nemo(config)
    fields = config.resolved
    if config.model_class in REFUSED_MODELS:
        return f"NeMo's {config.model_class} has no layers for the CPU"
    if family.remote_code:
        return f"transformers has no class for {family.model_type}"
    difference = family.computes_differently(fields)
    if difference:
        return difference
    if runner.module == HERE and fields.get("multi_latent_attention"):
        return "multi-latent attention is not available on the CPU"
    if runner.module == HERE and fields.get("softmax_type", "vanilla") != "vanilla":
        return "attention with sinks is not available on the CPU"
    needed = int(num_parameters * FLOAT32_BYTES * SLACK) + BASE_BYTES
    available = available_memory()
    if needed > available:
        return f"a model needs {needed / 2**30:.1f} GiB in float32, {available / 2**30:.1f} GiB are available"
    return None


def available_memory() -> int:
    """Return how many bytes a new process can use, by the machine's free memory and the control group."""
    left = []
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            left.append(int(line.split()[1]) * 1024)
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        left += [int(limit) - int(used)] if limit != "max" else []
    except OSError:
        pass
    return min(left, default=0)


def _run(runner: Runner, arguments: list[str], folder: Path) -> str | None:
    """Compute the logits of one side. Return why its model cannot run here, or None."""
    log = folder / f"{arguments[0]}.log"
    with open(log, "wb") as sink:
        done = subprocess.run(
            [runner.python or sys.executable, "-m", runner.module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=_environment(folder if runner.python else None),
            check=False,
        )
    if not done.returncode:
        return None
    reason = Path(arguments[RESULT] + REASON)
    lines = (reason if reason.is_file() else log).read_text(errors="replace").strip().splitlines()
    message = lines[-1][:MESSAGE_LENGTH] if lines else "no message"
    whose = f"{runner.name}'" if runner.name.endswith("s") else f"{runner.name}'s"
    if done.returncode == UNABLE:
        return f"{whose} model does not run here: {message}"
    if done.returncode < 0:
        return f"{whose} model was ended by signal {-done.returncode}, perhaps for lack of memory"
    raise NemolaunchError(
        f"{whose} model could not be loaded to compare logits ({message}); use --verify bits to skip this check"
    )


def _environment(code: Path | None) -> dict[str, str]:
    """Return the variables of a process; with `code`, a folder, it can import this package and no other from here."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(LAUNCHER_PREFIXES) and name not in LAUNCHER_NAMES
    }
    if code is None:
        return {**kept, **SETTINGS}
    link = code / "code" / "nemolaunch"
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(Path(__file__).parents[1], target_is_directory=True)
    return {**kept, **SETTINGS, "PYTHONPATH": str(link.parent)}


def _check(hf: Path, megatron: Path, ids: list[int], framework: str) -> Check:
    import numpy as np
    import torch

    ours, theirs = (torch.from_numpy(np.load(path)) for path in (megatron, hf))
    ours = ours[:, : theirs.shape[1]]  # without the vocabulary's padding
    target = torch.tensor(ids[1:])
    p, q = (torch.log_softmax(logits, dim=-1) for logits in (theirs, ours))
    kl = float((p.exp() * (p - q)).sum(dim=-1).mean())
    largest = float((ours - theirs).abs().max())
    perplexities = [float(torch.nn.functional.nll_loss(side[:-1], target).exp()) for side in (p, q)]
    values: dict[str, Any] = {
        "max difference": largest,
        "largest logit": float(theirs.abs().max()),
        "KL": kl,
        "perplexity (Hugging Face)": perplexities[0],
        f"perplexity ({framework})": perplexities[1],
    }
    wrong = []
    if not largest <= MAX_RELATIVE_DIFFERENCE * values["largest logit"]:
        wrong.append(f"logits of up to {values['largest logit']:.3g} differ by up to {largest:.3g}")
    if not abs(kl) <= MAX_KL:
        wrong.append(f"KL divergence is {kl:.3g}")
    if not abs(perplexities[1] / perplexities[0] - 1) <= MAX_RELATIVE_PERPLEXITY:
        wrong.append(
            f"perplexity is {perplexities[1]:.6g} in {framework}, {perplexities[0]:.6g} in Hugging Face"
        )
    return Check("logits", len(ids), wrong, values=values)
