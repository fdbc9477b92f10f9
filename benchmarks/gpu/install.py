"""Create an environment from the parts that `wheels.py` made, on a machine with one GPU and no network.

    python3 benchmarks/gpu/install.py --env ENV --stash STASH PART [PART …]

The Python that runs this must have torch: the environment links to its torch and torch's requirements, and
gets everything else from the wheels. Parts can be passed over several calls: they are kept in STASH, and the
call with the last one installs. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from parts import collect, join

ROOT = Path(__file__).resolve().parents[2]
STATE = "environment.json"
NEMO = (
    "from nemolaunch.ranks.megatron_import import skip_inference_allocator; skip_inference_allocator();"
    "import nemo.collections.llm, nemo; print(nemo.__version__)"
)


def main() -> int:
    """Install the parts. Return 0 if it worked or parts are missing, 1 if NeMo cannot be imported."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("parts", nargs="*", type=Path, help="folders of the parts that are here")
    arguments.add_argument("--env", type=Path, required=True, help="folder for the environment")
    arguments.add_argument(
        "--stash", type=Path, required=True, help="folder that keeps parts until all are here"
    )
    arguments.add_argument(
        "--python", default=sys.executable, help="a Python that has torch (default: this one)"
    )
    given = arguments.parse_args()
    missing = collect(given.parts, given.stash)
    if missing:
        print(f"waiting for part {', '.join(map(str, missing))}")
        return 0
    start = time.monotonic()
    wheels = join(given.stash, given.stash / "wheels")
    site = make_environment(given.python, given.env, [w for w in wheels if w.suffix == ".whl"])
    print(f"installed {len(list(site.glob('*.dist-info')))} packages in {time.monotonic() - start:.0f} s")
    state = settle(given.env, given.stash / "wheels")
    print(json.dumps(state, indent=1))
    return 0 if state["nemo"] else 1


def make_environment(python: str, env: Path, wheels: list[Path]) -> Path:
    """Create a virtual environment with links to torch and with the wheels. Return its site-packages."""
    subprocess.run([python, "-m", "venv", "--clear", "--without-pip", str(env)], check=True)
    own = str(env / "bin" / "python")
    asked = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([own, "-c", asked], check=True, capture_output=True, text=True).stdout.strip())
    (pip,) = [w for w in wheels if w.name.startswith("pip-")]
    apart = [w for w in wheels if _is_transformer_engine(w)]
    install_with(pip, env, [w for w in wheels if w not in apart])
    if apart:
        install_with(pip, env, apart, "--target", str(env / "te"))
    borrow(python, site)
    (site / "nemolaunch-source.pth").write_text(f"{ROOT / 'src'}\n")
    runner = env / "bin" / "torchrun"
    runner.write_text(f"#!{own}\nfrom torch.distributed.run import main\nmain()\n")
    runner.chmod(0o755)
    subprocess.run([own, "-m", "compileall", "-q", "-j", "0", str(site)], stdout=subprocess.DEVNULL)
    return site


def install_with(pip: Path, env: Path, wheels: list[Path], *more: str) -> None:
    """Install just these wheels, with the pip inside a wheel, since the environment has none."""
    words = ["install", "--quiet", "--no-index", "--no-deps", "--no-compile", "--disable-pip-version-check"]
    command = [str(env / "bin" / "python"), f"{pip}/pip", *words, *more, *map(str, wheels)]
    subprocess.run(command, check=True)


def _is_transformer_engine(wheel: Path) -> bool:
    return wheel.name.replace("_", "-").startswith("transformer-engine")


# Runs in the Python that has torch: top-level entries of torch's distribution and of its requirements
ENTRIES = """
import importlib.metadata as md, json, re, sys
from pathlib import Path
def canonical(name): return re.sub(r"[-_.]+", "-", name).lower()
seen, waiting, entries = set(), ["torch"], {}
while waiting:
    name = canonical(waiting.pop())
    if name in seen: continue
    seen.add(name)
    try: found = md.distribution(name)
    except md.PackageNotFoundError: continue
    tops = {f.parts[0] for f in found.files or () if f.parts[0] not in ("..", "__pycache__")}
    entries[name] = sorted(str(Path(found.locate_file(top))) for top in tops)
    for text in found.requires or ():
        waiting.append(re.match(r"[A-Za-z0-9._-]+", text).group())
print(json.dumps(entries))
"""


def borrow(python: str, site: Path) -> None:
    """Link torch and its requirements into `site`, except for packages installed from wheels.

    Raises:
        RuntimeError: `python` has no torch.
    """
    answer = subprocess.run([python, "-c", ENTRIES], check=True, capture_output=True, text=True).stdout
    entries: dict[str, list[str]] = json.loads(answer)
    if "torch" not in entries:
        raise RuntimeError(f"{python} has no torch; use --python with one that has it")
    present = {_name(path) for path in site.glob("*.dist-info")}
    for name, paths in entries.items():
        if name in present:
            continue
        for path in map(Path, paths):
            link = site / path.name
            if not link.exists() and path.exists():
                link.symlink_to(path)


def _name(dist_info: Path) -> str:
    return dist_info.name.split("-")[0].replace("_", "-").replace(".", "-").lower()


def settle(env: Path, wheels: Path) -> dict[str, object]:
    """Find out whether NeMo and Transformer Engine work, and save the result in `ENV/environment.json`."""
    own = str(env / "bin" / "python")
    state: dict[str, object] = {"nemo": None, "transformer_engine": None, "why": "", "variables": {}}
    answer = tried(own, NEMO, {})
    state["nemo"] = answer.stdout.split()[-1] if answer.returncode == 0 else None
    if answer.returncode:
        state["why"] = answer.stderr[-2000:]
    if (env / "te").is_dir():
        from extension import transformer_engine

        state |= transformer_engine(env, wheels)
    (env / STATE).write_text(json.dumps(state, indent=1))
    return state


def tried(python: str, code: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a line of Python with additional environment variables."""
    return subprocess.run(
        [python, "-c", code], capture_output=True, text=True, env={**os.environ, **variables}, check=False
    )


if __name__ == "__main__":
    sys.exit(main())
