"""A small training checkpoint of NeMo 2, written without a framework: a converted model's weights, and an optimizer."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from nemolaunch.checkpoint.convert.convert import convert
from nemolaunch.checkpoint.megatron.sink import BACKEND
from nemolaunch.checkpoint.storage.dcp import DcpSource
from nemolaunch.checkpoint.storage.dcp_write import DcpSink
from nemolaunch.checkpoint.storage.tensors import TensorInfo

KINDS = ("param", "exp_avg", "exp_avg_sq")
STEP, SAMPLES = 4, 64


def group(decayed: bool, **changes: Any) -> dict[str, Any]:
    """A group of parameters as NeMo 2.7 saves it."""
    decay = 0.1 if decayed else 0.0
    return {
        "is_expert_parallel": False, "is_decoupled_lr": False, "max_lr": 1e-3, "min_lr": 1e-4, "lr": 5e-4,
        "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": decay, "pre_mult_lr": 1e-3, "pre_mult_wd": 0.1,
        "pre_lr_mult": 1.0, "pre_wd_mult": float(decayed), "initial_lr": 1e-3, "step": STEP, **changes,
    }  # fmt: skip


def common(**changes: Any) -> dict[str, Any]:
    """What `common.pt` of a run of NeMo 2 holds."""
    return {
        "epoch": 0,
        "global_step": STEP,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": {},
        "loops": {"fit_loop": {}},
        "callbacks": {},
        "optimizer_states": {},
        "lr_schedulers": [
            {
                "last_epoch": STEP,
                "max_steps": 8,
                "warmup_steps": 1,
                "constant_steps": 0,
                "min_lr": 1e-4,
                "base_lrs": [1e-3],
            }
        ],
        "PreTrainingDataModule": {"consumed_samples": SAMPLES},
        "optimizer": [
            {
                "optimizer": {"param_groups": [group(True), group(False)]},
                "param_state_sharding_type": "fully_reshardable",
            }
        ],
        "content_metadata": {
            "singleton_local_shards": False,
            "chained_optim_avoid_prefix": True,
            "distrib_optim_sharding_type": "fully_reshardable",
            "distrib_optim_fully_reshardable_mem_efficient": False,
        },
        **changes,
    }


def hf_model(folder: Path, tokenizer: Path) -> Path:
    """A Hugging Face folder with a small Llama of random weights."""
    import shutil

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=8192, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False,
    )  # fmt: skip
    shutil.copytree(tokenizer, folder)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def write(folder: Path, model: Path, state: dict[str, Any] | None = None, dtype: str = "float32") -> Path:
    """Write a checkpoint of a training of the model in the Hugging Face folder `model`; `dtype`: of the moments."""
    import torch

    convert(model, folder, "nemo2")
    weights = folder / "weights"
    stored = DcpSource(weights)
    tensors = {name: stored.read(name) for name in stored.tensors}
    objects = list(stored.objects)
    stored.close()
    states = {}
    for name, tensor in tensors.items():
        states[f"optimizer.state.param.{name}"] = tensor.float()
        for kind in KINDS[1:]:
            states[f"optimizer.state.{kind}.{name}"] = torch.rand_like(tensor.float()).to(
                getattr(torch, dtype)
            )
    for path in weights.glob("*.distcp"):
        path.unlink()
    every = {**tensors, **states}
    infos = {
        name: TensorInfo(str(t.dtype).removeprefix("torch."), tuple(t.shape)) for name, t in every.items()
    }
    sink = DcpSink(weights, infos)
    for name, tensor in every.items():
        sink.write(name, tensor)
    sink.write_objects(objects, None)
    sink.finish()
    content = io.BytesIO()
    torch.save(common() if state is None else state, content)
    (weights / "common.pt").write_bytes(content.getvalue())
    (weights / "metadata.json").write_text(json.dumps(BACKEND))
    return folder
