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


def install(folder: Path, rank: str) -> None:
    """Wait for NeMo's model to be imported, then stand before its forward pass."""
    name = "nemo.collections.llm.gpt.model.base"
    while not hasattr(sys.modules.get(name), "GPTModel"):
        time.sleep(0.1)
    model = sys.modules[name].GPTModel
    forward = model.forward
    order, fed = folder / f"rank{rank}", folder / f"fed-rank{rank}"

    def watched(self, input_ids, *args, **kwargs):  # type: ignore[no-untyped-def]
        import zlib

        if order.exists():
            words = order.read_text().split(maxsplit=2)
            order.unlink()
            obey(self, words)
        if input_ids is not None:
            with open(fed, "a") as file:
                file.write(
                    f"{os.getpid()} {self.trainer.global_step} {zlib.crc32(input_ids.cpu().numpy().tobytes())}\n"
                )
        return forward(self, input_ids, *args, **kwargs)

    model.forward = watched


def obey(model, words: list[str]) -> None:  # type: ignore[no-untyped-def]
    """Do what the file says."""
    import builtins
    import signal

    import torch

    if words[0] == "raise":
        raise getattr(builtins, words[1])(words[2])
    if words[0] == "nan":
        with torch.no_grad():
            next(model.module.parameters()).fill_(float("nan"))
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
