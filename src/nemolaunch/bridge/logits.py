"""Compute a checkpoint's logits with Megatron-Bridge, in the interpreter that has it.

    python -m nemolaunch.bridge.logits bridge MODEL IDS RESULT TOKENIZER

The arguments and exit codes are those of `nemolaunch.nemo2.logits`.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from nemolaunch.bridge.entry import prepare
from nemolaunch.checkpoint.bridge import model as model_section
from nemolaunch.checkpoint.bridge.folder import read_folder
from nemolaunch.errors import NemolaunchError
from nemolaunch.trust.checkpoint import check_checkpoint

UNABLE = 3
REASON = ".reason"
LOADING = {"load", "check_checkpoint"}  # the functions that fail if the checkpoint is at fault
ONE_PROCESS = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}


def main(side: str, checkpoint: str, ids: str, result: str, tokenizer: str, *flags: str) -> int:
    """Compute logits and save them. Return the exit code."""
    import numpy as np

    try:
        if not flags:
            check_checkpoint(Path(checkpoint))
        logits = bridge_logits(Path(checkpoint), json.loads(Path(ids).read_text()))
    except Exception as error:
        what = "" if isinstance(error, NemolaunchError) else f"{type(error).__name__}: "
        Path(result + REASON).write_text(what + " ".join(str(error).split()))
        frames = [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)]
        return 1 if LOADING & {*frames} else UNABLE
    np.save(result, logits.numpy())
    return 0


def bridge_logits(checkpoint: Path, ids: list[int]) -> Any:
    """Return the logits of Megatron's model of a checkpoint, `[tokens, vocabulary]`, in float32 on the CPU."""
    os.environ.update(ONE_PROCESS)
    prepare("cpu")
    import torch
    from torch.distributed import HashStore, init_process_group

    init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    model = build(checkpoint)
    load(model, read_folder(checkpoint).weights)
    positions = torch.arange(len(ids))[None]
    with torch.inference_mode():
        return model.float().eval()(torch.tensor([ids]), positions, attention_mask=None)[0].float()


def build(checkpoint: Path) -> Any:
    """Return the model that a checkpoint describes, built from data: nothing that the checkpoint names is imported."""
    import torch

    from nemolaunch.bridge.provider import built, layer_spec, symbol
    from nemolaunch.cpu.adapt import adapt_model

    folder = read_folder(checkpoint)
    source = folder.source()
    rows = source.tensors["embedding.word_embeddings.weight"]
    source.close()
    fields = model_section.to_bridge(folder.config)
    cls, layers = symbol(fields.pop("_target_")), fields.pop("transformer_layer_spec", None)
    provider = cls(**{name: built(name, value) for name, value in fields.items()})
    if layers:
        provider.transformer_layer_spec = layer_spec(layers["_target_"])
    provider.vocab_size, provider.should_pad_vocab = rows.shape[0], False
    provider.params_dtype = getattr(torch, rows.dtype)
    provider.bf16, provider.fp16 = rows.dtype == "bfloat16", rows.dtype == "float16"
    provider.gradient_accumulation_fusion = False
    adapt_model(provider, lambda what: None)
    provider.finalize()
    provider.initialize_model_parallel(seed=0)
    return provider.provide_distributed_model(wrap_with_ddp=False)[0]


def load(model: Any, weights: Path) -> None:
    """Read the weights into the model, every one of them."""
    from megatron.core import dist_checkpointing
    from megatron.core.transformer.module import Float16Module

    inner = model.module if isinstance(model, Float16Module) else model
    found = dist_checkpointing.load({"model": inner.sharded_state_dict()}, str(weights))
    inner.load_state_dict(found["model"])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
