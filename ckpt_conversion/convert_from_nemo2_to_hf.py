#!/usr/bin/env python3
"""Convert a NeMo 2 checkpoint to a Hugging Face model; the same as `nemolaunch convert --to hf`."""

import sys

try:
    from nemolaunch.cli.commands.convert import main
except ModuleNotFoundError as error:
    sys.exit(f"{error} in {sys.executable}: activate the environment first (source .venv/bin/activate)")

if __name__ == "__main__":
    sys.exit(main(to="hf", prog="convert_from_nemo2_to_hf.py"))
