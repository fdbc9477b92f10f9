"""The names of a training checkpoint's tensors and objects in NeMo 2, and in Megatron-Bridge and Megatron-LM.

NeMo 2 holds the model in a LightningModule, and so adds `module.` to the name of every parameter; with a reshardable
optimizer, the name of a state is that of its parameter after `optimizer.state.KIND.`
(megatron.core.optimizer, `sharded_state_dict`). Everything else is the same in all three.
"""

from __future__ import annotations

import re

from nemolaunch.checkpoint.megatron.names import WRAPPER
from nemolaunch.errors import NemolaunchError

_STATE = re.compile(r"optimizer\.state\.(?P<kind>\w+)\.(?P<parameter>.+)")
# What is kept of each parameter: its copy in fp32, and Adam's moments
KINDS = ("param", "fp32_param", "exp_avg", "exp_avg_sq")
# Objects of Bridge and Megatron-LM that NeMo 2 does not have, up to the number of the shard
LEFT_OUT = ("common_state", "rng_state", "rerun_state_machine_state")
EXTRA_STATE = "_extra_state"


def kind_of(name: str) -> str | None:
    """Return what an optimizer's tensor is of its parameter; None for a tensor of the model."""
    found = _STATE.fullmatch(name)
    return found["kind"] if found else None


def parameter_of(name: str) -> str:
    """Return the parameter that a tensor is of, without NeMo's prefix."""
    found = _STATE.fullmatch(name)
    return (found["parameter"] if found else name).removeprefix(WRAPPER)


def renamed(name: str, *, from_nemo: bool, to_nemo: bool) -> str:
    """Return the name that a tensor or object of one framework has in another: NeMo 2, or one of the other two.

    Raises:
        NemolaunchError: it is not a name of a reshardable checkpoint of the source's framework.
    """
    found = _STATE.fullmatch(name)
    head, parameter = (f"optimizer.state.{found['kind']}.", found["parameter"]) if found else ("", name)
    if found and found["kind"] not in KINDS:
        raise NemolaunchError(
            f"the optimizer keeps {found['kind']} ({name}); only {', '.join(KINDS)} are known to mean the same in both "
            "frameworks"
        )
    if not found and name.startswith(("optimizer.", "chained_")):
        raise NemolaunchError(
            f"the optimizer state is not saved by parameter ({name}), and so depends on the layout of the processes. "
            "Let one step more be trained by nemolaunch, which saves it in the reshardable format"
        )
    if not from_nemo:
        return f"{head}{WRAPPER if to_nemo else ''}{parameter}"
    if not parameter.startswith(WRAPPER):
        raise NemolaunchError(f"{name} is not a name of NeMo 2's, in which every parameter is in {WRAPPER!r}")
    return head + parameter.removeprefix(WRAPPER)


def is_left_out(name: str) -> bool:
    """Return whether an object belongs to the framework that wrote it, and not to the model."""
    return name.startswith(tuple(f"{kind}/" for kind in LEFT_OUT))
