"""Check the names in a NeMo 2 checkpoint before fiddle, torch or Megatron see them.

`context/io.json` names classes and functions, which fiddle calls; `weights/.metadata` and `*.pt` are pickles, which can
name any. Only what NeMo's own checkpoints contain is allowed: `context_names.json`, written by
`python -m nemolaunch.nemo2.names_dump`, and the names below.
"""

from __future__ import annotations

import _compat_pickle
import functools
import io
import json
import pickle
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from nemolaunch.errors import NemolaunchError

TABLE = Path(__file__).with_name("context_names.json")
SHOWN = 3
MAX_CONTEXT_BYTES = 1 << 26  # of some hundred kilobytes that a context has

METADATA = {
    "megatron.core.dist_checkpointing.strategies.torch": {"MCoreMetadata", "MCoreSavePlan"},
    "torch": {"Size", "device"},
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.distributed.checkpoint.metadata": {
        "BytesStorageMetadata", "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta",
        "TensorProperties", "TensorStorageMetadata", "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.planner": {"SavePlan", "TensorWriteData", "WriteItem", "WriteItemType"},
    "torch.serialization": {"_get_layout"},
    "collections": {"OrderedDict"},
    "builtins": {"set", "frozenset", "list", "dict", "tuple", "bytearray", "complex", "slice", "int", "float"},
    "pathlib": {"Path", "PosixPath", "PurePosixPath"},
    "datetime": {"datetime", "timedelta"},
}  # fmt: skip
TENSORS = {
    "torch._utils": {
        "_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter", "_rebuild_device_tensor_from_numpy",
    },
    "torch": {
        "BFloat16Storage", "BoolStorage", "ByteStorage", "CharStorage", "DoubleStorage", "FloatStorage",
        "HalfStorage", "IntStorage", "LongStorage", "ShortStorage",
    },
    "torch.storage": {"UntypedStorage"},
    "numpy": {"dtype", "ndarray"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "_codecs": {"encode"},
    "argparse": {"Namespace"},
}  # fmt: skip


def check_checkpoint(folder: Path) -> None:
    """Check every name in a checkpoint.

    Raises:
        NemolaunchError: the context or a pickle names something else, or cannot be read; with the names.
    """
    fault = context_fault(folder) or _weights_fault(folder / "weights")
    if fault:
        raise NemolaunchError(f"{folder} is not loaded: {fault}")


def context_fault(folder: Path) -> str | None:
    """Return what is wrong with the names in a checkpoint's `context/io.json`, as a sentence; None if nothing is."""
    path = folder / "context" / "io.json"
    try:
        if path.stat().st_size > MAX_CONTEXT_BYTES:
            return f"context/io.json has {path.stat().st_size:,} bytes; a context has less than {MAX_CONTEXT_BYTES:,}"
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        return f"context/io.json cannot be read: {error}"
    allowed = _context_names()
    refused = [name for name in _named(content) if name not in allowed]
    return _fault("context/io.json", refused)


def _weights_fault(weights: Path) -> str | None:
    for path in sorted((weights / ".metadata", *weights.glob("*.pt"))):
        if not path.is_file():
            continue
        try:
            refused = [name for name in pickled_names(path) if not _may_be_pickled(*name)]
        except Exception as error:  # a damaged pickle can raise anything
            return f"weights/{path.name} cannot be read: {type(error).__name__}: {error}"
        fault = _fault(f"weights/{path.name}", refused)
        if fault:
            return fault
    return None


def _fault(file: str, refused: Iterable[tuple[str, str]]) -> str | None:
    names = list(dict.fromkeys(".".join(name) for name in refused))
    if not names:
        return None
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (
        f"its {file} names {', '.join(names[:SHOWN])}{more}, which NeMo's checkpoints do not; loading it would run "
        "what it names"
    )


@functools.cache
def _context_names() -> frozenset[tuple[str, str]]:
    table = json.loads(TABLE.read_text(encoding="utf-8"))["names"]
    return frozenset((module, name) for module, names in table.items() for name in names)


def _named(content: Any) -> Iterator[tuple[str, str]]:
    """Yield what a context names, and `trust_remote_code` where it is on. Depth does not matter."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if value.get("type") == "pyref":
                yield str(value.get("module")), str(value.get("name"))
            waiting.extend(value.values())
        elif isinstance(value, list):
            if len(value) == 2 and value[0] == "Attr(name='trust_remote_code')" and _is_on(value[1]):
                yield "trust_remote_code", "True"
            waiting.extend(value)


def _is_on(value: Any) -> bool:
    return not (isinstance(value, dict) and value.get("value") in (False, None))


def _may_be_pickled(module: str, name: str) -> bool:
    if name in METADATA.get(module, ()) or name in TENSORS.get(module, ()):
        return True
    return module == "torch" and (module, name) in _context_names()  # the types of numbers


def pickled_names(path: Path) -> set[tuple[str, str]]:
    """Return what a pickle, or the pickle in a file of `torch.save`, names. Nothing is imported or called.

    Raises whatever `pickle` raises if it is damaged.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return {
                name
                for entry in archive.namelist()
                if entry.endswith(".pkl")
                for name in _names_in(io.BytesIO(archive.read(entry)))
            }
    with open(path, "rb") as file:
        return _names_in(file)


def _names_in(file: IO[bytes]) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()

    class Names(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            # torch.save writes the names that Python 2 had, and unpickling translates them
            module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
            found.add((_compat_pickle.IMPORT_MAPPING.get(module, module), name))
            return _Nothing

        def persistent_load(self, pid: Any) -> Any:
            return None

    Names(file).load()
    return found


class _Nothing:
    """Stands for whatever a pickle names."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Nothing:
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...

    def append(self, value: Any) -> None: ...

    def extend(self, values: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def __hash__(self) -> int:
        return id(self)
