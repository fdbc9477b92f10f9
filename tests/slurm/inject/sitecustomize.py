"""Faults in real training processes, and a record of what they were fed. Python imports this by itself.

Does nothing unless NEMOLAUNCH_TEST_FAULTS names a folder and Slurm has started the process as a task. A file
`rankN` in that folder holds what rank N is to do at its next batch: `raise TYPE MESSAGE`, `nan`, `memory`,
`exit CODE`, `stop` (the process, as a debugger does), `sleep SECONDS`. Each batch is noted in `fed-rankN` as
`PROCESS STEP CHECKSUM`.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

NEMO, MEGATRON = "nemo.collections.llm.gpt.model.base", "megatron.core.models.gpt.gpt_model"
LOOP = "megatron.bridge.training.train"


def install(folder: Path, rank: str) -> None:
    """Wait for the model of NeMo or of Bridge to be imported, then stand before its forward pass."""
    while not (_imported(NEMO, "GPTModel") or _imported(LOOP, "train_step")):
        time.sleep(0.1)
    order, fed = folder / f"rank{rank}", folder / f"fed-rank{rank}"

    def met(model, input_ids, step) -> None:  # type: ignore[no-untyped-def]
        import zlib

        if order.exists():
            words = order.read_text().split(maxsplit=2)
            order.unlink()
            obey(model, words)
        if input_ids is not None:
            with open(fed, "a") as file:
                file.write(f"{os.getpid()} {step()} {zlib.crc32(input_ids.cpu().numpy().tobytes())}\n")

    if _imported(LOOP, "train_step"):
        _stand_before(sys.modules[MEGATRON].GPTModel, met, _step_of_bridge(sys.modules[LOOP]))
    else:
        _stand_before(sys.modules[NEMO].GPTModel, met, None)


def _imported(module: str, name: str) -> bool:
    return hasattr(sys.modules.get(module), name)


def _stand_before(cls, met, step) -> None:  # type: ignore[no-untyped-def]
    """Call `met` before each forward pass; without `step`, the model knows its trainer."""
    forward = cls.forward

    def watched(self, input_ids, *args, **kwargs):  # type: ignore[no-untyped-def]
        met(self, input_ids, step or (lambda: self.trainer.global_step))
        return forward(self, input_ids, *args, **kwargs)

    cls.forward = watched


def _step_of_bridge(loop):  # type: ignore[no-untyped-def]
    """Return a function for the number of steps done; the loop's state is an argument of its steps."""
    train_step = loop.train_step
    states: list[Any] = []

    def noting(*args, **kwargs):  # type: ignore[no-untyped-def]
        states[:] = [each for each in args if hasattr(each, "train_state")]
        return train_step(*args, **kwargs)

    loop.train_step = noting
    return lambda: states[0].train_state.step


def obey(model, words: list[str]) -> None:  # type: ignore[no-untyped-def]
    """Do what the file says."""
    import builtins
    import signal

    import torch

    if words[0] == "raise":
        raise getattr(builtins, words[1])(words[2])
    if words[0] == "nan":
        with torch.no_grad():
            next(getattr(model, "module", model).parameters()).fill_(float("nan"))
    if words[0] == "memory":
        hoard = []
        while True:
            hoard.append(bytearray(os.urandom(1 << 20) * 16))
    if words[0] == "exit":
        os._exit(int(words[1]))
    if words[0] == "sleep":
        time.sleep(float(words[1]))
    if words[0] == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)


if "NEMOLAUNCH_TEST_FAULTS" in os.environ and "SLURM_PROCID" in os.environ:
    where = Path(os.environ["NEMOLAUNCH_TEST_FAULTS"])
    who = os.environ.get("RANK", os.environ["SLURM_PROCID"])  # torchrun's, or Slurm's
    threading.Thread(target=install, args=(where, who), daemon=True).start()
