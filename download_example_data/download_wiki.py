#!/usr/bin/env python3
"""Download a Wikipedia as JSON Lines. The same as `nemolaunch download`."""

import sys

from nemolaunch.cli.download import main

if __name__ == "__main__":
    sys.exit(main(prog="download_wiki.py"))
