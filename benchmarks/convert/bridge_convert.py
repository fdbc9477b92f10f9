"""Run Megatron-Bridge's own converter, the peer: `bridge_convert.py import|export SOURCE OUTPUT`.

Without a GPU, CPU layers stand in for Transformer Engine's. An export needs the Hugging Face model's configuration,
which is in the folder `hf` beside SOURCE.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ONE_PROCESS = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
ONE_PROCESS |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29517"}


def main(kind: str, source: str, output: str) -> None:
    """Convert with `AutoBridge`, in bfloat16."""
    os.environ.update(ONE_PROCESS)
    from nemolaunch.bridge.entry import prepare

    prepare("cpu")
    import torch
    from megatron.bridge import AutoBridge
    from megatron.bridge.models.conversion.param_mapping import AutoMapping

    AutoMapping.register_module_type("Norm", "replicated")  # of the CPU's layers
    torch.distributed.init_process_group("gloo")
    if kind == "import":
        bridge = AutoBridge.from_hf_pretrained(source, dtype=torch.bfloat16)
        provider = bridge.to_megatron_provider(load_weights=True)
        provider.params_dtype, provider.bf16 = torch.bfloat16, True
        provider.gradient_accumulation_fusion = False
        provider.finalize()
        provider.initialize_model_parallel(seed=0)
        bridge.save_megatron_model(provider.provide_distributed_model(wrap_with_ddp=False), output)
    else:
        bridge = AutoBridge.from_hf_pretrained(str(Path(source).parent / "hf"))
        model = bridge.load_megatron_model(source, wrap_with_ddp=False)
        bridge.save_hf_pretrained(model, output)


if __name__ == "__main__":
    main(*sys.argv[1:])
