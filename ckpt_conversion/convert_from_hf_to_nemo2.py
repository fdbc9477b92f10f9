#!/usr/bin/env python3
"""Convert a Hugging Face model to a NeMo 2 checkpoint; the same as `nemolaunch convert --to nemo2`."""

import sys

try:
    from nemolaunch.cli.commands.convert import main
except ModuleNotFoundError as error:
    sys.exit(f"{error} in {sys.executable}: activate the environment first (source .venv/bin/activate)")

if __name__ == "__main__":
    sys.exit(main(to="nemo2", prog="convert_from_hf_to_nemo2.py"))
