"""The names that NeMo's own checkpoints contain.

`context_names.json`, written by `python -m nemolaunch.nemo2.names_dump`, has those of a context; the tables below those
of pickles.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from pathlib import Path

TABLE = Path(__file__).with_name("context_names.json")
SHOWN = 3

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
    "torch._utils": {"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter"},
    "torch": {
        "BFloat16Storage", "BoolStorage", "ByteStorage", "CharStorage", "DoubleStorage", "FloatStorage",
        "HalfStorage", "IntStorage", "LongStorage", "ShortStorage",
    },
    "torch.storage": {"UntypedStorage"},
    "numpy": {"dtype", "ndarray"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "_codecs": {"encode"},
    "_io": {"BytesIO"},
    "argparse": {"Namespace"},
}  # fmt: skip


# Of objects that NeMo writes into a context as pickles, besides what a context names
PARTS = {
    "nemo.utils.timers": {"NamedTimer"},
    "collections": {"OrderedDict", "defaultdict", "deque"},
    "signal": {"Signals"},
}


def may_be_in_context(module: str, name: str) -> bool:
    """Return whether a context of NeMo's own can name this."""
    return (module, name) in _context_names()


def may_be_in_part(module: str, name: str) -> bool:
    """Return whether a pickle in a context of NeMo's own can call this; an enumeration is called with a value."""
    return name in PARTS.get(module, ()) or (module, name) in _enumerations() or may_be_pickled(module, name)


def may_be_pickled(module: str, name: str) -> bool:
    """Return whether the weights of NeMo's own can name this."""
    if name in METADATA.get(module, ()) or name in TENSORS.get(module, ()):
        return True
    return module == "torch" and may_be_in_context(module, name)  # the types of numbers


def fault(file: str, refused: Iterable[tuple[str, str]]) -> str | None:
    """Return what is wrong with a file that names these, as a clause; None if there are none."""
    names = list(dict.fromkeys(".".join(name) for name in refused))
    if not names:
        return None
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (
        f"its {file} names {', '.join(names[:SHOWN])}{more}, which NeMo's and Megatron-Bridge's checkpoints do not; "
        "loading it would run what it names. If you trust who made it, set --trust-remote-code"
    )


@functools.cache
def _enumerations() -> frozenset[tuple[str, str]]:
    return frozenset((module, name.partition(".")[0]) for module, name in _context_names() if "." in name)


@functools.cache
def _context_names() -> frozenset[tuple[str, str]]:
    table = json.loads(TABLE.read_text(encoding="utf-8"))["names"]
    return frozenset((module, name) for module, names in table.items() for name in names)
