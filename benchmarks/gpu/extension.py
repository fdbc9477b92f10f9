"""Set up Transformer Engine without a network: its torch extension, and the variables it needs.

    python benchmarks/gpu/extension.py SDIST FOLDER     # with the target's Python and torch, and nvcc

PyPI has only the source of the extension. It can be compiled in advance on a machine with the same Python,
torch and CUDA toolkit (no GPU is needed) and copied with the wheels; otherwise `install.py` compiles it.
"""

from __future__ import annotations

import glob
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

NAME = "transformer_engine_torch"
PROBE = "import torch, transformer_engine.pytorch, transformer_engine; print(transformer_engine.__version__)"
COMPILE_TIMEOUT_S = 480


def compiled(sdist: Path, target: Path, python: str = sys.executable) -> Path:
    """Compile the extension in a source archive for a Python and its torch. Return the path of the library.

    Raises:
        RuntimeError: it does not compile; the message has the compiler's errors.
    """
    headers = nvidia_headers(python)
    with tempfile.TemporaryDirectory() as name:
        with tarfile.open(sdist) as archive:
            archive.extractall(name, filter="data")
        (source,) = Path(name).iterdir()
        variables = {
            **os.environ,
            "CPATH": os.pathsep.join(filter(None, [*map(str, headers), os.environ.get("CPATH")])),
            "CUDA_HOME": str(toolkit()),
            "NVTE_FRAMEWORK": "pytorch",
            "NVTE_NO_LOCAL_VERSION": "1",
            "MAX_JOBS": str(len(os.sched_getaffinity(0))),
            "PATH": os.pathsep.join([str(Path(python).parent), os.environ.get("PATH", "")]),
        }
        command = [python, "setup.py", "build_ext", "--inplace"]
        done = subprocess.run(
            command, cwd=source, env=variables, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S
        )
        libraries = list(source.glob(f"{NAME}*.so"))
        if done.returncode or not libraries:
            raise RuntimeError(f"{sdist.name} does not compile:\n{_first_errors(done.stdout + done.stderr)}")
        target.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(libraries[0], target))


def toolkit() -> Path:
    """Return the folder of the CUDA toolkit, since torch's packages lack some of its headers."""
    places = [os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    if compiler := shutil.which("nvcc"):
        places.append(str(Path(compiler).resolve().parents[1]))
    for place in filter(None, places):
        if (Path(place) / "include" / "crt" / "host_defines.h").exists():
            return Path(place)
    raise RuntimeError(f"no CUDA toolkit in {', '.join(filter(None, places))}")


def _first_errors(output: str) -> str:
    """Return the first lines that name an error, else the last lines."""
    lines = output.splitlines()
    named = [line for line in lines if "error" in line.lower()][:8]
    return "\n".join(line[:300] for line in named or lines[-20:])


def nvidia_headers(python: str) -> list[Path]:
    """Return the folders of CUDA's, cuDNN's and NCCL's headers among a Python's packages."""
    site = _site(python)
    found = [site / "nvidia" / name / "include" for name in ("cu13", "cudnn", "nccl")]
    return [folder for folder in found if folder.is_dir()]


def _site(python: str) -> Path:
    asked = "import torch, pathlib; print(pathlib.Path(torch.__file__).parents[1])"
    return Path(
        subprocess.run([python, "-c", asked], check=True, capture_output=True, text=True).stdout.strip()
    )


def transformer_engine(env: Path, wheels: Path) -> dict[str, object]:
    """Make Transformer Engine in `ENV/te` work. Return its version and variables, or why it does not work."""
    python, target = str(env / "bin" / "python"), env / "te"
    reasons = []
    brought = wheels / library_name()
    if brought.exists():
        shutil.copy(brought, target)
        state = working(env)
        if state["transformer_engine"]:
            return {**state, "extension": "copied"}
        reasons.append(f"the copied extension: {state['why']}")
        (target / brought.name).unlink()
    for sdist in wheels.glob(f"{NAME}-*.tar.gz"):
        try:
            compiled(sdist, target, python)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            reasons.append(str(error))
            continue
        state = working(env)
        if state["transformer_engine"]:
            return {**state, "extension": "compiled here"}
        reasons.append(f"the extension compiled here: {state['why']}")
    why = "\n".join(reasons) or "its torch extension is not among the wheels"
    return {"transformer_engine": None, "variables": {}, "why": why}


def library_name() -> str:
    """Return the file name of the extension for this Python and platform."""
    version = "".join(platform.python_version_tuple()[:2])
    return f"{NAME}.cpython-{version}-{platform.machine()}-linux-gnu.so"


def working(env: Path) -> dict[str, object]:
    """Try to import Transformer Engine with each set of variables it may need. Return the outcome."""
    python = str(env / "bin" / "python")
    why = ""
    for variables in candidates(_site(python)):
        environment = {**os.environ, **variables, "PYTHONPATH": str(env / "te")}
        done = subprocess.run(
            [python, "-W", "ignore", "-c", PROBE], env=environment, capture_output=True, text=True
        )
        if done.returncode == 0:
            return {"transformer_engine": done.stdout.split()[-1], "variables": variables, "why": ""}
        why = done.stderr[-1500:]
    return {"transformer_engine": None, "variables": {}, "why": why}


def candidates(site: Path) -> list[dict[str, str]]:
    """Return sets of variables to try: the toolkit's libraries first, then those of torch's packages.

    Transformer Engine 2.9 looks for NVRTC and cuRAND in the CUDA toolkit and where packages for CUDA 12 put
    them, but not where those for CUDA 13 do. It looks for the headers with which it compiles kernels in the
    toolkit.
    """
    headers = [
        folder
        for folder in (*glob.glob("/usr/local/cuda/include"), str(site / "nvidia" / "cu13" / "include"))
        if os.path.exists(os.path.join(folder, "cuda_runtime.h"))
    ]
    with_headers = {"NVTE_CUDA_INCLUDE_DIR": headers[0]} if headers else {}
    return [with_headers, {**with_headers, "CUDA_HOME": str(site / "nvidia" / "cu13")}]


def main() -> int:
    """Compile the extension in advance."""
    sdist, target = map(Path, sys.argv[1:3])
    print(compiled(sdist, target))
    return 0


if __name__ == "__main__":
    sys.exit(main())
