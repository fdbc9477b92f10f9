#!/usr/bin/env python3
"""Download a Wikipedia as JSON Lines. The same as `nemolaunch download wiki`."""

import sys

from nemolaunch.cli.download_wiki import main

if __name__ == "__main__":
    sys.exit(main())
