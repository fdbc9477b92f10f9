"""GPUs, their driver, and whether torch and Transformer Engine can use them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

from nemolaunch import catalogue
from nemolaunch.catalogue.version_pairs import release
from nemolaunch.doctor.packages import installed
from nemolaunch.doctor.verdict import Verdict, bad, good, note, warning
from nemolaunch.errors import NemolaunchError
from nemolaunch.observe.units import size
from nemolaunch.system.commands import answers
from nemolaunch.system.quantities import counted

TIMEOUT_S = 30
FIELDS = "name,memory.total,driver_version,compute_cap,ecc.errors.uncorrected.volatile.total"
LEAST_CAPABILITY = (8, 0)  # bf16 matrix units
TORCH = (
    "import json, torch; c = torch.cuda.is_available();"
    "print(json.dumps([torch.__version__, torch.version.cuda, c, torch.cuda.device_count() if c else 0]))"
)


def look() -> Iterator[Verdict]:
    """Check what nvidia-smi shows, and whether torch sees the same."""
    query, shown = answers(
        ["nvidia-smi", f"--query-gpu={FIELDS}", "--format=csv,noheader,nounits"],
        ["nvidia-smi"],
        timeout_s=TIMEOUT_S,
    )
    rows = [
        row for line in (query or "").splitlines() if len(row := [w.strip() for w in line.split(",")]) == 5
    ]
    if not rows:
        yield note("gpu", "no NVIDIA GPU: jobs can be rehearsed on the CPU or submitted to Slurm")
        return
    for (name, memory, capability), count in Counter((r[0], r[1], r[3]) for r in rows).items():
        text = f"{count} x {name}"
        if memory.isdigit():
            text += f", {size(int(memory) * 2**20)}"
        if release(capability) < LEAST_CAPABILITY:
            yield warning(
                "gpu",
                f"{text}: no bf16 matrix units (compute capability {capability})",
                "use --precision fp32",
            )
        else:
            yield good("gpu", text + _known(name))
    for i, row in enumerate(rows):
        if row[4].isdigit() and int(row[4]):
            yield bad(
                "gpu", f"GPU {i} has {row[4]} uncorrectable memory errors", "have the GPU reset or replaced"
            )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        yield note(
            "gpu",
            f"CUDA_VISIBLE_DEVICES={visible!r} hides all other GPUs"
            if visible
            else "CUDA_VISIBLE_DEVICES is empty, so no GPU is used",
        )
    cuda = re.search(r"CUDA Version:\s*([\d.]+)", shown or "")
    driver = f"driver {rows[0][2]}" + (f", supports CUDA up to {cuda[1]}" if cuda else "")
    yield good("gpu", driver)
    yield from _torch(release(cuda[1]) if cuda else None, len(rows))
    yield from _transformer_engine()


def _known(name: str) -> str:
    try:
        gpu = catalogue.gpu(name)
    except NemolaunchError:
        return "; its peak FLOP/s are unknown, so MFU is not reported"
    return f", {gpu.peak_bf16 / 1e12:,.0f} TFLOP/s in bf16" if gpu.peak_bf16 else ""


def _torch(driver_cuda: tuple[int, ...] | None, num_gpus: int) -> Iterator[Verdict]:
    if installed("torch") is None:
        return
    found = _ask_torch()
    if isinstance(found, str):
        yield bad("gpu", f"torch cannot be imported: {found}", "pip install -c constraints.txt torch")
        return
    version, cuda, available, count = found
    if cuda is None:
        yield bad("gpu", f"torch {version} is a CPU-only build", "pip install a CUDA build of torch")
    elif driver_cuda and release(cuda)[0] > driver_cuda[0]:
        supported = ".".join(map(str, driver_cuda))
        text = f"torch {version} needs CUDA {cuda}, but the driver only supports CUDA up to {supported}"
        yield bad("gpu", text, "install a newer driver, or torch for an older CUDA version")
    elif not available:
        yield bad(
            "gpu",
            f"torch {version} for CUDA {cuda} sees no GPU",
            "check the output of `nvidia-smi` and `dmesg`",
        )
    elif count != num_gpus and "CUDA_VISIBLE_DEVICES" not in os.environ:
        yield warning(
            "gpu", f"torch sees only {count} of {num_gpus} GPUs", "check the output of `nvidia-smi -L`"
        )
    else:
        yield good("gpu", f"torch {version} for CUDA {cuda} sees {counted(count, 'GPU')}")


def _ask_torch() -> Any:
    """Return [torch version, CUDA version, whether CUDA is available, number of GPUs], or an error message."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", TORCH], capture_output=True, text=True, timeout=120, check=False
        )
        return json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return "the import takes more than two minutes"
    except (ValueError, IndexError):
        return (done.stderr.strip().splitlines() or ["no reason given"])[-1]


def _transformer_engine() -> Iterator[Verdict]:
    have = installed("transformer-engine") or installed("transformer_engine")
    if have:
        yield good("gpu", f"Transformer Engine {have}")
    elif installed("nemo_toolkit"):
        yield bad(
            "gpu",
            "Transformer Engine is not installed, but NeMo's recipes need it on a GPU",
            "pip install --no-build-isolation 'transformer-engine[pytorch]', or use the NeMo container",
        )
