"""Train with transformers and torch alone, in a loop written by hand: `hf_loop.py '{"architecture": …}'`.

Uses random tokens, as the cost of a step does not depend on them.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

WARM_UP = 5


def config_of(a: dict[str, Any], vocabulary: int, length: int) -> LlamaConfig:
    """Return transformers' configuration of our architecture."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=a["hidden_size"],
        intermediate_size=a["ffn_hidden_size"],
        num_hidden_layers=a["num_layers"],
        num_attention_heads=a["num_attention_heads"],
        num_key_value_heads=a["num_query_groups"],
        head_dim=a["kv_channels"],
        rms_norm_eps=a["layernorm_epsilon"],
        rope_theta=a["rotary_base"],
        max_position_embeddings=length,
        tie_word_embeddings=a["share_embeddings_and_output_weights"],
        attn_implementation="sdpa",
        use_cache=False,
    )


def train(request: dict[str, Any]) -> dict[str, Any]:
    """Train. Return the median step time after warm-up, peak memory, and first and last loss."""
    device = torch.device(request["device"])
    on_gpu = device.type == "cuda"
    length, micro = request["seq_length"], request["micro_batch_size"]
    dtype = torch.bfloat16 if request["bf16_weights"] else torch.float32
    torch.manual_seed(1234)
    with torch.device(device):
        model = LlamaForCausalLM(config_of(request["architecture"], request["vocabulary"], length)).to(dtype)
    model.train()
    run: Any = torch.compile(model) if request["compile"] else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), fused=True)
    parts = request["global_batch_size"] // micro
    seconds, losses = [], []
    for _ in range(WARM_UP + request["steps"]):
        tokens = torch.randint(0, request["vocabulary"], (parts, micro, length), device=device)
        start = time.perf_counter()
        total = torch.zeros((), device=device)
        for part in tokens:
            with torch.autocast(device.type, torch.bfloat16, enabled=not request["bf16_weights"]):
                loss = run(input_ids=part, labels=part).loss / parts
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(total))  # waits for the GPU
        seconds.append(time.perf_counter() - start)
    return {
        "step_time_s": statistics.median(seconds[WARM_UP:]),
        "steps": request["steps"],
        "memory_peak_bytes": torch.cuda.max_memory_allocated() if on_gpu else 0,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "compiled": request["compile"],
    }


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    Path(asked["out"]).write_text(json.dumps(train(asked)))
