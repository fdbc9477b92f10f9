"""The flag that lets code of a model or a tokenizer run, the same in every command that loads one."""

from __future__ import annotations

import argparse


def add_trust_flag(p: argparse.ArgumentParser) -> None:
    """Add the flag that lets code of a model or tokenizer run."""
    p.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="run code in the folder of the model or the tokenizer, and load checkpoints that name more than NeMo's "
        "own do; such code may do anything on this machine",
    )
