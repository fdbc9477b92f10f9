"""Run NeMo's own converter, the peer: `nemo_convert.py import|export SOURCE OUTPUT`.

Without a GPU, CPU layers stand in for Transformer Engine's, which NeMo needs in order to convert.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(kind: str, source: str, output: str) -> None:
    """Convert with `llm.import_ckpt` or `llm.export_ckpt`."""
    import torch

    if not torch.cuda.is_available():
        from nemolaunch import cpu

        cpu.install()
    from nemo.collections import llm

    if kind == "import":
        model = llm.LlamaModel(llm.Llama3Config8B())
        llm.import_ckpt(model=model, source=f"hf://{source}", output_path=Path(output), overwrite=True)
    else:
        llm.export_ckpt(path=Path(source), target="hf", output_path=output, overwrite=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
