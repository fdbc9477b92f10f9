"""Which format a checkpoint has, told from the names of its files."""

from __future__ import annotations

from pathlib import Path

from nemolaunch.errors import UsageError
from nemolaunch.run.folder import RunDir, consumed_samples

FORMATS = {
    "hf": "Hugging Face: config.json, safetensors, tokenizer",
    "nemo2": "NeMo 2: weights/ and context/",
    "torch": "one file of torch.save",
    "meta": "Meta's own: consolidated.*.pth and params.json",
    "safetensors": "safetensors files and nothing else",
    "dcp": "a torch distributed checkpoint: .metadata and *.distcp",
}
# Endings of the names of checkpoints that are one file
ENDINGS = {"torch": (".pt", ".pth", ".bin", ".ckpt"), "safetensors": (".safetensors",)}


def detect(path: Path) -> str:
    """The format of a file or folder, one of `FORMATS`. Raises `UsageError` if it is none."""
    if path.is_file():
        return _detect_file(path)
    if not path.is_dir():
        raise UsageError(f"there is no file or folder {path}")
    if (path / "adapter_config.json").is_file():
        raise UsageError(f"{path} holds a LoRA adapter, not a model; merge it into its base model first")
    if (path / "config.json").is_file():
        return "hf"
    if (path / "weights").is_dir() or (path.name == "weights" and (path.parent / "context").is_dir()):
        return "nemo2"
    if any(path.glob("consolidated.*.pth")):
        return "meta"
    if (path / ".metadata").is_file():
        return "dcp"
    if any(path.glob("*.safetensors")):
        return "safetensors"
    inner = [found.parent for name in ("config.json", "weights") for found in sorted(path.glob(f"*/{name}"))]
    newest = max(inner, key=consumed_samples, default=None)  # the first by name where none tells
    hint = f"; did you mean {newest}?" if newest else "."
    kinds = "\n".join(f"  {name}: {about}" for name, about in FORMATS.items())
    raise UsageError(f"{path} is no checkpoint{hint} The formats:\n{kinds}")


def newest_of_run(path: Path) -> Path:
    """The newest complete checkpoint of a run, if `path` is a run's folder; else `path` itself.

    Raises `UsageError` if the run has none.
    """
    run = RunDir(path)
    if not run.plan.is_file():
        return path
    last = run.last_checkpoint() if run.checkpoints.is_dir() else None
    if last is None:
        raise UsageError(f"the run {path} has no complete checkpoint yet (looked in {run.checkpoints})")
    return last.resolve()


def _detect_file(path: Path) -> str:
    for form, endings in ENDINGS.items():
        if path.suffix in endings:
            return form
    raise UsageError(f"{path} is no checkpoint: a file has to be {', '.join(sum(ENDINGS.values(), ()))}")
