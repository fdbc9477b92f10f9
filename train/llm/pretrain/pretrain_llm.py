#!/usr/bin/env python3
"""Pretrain a language model with NeMo 2. Equivalent to `nemolaunch pretrain`."""

import sys

try:
    from nemolaunch.cli.commands.pretrain import main
except ModuleNotFoundError as error:
    sys.exit(f"{error} in {sys.executable}: activate the environment first (source .venv/bin/activate)")

if __name__ == "__main__":
    sys.exit(main(prog="pretrain_llm.py"))
