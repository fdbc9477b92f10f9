"""Run a tool from a Megatron-LM checkout: `python megatron_tool.py CHECKOUT preprocess_data.py --input …`.

Two changes are made: `typing.override` is supplied on Python 3.11, and an installed `nvidia_resiliency_ext`
older than Megatron-LM requires is hidden. The tool does not use it, and Megatron's own code works without it.
"""

from __future__ import annotations

import runpy
import sys
import typing
from pathlib import Path

if __name__ == "__main__":
    checkout = Path(sys.argv[1]).resolve()
    sys.path.insert(0, str(checkout))
    sys.modules["nvidia_resiliency_ext"] = None  # type: ignore[assignment]
    if not hasattr(typing, "override"):
        typing.override = lambda method: method  # type: ignore[attr-defined]
    tool = checkout / "tools" / sys.argv[2]
    sys.argv = [str(tool), *sys.argv[3:]]
    runpy.run_path(str(tool), run_name="__main__")
