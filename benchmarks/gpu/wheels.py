"""Download the wheels that a machine with one GPU and no network needs, and split them into parts.

    python benchmarks/gpu/wheels.py FOLDER [--part-mib 48] [--extension FILE]

Runs on a machine with a network. The other machine has Python, torch and torch's requirements; everything
else is downloaded in the versions of constraints.txt. FOLDER gets `wheels/` with the complete files, and
`part-1`, `part-2`, … of limited size, which `install.py` puts together again.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path

import tomllib
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from parts import MIB, split

ROOT = Path(__file__).parents[2]
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (39, 35, 34, 31, 28, 27, 24, 17, 12, 5)] + [
    f"manylinux{name}_x86_64" for name in ("2014", "2010", "1")
]
# Already there: torch, and what comes with it
GIVEN = frozenset({"torch", "triton", "cuda-bindings"})
# Requirements for features not used there
LEFT_OUT = {
    "ray": "clusters of Ray",
    "wandb": "reports to a server",
    "tensorboard-data-server": "showing TensorBoard's pages",
    "hf-xet": "faster downloads",
}
TRANSFORMER_ENGINE = {"transformer-engine": "2.9.0", "transformer-engine-cu13": "2.9.0"}
TRANSFORMER_ENGINE_SOURCE = "transformer-engine-torch==2.9.0"  # PyPI has its source only
# To install and compile with; a requirement of Transformer Engine; a peer and its requirement
ADDED = ("pip", "ninja", "wheel", "onnxscript", "torchtitan==0.2.2", "torchdata==0.11.0")


def main() -> int:
    """Download the wheels and write the parts. Return 0."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--python", default="3.12", help="Python version of the other machine")
    arguments.add_argument("--part-mib", type=int, default=48, help="size of a part")
    arguments.add_argument("--without-transformer-engine", action="store_true")
    arguments.add_argument(
        "--extension", type=Path, help="Transformer Engine's torch extension as compiled by extension.py"
    )
    given = arguments.parse_args()
    wheels = given.folder / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    asked = [Requirement(text) for text in (*train_requirements(), *ADDED)]
    if not given.without_transformer_engine:
        asked += [Requirement(f"{name}=={version}") for name, version in TRANSFORMER_ENGINE.items()]
    names = Closure(wheels, given.python).gather(asked)
    if not given.without_transformer_engine:
        fetch_extension_source(wheels)
    if given.extension:
        shutil.copy(given.extension, wheels)
    parts = split(wheels, given.folder, given.part_mib * MIB)
    size = sum(path.stat().st_size for path in wheels.iterdir())
    print(f"{len(names)} packages, {size / MIB:.0f} MiB, in {len(parts)} parts under {given.folder}")
    return 0


def fetch_extension_source(wheels: Path) -> None:
    """Download the source of Transformer Engine's torch extension.

    Its setup needs torch's CUDA version even to report its name to pip; CPU builds of torch have none.
    """
    with tempfile.TemporaryDirectory() as name:
        hook = "import torch.version\ntorch.version.cuda = torch.version.cuda or '13.0'\n"
        (Path(name) / "sitecustomize.py").write_text(hook)
        words = ["download", "--no-deps", "--no-build-isolation", "--no-binary", ":all:", "-d", str(wheels)]
        pip(*words, TRANSFORMER_ENGINE_SOURCE, variables={"PYTHONPATH": name})


def train_requirements() -> list[str]:
    """Return the requirements of `nemolaunch[train]`, with our own extras expanded."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras, found = project["optional-dependencies"], list(project["dependencies"])
    waiting = ["train"]
    while waiting:
        for text in extras[waiting.pop()]:
            requirement = Requirement(text)
            if requirement.name == "nemolaunch":
                waiting += requirement.extras
            else:
                found.append(text)
    return found


def pins() -> dict[str, str]:
    """Return the version of each package in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if "==" in line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


class Closure:
    """Downloads packages and their dependencies for another Python than this one."""

    def __init__(self, wheels: Path, python: str) -> None:
        self.wheels, self.python, self.pins = wheels, python, pins()
        self.environment = {
            **default_environment(),
            "python_version": python,
            "python_full_version": f"{python}.3",
            "sys_platform": "linux",
            "platform_system": "Linux",
            "platform_machine": "x86_64",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "os_name": "posix",
        }

    def gather(self, asked: list[Requirement]) -> list[str]:
        """Download wheels for all requirements and their dependencies. Return the names of the packages.

        Raises:
            subprocess.CalledProcessError: pip finds no wheel and can build none.
        """
        done: dict[str, set[str]] = {}
        waiting = [requirement for requirement in asked if self.applies(requirement, {""})]
        while waiting:
            requirement = waiting.pop()
            name = canonicalize_name(requirement.name)
            if name in GIVEN or name in LEFT_OUT:
                continue
            new = {"", *requirement.extras} - done.get(name, set())
            if not new:
                continue
            wheel = self.wheel(name, requirement)
            done[name] = done.get(name, set()) | new
            waiting += [r for r in requirements_of(wheel) if self.applies(r, new)]
        return sorted(done)

    def applies(self, requirement: Requirement, extras: set[str]) -> bool:
        """Return whether a requirement applies on the other machine, for one of these extras."""
        marker = requirement.marker
        return marker is None or any(marker.evaluate({**self.environment, "extra": e}) for e in extras)

    def wheel(self, name: str, requirement: Requirement) -> Path:
        """Return the package's wheel, downloaded or, for pure Python without one, built here."""
        there = self.there(name)
        if there:
            return there
        spec = f"{name}=={self.pins[name]}" if name in self.pins else f"{name}{requirement.specifier}"
        print(spec, flush=True)
        target = ["--python-version", self.python, "--implementation", "cp"]
        target += [word for platform in PLATFORMS for word in ("--platform", platform)]
        try:
            pip("download", "--no-deps", "--only-binary", ":all:", *target, "-d", str(self.wheels), spec)
        except subprocess.CalledProcessError:
            pip("wheel", "--no-deps", "-w", str(self.wheels), spec)
        found = self.there(name)
        if found is None or not (found.name.endswith("-any.whl") or self.fits(found)):
            raise RuntimeError(
                f"{spec}: no wheel for Python {self.python}, and its source is not pure Python"
            )
        return found

    def fits(self, wheel: Path) -> bool:
        """Return whether a wheel is for the other machine's Python."""
        digits = self.python.replace(".", "")
        return f"-cp{digits}-" in wheel.name or "-abi3-" in wheel.name or "-py3-none-" in wheel.name

    def there(self, name: str) -> Path | None:
        """Return the package's wheel if it is in the folder already."""
        for path in self.wheels.glob("*.whl"):
            if canonicalize_name(path.name.split("-")[0]) == name:
                return path
        return None


def requirements_of(wheel: Path) -> Iterator[Requirement]:
    """Yield the requirements in a wheel's metadata."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n)]
        metadata = HeaderParser().parsestr(archive.read(name).decode())
    for text in metadata.get_all("Requires-Dist") or ():
        yield Requirement(text)


def pip(*words: str, variables: dict[str, str] | None = None) -> None:
    """Run pip. Raises subprocess.CalledProcessError if it fails."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *words]
    subprocess.run(command, check=True, env={**os.environ, **(variables or {})})


if __name__ == "__main__":
    sys.exit(main())
