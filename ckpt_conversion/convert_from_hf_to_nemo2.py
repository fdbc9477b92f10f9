#!/usr/bin/env python3
"""Convert a Hugging Face model to a NeMo 2 checkpoint. The same as `nemolaunch convert --to nemo2`."""

import sys

from nemolaunch.cli.convert import main

if __name__ == "__main__":
    sys.exit(main(to="nemo2", prog="convert_from_hf_to_nemo2.py"))
