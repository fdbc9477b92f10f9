#!/usr/bin/env python3
"""Pretrain a language model with NeMo 2. The same as `nemolaunch pretrain`."""

import sys

from nemolaunch.cli.pretrain import main

if __name__ == "__main__":
    sys.exit(main(prog="pretrain_llm.py"))
