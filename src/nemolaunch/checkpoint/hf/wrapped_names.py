"""Remove what wrappers around a model added to the names of its tensors."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from nemolaunch.checkpoint.storage.adapters import adapter_names
from nemolaunch.checkpoint.storage.tensors import TensorSource
from nemolaunch.checkpoint.storage.wrappers import same_tensor
from nemolaunch.errors import NemolaunchError

# torch.compile, FSDP and activation checkpointing wrap any module; DDP and DeepSpeed only the whole model
ANYWHERE = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
IN_FRONT = ("module.", "_forward_module.")
FLAT = "_flat_param"


def bare_name(name: str) -> str:
    """Return a tensor's name without the parts that wrappers added."""
    while True:
        shorter = name
        for wrapper in IN_FRONT:
            shorter = shorter.removeprefix(wrapper)
        for wrapper in ANYWHERE:
            shorter = shorter.replace(wrapper, "")
        if shorter == name:
            return name
        name = shorter


def bare_names(source: TensorSource, folder: Path | str) -> dict[str, str]:
    """Map the names of a model's tensors, without wrappers, to those in the source.

    Raises `NemolaunchError` for an adapter, for FSDP's flat shards, and for two different tensors of one name.
    """
    adapter = adapter_names(source.tensors, folder)
    if adapter:
        raise NemolaunchError(adapter)
    flat = next((name for name in source.tensors if FLAT in name), None)
    if flat:
        raise NemolaunchError(
            f"{folder} has FSDP's flattened parameters ({flat}), not the model's tensors: save it again with "
            "StateDictType.FULL_STATE_DICT"
        )
    names: dict[str, str] = {}
    for name in source.tensors:
        bare = bare_name(name)
        if bare not in names:
            names[bare] = name
        elif not same_tensor(source, names[bare], name):
            raise NemolaunchError(
                f"{folder} has two different tensors for {bare}: {names[bare]} and {name}; remove the outdated one"
            )
    return names


def removed_parts(names: Iterable[str]) -> list[str]:
    """Return the parts that wrappers added to any of these names."""
    names = list(names)
    return [
        wrapper
        for wrapper in (*IN_FRONT, *ANYWHERE)
        if any((wrapper in name if wrapper in ANYWHERE else name.startswith(wrapper)) for name in names)
    ]
