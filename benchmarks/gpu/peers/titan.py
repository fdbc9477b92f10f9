"""Train torchtitan's Llama 3 with its own trainer on one GPU: `titan.py '{"architecture": …}'`.

Its embeddings are never tied, so it has more weights than a model with tied embeddings. Its loader tokenises
the sample corpus on the fly.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import sys
import time
from pathlib import Path
from typing import Any

WARM_UP = 5
CORPUS = Path(__file__).resolve().parents[3] / "examples" / "corpus"


def arguments(request: dict[str, Any]) -> list[str]:
    """Return torchtitan's flags for the same job."""
    work = Path(request["work"])
    texts = work / "titan-texts"
    texts.mkdir(exist_ok=True)
    shutil.copyfile(CORPUS / "en.jsonl", texts / "data.jsonl")
    tokenizer = work / "tokenizer"
    flags = {
        "model.name": "llama3",
        "model.flavor": "bench",
        "model.hf-assets-path": tokenizer if tokenizer.exists() else CORPUS.parent / "tokenizer",
        "training.dataset": "c4_test",
        "training.dataset-path": texts,
        "training.seq-len": request["seq_length"],
        "training.local-batch-size": request["micro_batch_size"],
        "training.global-batch-size": request["global_batch_size"],
        "training.steps": WARM_UP + request["steps"],
        "optimizer.lr": 1e-4,
        "activation-checkpoint.mode": "none",
        "job.dump-folder": work / "titan",
    }
    words = [f"--{name}={value}" for name, value in flags.items()]
    return [*words, "--compile.enable"] if request["compile"] else words


def flavour(a: dict[str, Any], vocabulary: int) -> Any:
    """Return torchtitan's description of our architecture."""
    from torchtitan.models.llama3 import TransformerModelArgs

    plain_width = int(2 * 4 * a["hidden_size"] / 3)  # torchtitan multiplies it, then rounds up
    return TransformerModelArgs(
        dim=a["hidden_size"],
        n_layers=a["num_layers"],
        n_heads=a["num_attention_heads"],
        n_kv_heads=a["num_query_groups"],
        vocab_size=vocabulary,
        multiple_of=64,
        ffn_dim_multiplier=(a["ffn_hidden_size"] - 0.5) / plain_width,
        norm_eps=a["layernorm_epsilon"],
        rope_theta=a["rotary_base"],
    )


def train(request: dict[str, Any]) -> dict[str, Any]:
    """Train. Return the median step time after warm-up, peak memory, and the number of parameters."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    import torch
    from torchtitan.config import ConfigManager
    from torchtitan.models.llama3 import llama3_args
    from torchtitan.train import Trainer

    llama3_args["bench"] = flavour(request["architecture"], request["vocabulary"])
    trainer = Trainer(ConfigManager().parse_args(arguments(request)))
    batches = trainer.batch_generator(trainer.dataloader)
    seconds = []
    for _ in range(WARM_UP + request["steps"]):
        start = time.perf_counter()
        trainer.step += 1
        trainer.train_step(batches)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return {
        "step_time_s": statistics.median(seconds[WARM_UP:]),
        "steps": request["steps"],
        "memory_peak_bytes": torch.cuda.max_memory_allocated(),
        "parameters": sum(p.numel() for p in trainer.model_parts[0].parameters()),
        "compiled": request["compile"],
    }


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    Path(asked["out"]).write_text(json.dumps(train(asked)))
