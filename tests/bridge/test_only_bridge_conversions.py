"""Models that NeMo 2 does not have, between Hugging Face and Megatron-Bridge: by nemolaunch, by Bridge's AutoBridge.

The right tensors are AutoBridge's, bit for bit, and the right logits those of transformers' model of the same folder.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from bridge.conftest import PYTHON
from bridge.test_bridge_conversions import ROUNDING, assert_as_autobridge
from bridge.test_same_training import BRIDGE, train_bridge
from e2e.jobs import TOKENIZER, planned
from forkserver import ForkServer
from nemo2.convert_support import assert_same_tensors, tensors

from nemolaunch.checkpoint.convert.convert import Options, convert

EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
ROUTED = {
    **EXPERTS,
    "num_hidden_layers": 3,
    "n_routed_experts": 4,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 2.5,
    "n_group": 1,
    "topk_group": 1,
    "num_nextn_predict_layers": 0,
}
LATENT = {
    **ROUTED,
    "n_shared_experts": 2,
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 50000.0,
    "factor": 32.0,
    "original_max_position_embeddings": 8,  # shorter than the prompt
    "beta_fast": 1.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
}
DELTA_NETS = {
    **EXPERTS,
    "num_hidden_layers": 4,
    "head_dim": 32,
    "num_experts": 4,
    "shared_expert_intermediate_size": 32,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
STATES = {
    "num_hidden_layers": 4,
    "head_dim": 16,
    "mamba_num_heads": 8,
    "mamba_head_dim": 16,
    "ssm_state_size": 16,
    "n_groups": 2,
}
# By name, the family in transformers and changes to its configuration
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "olmoe": (
        "olmoe",
        {"num_key_value_heads": 4, "num_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 32},
    ),
    "glm 4.5": ("glm4_moe", {**ROUTED, "head_dim": 16, "use_qk_norm": True, "attention_bias": True}),
    "glm 4.5 air": ("glm4_moe", {**ROUTED, "head_dim": 16, "use_qk_norm": False, "attention_bias": True}),
    "gpt-oss": (
        "gpt_oss",
        {
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "head_dim": 16,
            "intermediate_size": 48,
            "sliding_window": 5,
        },
    ),
    "minimax m2": (
        "minimax_m2",
        {
            "head_dim": 32,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "intermediate_size": 32,
            "rotary_dim": 16,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5e6,
                "partial_rotary_factor": 0.5,
            },
        },
    ),
    "kimi k2": ("deepseek_v3", {**LATENT, "q_lora_rank": 24, "rope_parameters": YARN}),
    "nemotron h": ("nemotron_h", {**STATES, "layers_block_type": ["mamba", "mlp", "attention", "mlp"]}),
    "nemotron 3 nano": (
        "nemotron_h",
        {
            **STATES,
            **EXPERTS,
            "layers_block_type": ["mamba", "moe", "attention", "moe"],
            "n_routed_experts": 4,
            "moe_shared_expert_intermediate_size": 48,
            "n_group": 1,
            "topk_group": 1,
            "routed_scaling_factor": 2.5,
        },
    ),
    "qwen3 next": ("qwen3_next", DELTA_NETS),
    "qwen3.5": ("qwen3_5_moe_text", DELTA_NETS),
}
QUICK = "glm 4.5"


@pytest.fixture(scope="module")
def judged(
    request: pytest.FixtureRequest, bridge_server: ForkServer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, float]]:
    """By model of the tests that run, its folder, and the largest difference of logits to transformers'."""
    items: list[Any] = request.session.items
    asked = [
        item.callspec.params["name"]
        for item in items
        if item.module is request.module and "judged" in item.fixturenames
    ]
    folders = {name: tmp_path_factory.mktemp("model") for name in dict.fromkeys(asked)}
    models = {
        str(folders[name] / "source"): {"kind": MODELS[name][0], "changes": MODELS[name][1]}
        for name in folders
    }
    bridge_server.run("bridge.autobridge_job:write", {"models": models}, timeout=300)
    for folder in folders.values():
        convert(folder / "source", folder / "ours", "bridge")
    arguments = {"folders": [str(folder) for folder in folders.values()]}
    (differences,) = bridge_server.run("bridge.autobridge_job:judge", arguments, timeout=600)
    return {name: (folders[name], found) for name, found in zip(folders, differences, strict=True)}


@pytest.mark.skipif(not PYTHON.exists(), reason="there is no .venv-bridge; `make install-bridge` builds it")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == QUICK else [pytest.mark.long]) for name in MODELS]
)
def test_both_ways_as_autobridge_does(name: str, judged: dict[str, tuple[Path, float]]) -> None:
    folder, difference = judged[name]
    assert_as_autobridge(folder)
    assert difference <= ROUNDING
    if name == "qwen3.5":  # a checkpoint without a tokenizer reads as Qwen3-Next, which computes the same
        return
    # what Bridge imported, exported here
    convert(folder / "theirs", folder / "exported", "hf", Options(tokenizer=folder / "source"))
    assert_same_tensors(tensors(folder / "source"), tensors(folder / "exported"))


@pytest.mark.long
@pytest.mark.parametrize("name", MODELS)
def test_a_job_starts_from_it_and_its_checkpoint_is_exported(
    name: str, bridge_server: ForkServer, data: str, tmp_path: Path
) -> None:
    """`-M hf` is the model of the folder: at a rate that changes nothing, the run's checkpoint has the same weights."""
    kind, changes = MODELS[name]
    source = tmp_path / "source"
    models = {str(source): {"kind": kind, "changes": {**changes, "vocab_size": 8192}}}
    bridge_server.run("bridge.autobridge_job:write", {"models": models}, timeout=300)
    for path in Path(TOKENIZER).iterdir():
        shutil.copy(path, source)
    convert(source, tmp_path / "start", "bridge")
    plan = planned(
        tmp_path,
        data,
        model_name="hf",
        hf_model_id=str(source),
        nemo_model=str(tmp_path / "start"),
        max_steps=2,
        global_batch_size=2,
        lr=1e-10,
        min_lr=1e-11,
        **BRIDGE,
    )
    train_bridge(bridge_server, plan)
    convert(plan.run.checkpoints, tmp_path / "trained", "hf")
    before, after = (tensors(tmp_path / side) for side in ("source", "trained"))
    assert before.keys() == after.keys()
    for tensor in before:
        if not tensor.endswith("e_score_correction_bias"):  # which follows the load of the experts
            assert (before[tensor] - after[tensor]).abs().max() <= ROUNDING, tensor
