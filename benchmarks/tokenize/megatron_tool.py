"""Runs a tool of a Megatron-LM checkout without the imports of its training code, which a CPU host does not have.

    python megatron_tool.py CHECKOUT preprocess_data.py --input …

The tools need nothing of `megatron.training` but the function that adds the tokenizer's flags: that one function is
taken out of its file. The tool itself, and megatron.core, run as they are, and start faster than they would otherwise.
"""

from __future__ import annotations

import ast
import runpy
import sys
import types
from pathlib import Path


def tokenizer_flags(checkout: Path) -> types.ModuleType:
    """A module with `_add_tokenizer_args` from the checkout's `megatron/training/arguments.py`."""
    source = (checkout / "megatron/training/arguments.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    wanted = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "_add_tokenizer_args"]
    module = types.ModuleType("megatron.training.arguments")
    exec(compile(ast.Module(wanted, []), "arguments.py", "exec"), module.__dict__)
    return module


if __name__ == "__main__":
    checkout = Path(sys.argv[1]).resolve()
    sys.path.insert(0, str(checkout))
    sys.modules["megatron.training"] = types.ModuleType("megatron.training")
    sys.modules["megatron.training.arguments"] = tokenizer_flags(checkout)
    tool = checkout / "tools" / sys.argv[2]
    sys.argv = [str(tool), *sys.argv[3:]]
    runpy.run_path(str(tool), run_name="__main__")
