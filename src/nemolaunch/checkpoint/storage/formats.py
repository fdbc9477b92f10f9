"""Detect the format of a checkpoint from the names of its files."""

from __future__ import annotations

from pathlib import Path

from nemolaunch.checkpoint.storage.adapters import adapter_in
from nemolaunch.errors import UsageError
from nemolaunch.run.folder import (
    BRIDGE_CONFIG,
    BRIDGE_TRACKER,
    RunDir,
    consumed_samples,
    is_bridge,
    newest_of_bridge,
)

FORMATS = {
    "hf": "Hugging Face: config.json, safetensors, tokenizer",
    "nemo2": "NeMo 2: weights/ and context/",
    "bridge": "Megatron-Bridge: iter_N/ with run_config.yaml",
    "megatron-lm": "Megatron-LM: iter_N/ of pretrain_gpt.py, torch_dist",
    "megatron-legacy": "Megatron-LM: iter_N/mp_rank_*/model_optim_rng.pt",
    "torch": "one file of torch.save",
    "meta": "Meta: consolidated.*.pth and params.json",
    "safetensors": "bare safetensors files",
    "dcp": "a torch distributed checkpoint: .metadata and *.distcp",
}
# File extensions of checkpoints that are a single file
ENDINGS = {"torch": (".pt", ".pth", ".bin", ".ckpt"), "safetensors": (".safetensors",)}


def detect(path: Path) -> str:
    """Return the format of a file or folder, one of `FORMATS`. Raises `UsageError` if it is not a checkpoint."""
    if path.is_file():
        return _detect_file(path)
    if not path.is_dir():
        raise UsageError(f"{path} does not exist")
    adapter = adapter_in(path)
    if adapter:
        raise UsageError(adapter)
    if (path / "config.json").is_file():
        return "hf"
    if (path / "weights").is_dir() or (path.name == "weights" and (path.parent / "context").is_dir()):
        return "nemo2"
    if _is_megatron_lm(path):
        return "megatron-lm"
    if _is_legacy(path):
        return "megatron-legacy"
    if (path / BRIDGE_TRACKER).is_file() or all(
        (path / name).is_file() for name in (".metadata", BRIDGE_CONFIG)
    ):
        return "bridge"
    if any(path.glob("consolidated.*.pth")):
        return "meta"
    if (path / ".metadata").is_file():
        return "dcp"
    if any(path.glob("*.safetensors")):
        return "safetensors"
    inner = [found.parent for name in ("config.json", "weights") for found in sorted(path.glob(f"*/{name}"))]
    newest = max(inner, key=consumed_samples, default=None)  # the first by name if no name has a count
    hint = f"; did you mean {newest}?" if newest else "."
    kinds = "\n".join(f"  {name}: {about}" for name, about in FORMATS.items())
    raise UsageError(f"{path} is not a checkpoint{hint} The formats are:\n{kinds}")


def newest_of_megatron_lm(folder: Path) -> Path | None:
    """Return the checkpoint that Megatron-LM has recorded as its newest in a folder, or None."""
    try:
        word = (folder / BRIDGE_TRACKER).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    found = folder / (f"iter_{int(word):07d}" if word.isdigit() else word)
    return found if word and found.is_dir() else None


def _is_megatron_lm(path: Path) -> bool:
    """Return whether a folder is a checkpoint of Megatron-LM, or one of several: as Bridge's, but not described."""
    found = newest_of_megatron_lm(path) if (path / BRIDGE_TRACKER).is_file() else path
    return (
        found is not None
        and (found.name == "release" or is_bridge(found))
        and (found / ".metadata").is_file()
        and not (found / BRIDGE_CONFIG).is_file()
    )


def _is_legacy(path: Path) -> bool:
    """Return whether a folder is a checkpoint of Megatron-LM's in the format `torch`, or one of several."""
    found = newest_of_megatron_lm(path) if (path / BRIDGE_TRACKER).is_file() else path
    return found is not None and any(found.glob("mp_rank_*/model_optim_rng.pt"))


def newest_of_run(path: Path) -> Path:
    """Return the newest complete checkpoint of a run folder, or of a folder of Megatron-Bridge's; else `path` itself.

    Raises `UsageError` if there is none.
    """
    run = RunDir(path)
    if not run.plan.is_file():
        if _is_megatron_lm(path) or _is_legacy(path):
            return newest_of_megatron_lm(path) or path if (path / BRIDGE_TRACKER).is_file() else path
        return _newest_of_bridge(path) if (path / BRIDGE_TRACKER).is_file() else path
    last = run.last_checkpoint() if run.checkpoints.is_dir() else None
    if last is None:
        raise UsageError(f"the run {path} has no complete checkpoint yet (looked in {run.checkpoints})")
    return last.resolve()


def _newest_of_bridge(folder: Path) -> Path:
    newest = newest_of_bridge(folder)
    if newest is None:
        raise UsageError(f"{folder} has no complete checkpoint of Megatron-Bridge")
    return newest


def _detect_file(path: Path) -> str:
    for form, endings in ENDINGS.items():
        if path.suffix in endings:
            return form
    raise UsageError(f"{path} is not a checkpoint: a file must end in {', '.join(sum(ENDINGS.values(), ()))}")
