"""Let 'cuda' mean the CPU for the rest of this process.

Megatron-Core and NeMo hard-code the device in well over a hundred places (`device="cuda"`, `tensor.cuda()`,
`torch.cuda.current_device()`), which no Lightning accelerator can redirect. Two changes are enough:

* `torch.cuda` appears initialised and has one device, whose random generator is the CPU's, so that torch's own
  `torch.cuda` random functions work unchanged;
* tensor constructors and `Tensor.to`, `.cuda`, `.type` treat 'cuda' as 'cpu'.

A `TorchFunctionMode` could do the latter without patching torch, but torch disables modes inside
`torch.autograd.backward`, where recomputed layers allocate buffers.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch.jit import _builtins
from torch.utils import _device

from nemolaunch.errors import NemolaunchError
from nemolaunch.system.quantities import counted

CPU = torch.device("cpu")

# fmt: off
CONSTRUCTORS = (
    "arange", "as_tensor", "empty", "empty_like", "empty_strided", "eye", "full", "full_like", "linspace",
    "ones", "ones_like", "rand", "rand_like", "randint", "randn", "randn_like", "randperm", "tensor",
    "tril_indices", "triu_indices", "zeros", "zeros_like",
)
TENSOR_CONSTRUCTORS = ("new_empty", "new_full", "new_ones", "new_tensor", "new_zeros")
# fmt: on

_installed = False


def install() -> None:
    """Make 'cuda' mean the CPU. A second call does nothing.

    Raise `NemolaunchError` on a machine with a GPU, which must never be hidden by mistake.
    """
    global _installed
    if _installed:
        return
    if torch.cuda.is_available():
        raise NemolaunchError(
            f"this machine has {counted(torch.cuda.device_count(), 'GPU')}: the CPU rehearsal refuses to hide them. "
            "Train on them, or set CUDA_VISIBLE_DEVICES='' to rehearse on the CPU anyway."
        )
    os.environ["TORCHDYNAMO_DISABLE"] = "1"  # torch.compile would query the GPU's properties
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].config.disable = True
    _patch_cuda()
    _patch_constructors()
    _patch_moves()
    _installed = True


class Stream:
    """A stand-in for a CUDA stream: on a CPU, all earlier work is already complete."""

    cuda_stream = 0
    device = CPU

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def record_event(self, event: Event | None = None) -> Event:
        """Return the event, or a new one."""
        return event or Event()

    def query(self) -> bool:
        """Return True: all work is complete."""
        return True

    def wait_stream(self, stream: Stream) -> None:
        """Do nothing."""

    def wait_event(self, event: Event) -> None:
        """Do nothing."""

    def synchronize(self) -> None:
        """Do nothing."""


class Event:
    """A stand-in for a CUDA event that is always complete."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def record(self, stream: Stream | None = None) -> None:
        """Do nothing."""

    def wait(self, stream: Stream | None = None) -> None:
        """Do nothing."""

    def synchronize(self) -> None:
        """Do nothing."""

    def query(self) -> bool:
        """Return True: the event is complete."""
        return True

    def elapsed_time(self, other: Event) -> float:
        """Return 0: events do not record times."""
        return 0.0


def _patch_cuda() -> None:
    stream = Stream()
    answers: dict[str, Any] = {
        "current_device": 0,
        "current_stream": stream,
        "default_stream": stream,
        "device_count": 1,
        "empty_cache": None,
        "get_device_capability": (0, 0),
        "is_available": False,  # a CUDA build may call device_count instead, which is patched above
        "is_initialized": True,
        "max_memory_allocated": 0,
        "max_memory_reserved": 0,
        "set_device": None,
        "synchronize": None,
    }
    patches: dict[str, Any] = {name: _always(name, answer) for name, answer in answers.items()}
    patches["stream"] = lambda stream: contextlib.nullcontext()
    patches["Stream"] = Stream
    patches["Event"] = Event
    patches["default_generators"] = (torch.default_generator,)
    for name, value in patches.items():
        setattr(torch.cuda, name, value)
        if hasattr(torch.cuda.random, name):  # that module has imported some of them by name
            setattr(torch.cuda.random, name, value)


def _patch_constructors() -> None:
    _device._device_constructors()  # caches the originals, which `with torch.device(...)` compares against
    for name in CONSTRUCTORS:
        setattr(torch, name, _on_cpu(getattr(torch, name)))
    for name in TENSOR_CONSTRUCTORS:
        setattr(torch.Tensor, name, _on_cpu(getattr(torch.Tensor, name)))


def _patch_moves() -> None:
    to, type_ = torch.Tensor.to, torch.Tensor.type

    @functools.wraps(to)
    def tensor_to(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if args and not isinstance(args[0], (torch.dtype, torch.Tensor)):
            args = (_cpu_for_cuda(args[0]), *args[1:])
        if "device" in kwargs:
            kwargs["device"] = _cpu_for_cuda(kwargs["device"])
        return to(self, *args, **kwargs)

    @functools.wraps(type_)
    def tensor_type(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        out = type_(self, *args, **kwargs)
        # Megatron's optimizers sort parameters by comparing with "torch.cuda.FloatTensor"
        return out.replace("torch.", "torch.cuda.") if isinstance(out, str) else out

    def unmoved(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self

    for name, method in (("to", tensor_to), ("type", tensor_type)):
        setattr(torch.Tensor, name, method)
    for name in ("cuda", "pin_memory", "record_stream"):
        setattr(torch.Tensor, name, unmoved)


def _always(name: str, answer: Any) -> Callable[..., Any]:
    def function(*args: Any, **kwargs: Any) -> Any:
        return answer

    function.__name__ = name
    return function


def _cpu_for_cuda(device: Any) -> Any:
    """Return `device`, or the CPU if it is a CUDA device: 'cuda', 'cuda:0' or a bare index."""
    if device is None or (isinstance(device, torch.device) and device.type != "cuda"):
        return device
    if isinstance(device, str) and not device.startswith("cuda"):
        return device
    return CPU


def _on_cpu(make: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(make)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if "device" in kwargs:
            kwargs["device"] = _cpu_for_cuda(kwargs["device"])
        kwargs.pop("pin_memory", None)
        return make(*args, **kwargs)

    operator = _builtins._find_builtin(make)
    if operator:  # so that torch.jit.script still recognises it
        _builtins._register_builtin(wrapper, operator)
    return wrapper
