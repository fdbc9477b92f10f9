"""Checkpoints that Megatron-LM itself saves and loads, made of and into those of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bridge.moved_state import assert_same_state
from bridge.test_families import FAMILIES, small
from bridge.test_same_training import BRIDGE, job, train_bridge
from e2e.jobs import TOKENIZER
from e2e.jobs import train as train_nemo
from forkserver import ForkServer
from nemo2.convert_support import assert_same_tensors, tensors

from nemolaunch.checkpoint.convert.convert import convert
from nemolaunch.checkpoint.convert.options import Options
from nemolaunch.checkpoint.convert.summary import summarise
from nemolaunch.planning import Plan

HALF, STEPS = 2, 4
GIVEN = Options(tokenizer=Path(TOKENIZER))
# Megatron-LM's words for the small model of the family, besides those of the small Llama
LATENT = (
    "--multi-latent-attention --q-lora-rank 32 --kv-lora-rank 16 --qk-head-dim 16 --qk-pos-emb-head-dim 8 "
    "--v-head-dim 16 --qk-layernorm --rotary-base 10000 --norm-epsilon 1e-6 --num-experts 16 --moe-ffn-hidden-size 32 "
    "--moe-shared-expert-intermediate-size 32 --moe-layer-freq [0]*1+[1]*3 --moe-router-topk 8 "
    "--moe-router-score-function sigmoid --moe-router-enable-expert-bias --moe-router-num-groups 8 "
    "--moe-router-group-topk 4 --moe-router-topk-scaling-factor 2.5 --moe-aux-loss-coeff 1e-4 --mtp-num-layers 1 "
    "--moe-router-load-balancing-type seq_aux_loss --moe-router-dtype fp32 --moe-router-pre-softmax --rope-type yarn "
    "--rotary-scaling-factor 40 --mscale 1.0 --mscale-all-dim 1.0"
)
EXPERTS = (
    "--num-experts 8 --moe-router-topk 2 --moe-ffn-hidden-size 128 --rotary-base 1000000 "
    "--moe-router-load-balancing-type aux_loss --moe-aux-loss-coeff 0.01"
)
# Every rank has the new weights at the end of a step, when they are saved here; Bridge gathers them before it saves
SYNCED = {"overlap_param_gather": False}
MODELS = {"llama3_8b": "", "deepseek_v3": LATENT}
# What each layout adds to the job, and the words of the model
LAYOUTS: dict[str, tuple[dict[str, Any], str]] = {
    "TP2 PP2": (
        {"num_gpus": 4, "tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2},
        "",
    ),
    "Mixtral, PP2 EP2": (
        {
            "base": "mixtral_8x7b",
            "num_gpus": 4,
            "pipeline_model_parallel_size": 2,
            "expert_model_parallel_size": 2,
            **SYNCED,
        },
        EXPERTS,
    ),
}


def model(folder: Path, data: str, base: str, **values: Any) -> Plan:
    """A plan of a small model of that family."""
    values = {"max_steps": STEPS, **values}
    if base in FAMILIES:
        return small(folder, data, base, FAMILIES[base], **values)
    return job(folder, data, base=base, **values)


@pytest.mark.long
@pytest.mark.parametrize("base", MODELS)
def test_megatron_lm(
    base: str, bridge_server: ForkServer, fork_server: ForkServer, data: str, tmp_path: Path
) -> None:
    """What it saves continues in NeMo 2 and Bridge, and what becomes of it on the way back is what it loads."""
    plan = model(tmp_path / "bridge", data, base, **BRIDGE)
    folder = tmp_path / "megatron-lm"
    saving = {"plan_file": str(plan.run.plan), "folders": {str(folder): MODELS[base]}, "at": HALF}
    (whole,) = bridge_server.run("bridge.megatron_lm_job:save", saving, timeout=300)
    assert summarise(folder).samples == 16 * HALF
    convert(folder, tmp_path / "to-nemo2", "nemo2", GIVEN)
    there = model(tmp_path / "nemo2", data, base, resume=str(tmp_path / "to-nemo2"))
    (rest,) = train_nemo(fork_server, there)
    convert(folder, tmp_path / "to-bridge", "bridge", GIVEN)
    on = model(tmp_path / "on", data, base, **BRIDGE, resume=str(tmp_path / "to-bridge"))
    (same,) = train_bridge(bridge_server, on)
    for name in ("loss", "grad_norm"):
        assert same[name] == whole[name][HALF:]
        assert rest[name] == (same[name] if base == "llama3_8b" else pytest.approx(same[name], rel=1e-5))
    for form in ("nemo2", "bridge"):
        convert(tmp_path / f"to-{form}", tmp_path / f"from-{form}", "megatron-lm")
    again = tmp_path / "again"
    one = model(tmp_path / "one", data, base, **BRIDGE, max_steps=1)
    loading = {
        "plan_file": str(one.run.plan),
        "folder": str(tmp_path / "from-nemo2"),
        "again": str(again),
        "words": MODELS[base],
    }
    assert bridge_server.run("bridge.megatron_lm_job:load", loading, timeout=300) == [[HALF, 16 * HALF]]
    assert_same_state(again / "iter_0000002", folder / "iter_0000002")
    assert_same_state(tmp_path / "from-bridge" / "iter_0000002", folder / "iter_0000002")


@pytest.mark.long
@pytest.mark.parametrize("layout", LAYOUTS)
def test_parts_of_megatron_lm_are_joined(
    layout: str, bridge_server: ForkServer, data: str, tmp_path: Path
) -> None:
    """Its format `torch` holds the model that it saves as `torch_dist` in the same step."""
    values, words = LAYOUTS[layout]
    plan = job(tmp_path / "bridge", data, **BRIDGE, **values, max_steps=1)
    sizes = {name: size for name, size in values.items() if name.endswith("_parallel_size")}
    words += "".join(f" --{name.replace('_', '-')} {size}" for name, size in sizes.items())
    folders = {
        str(tmp_path / "whole"): words,
        str(tmp_path / "parts"): f"{words} --ckpt-format torch --no-save-optim",
    }
    arguments = {"plan_file": str(plan.run.plan), "folders": folders, "at": 1}
    bridge_server.run("bridge.megatron_lm_job:save", arguments, nproc=4, timeout=300)
    assert len(list((tmp_path / "parts" / "iter_0000001").glob("mp_rank_*"))) == 4
    for name in ("whole", "parts"):
        convert(tmp_path / name, tmp_path / f"{name}-hf", "hf", GIVEN)
    assert_same_tensors(tensors(tmp_path / "whole-hf"), tensors(tmp_path / "parts-hf"))
