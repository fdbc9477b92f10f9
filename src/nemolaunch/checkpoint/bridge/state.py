"""What a checkpoint of Bridge's says about the training that saved it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nemolaunch.checkpoint.storage.dcp import DcpSource
from nemolaunch.checkpoint.storage.file_parts import OpenFiles
from nemolaunch.checkpoint.storage.saved import read_saved
from nemolaunch.checkpoint.storage.torch_file import LazyTensor, TorchFile
from nemolaunch.errors import NemolaunchError

COMMON = "common_state/"  # an object in the `.distcp` files since Megatron-Core 0.19, `common.pt` before
TRAIN_STATE = "train_state.pt"


def common(stored: DcpSource) -> dict[str, Any]:
    """Return the state that all processes share: optimizer, schedule, how both are sharded."""
    name = next((name for name in stored.objects if name.startswith(COMMON)), None)
    if name is not None:
        span = stored.spans[name, None]
        content = read_saved(span.path, span.start, span.length)
        content = content[0] if isinstance(content, list) and content else content
    else:
        content = read_saved(stored.folder / "common.pt")
    return dict(content) if isinstance(content, dict) else {}


def progress(checkpoint: Path) -> tuple[int, int]:
    """Return the optimizer steps done and the samples consumed."""
    path = checkpoint / TRAIN_STATE
    files = OpenFiles()
    try:
        file = TorchFile(path, files)
        content = file.content
        found = [_number(file, content[name]) for name in ("step", "consumed_train_samples")]
    except (OSError, KeyError, TypeError) as error:
        raise NemolaunchError(f"cannot read {path}: {error!r}") from error
    finally:
        files.close()
    return found[0], found[1]


def num_writers(checkpoint: Path) -> int:
    """Return how many processes wrote the checkpoint, by the names of the files."""
    return len({path.name.split("_")[2] for path in checkpoint.glob("__*_*.distcp")})


def _number(file: TorchFile, value: Any) -> int:
    if not isinstance(value, LazyTensor) or value.info.numel != 1:
        raise TypeError(f"{value!r} is not a number")
    return int(file.read(value).item())
