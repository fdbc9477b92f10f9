#!/usr/bin/env python3
"""List the model and config classes that convert. The same as `nemolaunch models --conversion`."""

import sys

from nemolaunch.cli.models import main

if __name__ == "__main__":
    sys.exit(main(["--conversion", *sys.argv[1:]]))
