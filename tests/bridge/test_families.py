"""A small model of each family trains alike with NeMo 2 and with Megatron-Bridge, from the same plan.

The right values are NeMo 2's: loss and gradient norm of every step are identical. Where a model differs by nature, the
test says so, and sets what makes the two alike.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from bridge.test_same_training import BRIDGE, train_bridge
from cases import cases
from e2e.jobs import planned
from e2e.jobs import train as train_nemo
from forkserver import ForkServer

from nemolaunch.planning import Plan

STEPS = 4
SMALL: dict[str, Any] = {
    "num_layers": 4,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "ffn_hidden_size": 128,
    "seq_length": 64,
    "init_method_std": 0.02,
}
GROUPED = {"num_query_groups": 2}
EXPERTS = {"num_moe_experts": 16, "moe_ffn_hidden_size": 32, "moe_shared_expert_intermediate_size": 32}
LATENT = {
    **EXPERTS,
    "moe_layer_freq": [0, 1, 1, 1],
    "kv_lora_rank": 16,
    "qk_head_dim": 16,
    "qk_pos_emb_head_dim": 8,
    "v_head_dim": 16,
}
STATES = {"mamba_state_dim": 16, "mamba_head_dim": 16, "mamba_num_groups": 2}
# base -> further fields of the architecture
FAMILIES: dict[str, dict[str, Any]] = {
    "baichuan2_7b": {},
    "chatglm3_6b": GROUPED,
    "deepseek_v2_lite": LATENT,
    "deepseek_v3": {**LATENT, "q_lora_rank": 32},
    "gemma_2b": {"num_query_groups": 1, "kv_channels": 32},
    # no layer's window is shorter than a sequence: NeMo's pretraining ignores it
    "gemma2_2b": {**GROUPED, "kv_channels": 32, "window_size": [63, 0]},
    # five layers with the window, one without
    "gemma3_1b": {"num_layers": 6, "num_query_groups": 1, "vocab_size": 8192, "window_size": 16},
    "gpt3_175b": {},
    "llama31_nemotron_70b": GROUPED,
    "mamba2_130m": {**STATES, "hybrid_override_pattern": "MMMM", "mamba_num_groups": 1},
    "nemotronh_8b": {**GROUPED, **STATES, "hybrid_override_pattern": "M-M*"},
    "llama4_e128": {**GROUPED, **EXPERTS, "moe_layer_freq": [0, 1, 0, 1]},
    "nemotron3_8b": {},
    "nemotron4_15b": GROUPED,
    "phi3_mini_4k_instruct": {},
    "starcoder_15b": {"num_query_groups": 1, "attention_dropout": 0.0, "hidden_dropout": 0.0},
    "starcoder2_3b": GROUPED,
}
# Losses differ in the last bit. Gemma: Megatron's `fast_gelu` has the formula of NeMo's `openai_gelu`, whose script
# rounds its gradient otherwise. DeepSeek: Megatron-Core 0.19 projects keys before queries and 0.15 after them, so that
# their gradients are added up in another order.
# Mamba: the norm of the gradients is added up in another order.
ROUNDS_OTHERWISE = ("gemma_2b", "gemma2_2b", "deepseek_v2_lite", "deepseek_v3", "mamba2_130m", "nemotronh_8b")
# Megatron-Core 0.19 draws their weights in another order than 0.15: both begin with others, alike
STATE_SPACES = ("mamba2_130m", "nemotronh_8b")
DELTA = {
    **GROUPED,
    **EXPERTS,
    "kv_channels": 32,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
# layers with a window, one without, and twice as wide heads in it
WINDOWS = {"num_layers": 6, "kv_channels": 16, "global_kv_channels": 32}
FIRST_DENSE = {**GROUPED, **EXPERTS, "moe_layer_freq": [0, 1, 1, 1]}
# Models that NeMo 2 does not have
NEW: dict[str, dict[str, Any]] = {
    "ernie45_21b_a3b": FIRST_DENSE,
    # both kinds of layers have keys of their own, and both share them
    "gemma4_e2b": {
        **WINDOWS,
        "num_layers": 10,
        "num_kv_shared_layers": 5,
        "num_query_groups": 1,
        "window_size": [15, 0],
        "vocab_size": 8192,
        "per_layer_embed_vocab_size": 8192,
        "per_layer_embed_dim": 16,
    },
    "gemma4_31b": {**WINDOWS, **GROUPED, "num_global_query_groups": 1, "window_size": [15, 0]},
    "gemma4_26b_a4b": {
        **WINDOWS,
        **GROUPED,
        **EXPERTS,
        "num_global_query_groups": 1,
        "window_size": 16,
        "vocab_size": 8192,
    },
    "glm45": FIRST_DENSE,
    "glm45_air": {**GROUPED, **EXPERTS, "moe_layer_freq": [0, 0, 0, 1]},
    "gpt_oss_20b": {**GROUPED, "num_moe_experts": 16, "moe_ffn_hidden_size": 128, "window_size": [15, 0]},
    "glm47_flash": {**LATENT, "q_lora_rank": 32},
    "hy3_295b_a21b": FIRST_DENSE,
    # three layers with a window, and one that sees everything, without positions
    "k_exaone_236b_a23b": {**FIRST_DENSE, "window_size": [15, 0]},
    "kimi_k2": {**LATENT, "q_lora_rank": 32},
    "ling_mini_2": {**FIRST_DENSE, "num_moe_experts": 32},
    "mimo_7b": GROUPED,
    "minimax_m2": {**GROUPED, "num_moe_experts": 16, "moe_ffn_hidden_size": 32},
    "moonlight_16b": LATENT,
    "nemotron_3_nano_30b_a3b": {
        **GROUPED,
        **EXPERTS,
        **STATES,
        "mamba_num_heads": 8,
        "hybrid_override_pattern": "MEM*",
    },
    "nemotron_3_nano_4b": {**GROUPED, **STATES, "mamba_num_heads": 8, "hybrid_override_pattern": "M-M*"},
    "nemotron_3_super_120b_a12b": {
        **GROUPED,
        **EXPERTS,
        **STATES,
        "num_moe_experts": 32,
        "moe_latent_size": 32,
        "mamba_num_heads": 8,
        "hybrid_override_pattern": "MEM*",
    },
    "olmoe_7b": {"num_query_groups": 4, "num_moe_experts": 8, "moe_ffn_hidden_size": 32},
    "qwen35_4b": {name: value for name, value in DELTA.items() if name not in EXPERTS},
    "qwen35_35b_a3b": DELTA,
    "qwen3_next_80b_a3b": DELTA,
    "sarvam_30b": FIRST_DENSE,
    "sarvam_105b": LATENT,
}
QUICK = ("gemma3_1b", "nemotron3_8b")


def small(folder: Path, data: str, base: str, shape: dict[str, Any], **values: Any) -> Plan:
    """A plan of a small model that a YAML file describes."""
    folder.mkdir()
    lines = [f"{name}: {value}" for name, value in {**SMALL, **shape}.items()]
    path = folder / "model.yaml"
    path.write_text("\n".join([f"base: {base}", *lines, ""]))
    return planned(folder, data, **{"model_name": str(path), "max_steps": STEPS, **values})


def same(bridge: list[dict[str, Any]], nemo: list[dict[str, Any]], *, rounds_alike: bool = True) -> None:
    assert bridge[0]["step"] == list(range(1, STEPS + 1))
    for name in ("loss", "grad_norm"):
        right = nemo[0][name]
        assert bridge[0][name] == (right if rounds_alike else pytest.approx(right, rel=1e-6)), name


@pytest.mark.parametrize("base", cases(FAMILIES, set(FAMILIES) - set(QUICK)))
def test_a_small_model_of_the_family_trains_alike(
    base: str, bridge_server: ForkServer, fork_server: ForkServer, data: str, tmp_path: Path
) -> None:
    start = {"same_start": base in STATE_SPACES}
    nemo = train_nemo(fork_server, small(tmp_path / "nemo2", data, base, FAMILIES[base]), **start)
    plan = small(tmp_path / "bridge", data, base, FAMILIES[base], **BRIDGE)
    bridge = train_bridge(bridge_server, plan, **start)
    same(bridge, nemo, rounds_alike=base not in ROUNDS_OTHERWISE)


def test_latent_attention_is_recomputed_without_a_compiler(
    bridge_server: ForkServer, data: str, tmp_path: Path
) -> None:
    """Megatron compiles an extension for it, and waits for the lock of a process that was killed meanwhile."""
    lock = tmp_path / "extensions" / "share_storage_ext" / "lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    variables = {"env": [f"TORCH_EXTENSIONS_DIR={tmp_path / 'extensions'}"]}
    modules = {"recompute_granularity": "selective", "recompute_modules": ("mla_up_proj",)}
    layers = {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}
    found = []
    for name, values in (("modules", modules), ("layers", layers)):
        plan = small(
            tmp_path / name, data, "deepseek_v3", FAMILIES["deepseek_v3"], **BRIDGE, **variables, **values
        )
        found.append(train_bridge(bridge_server, plan)[0])
    one, other = found
    assert len(one["loss"]) == STEPS
    assert one["loss"] == pytest.approx(other["loss"], rel=1e-6)
    assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("base", NEW)
def test_a_model_that_only_bridge_has_trains(
    base: str, bridge_server: ForkServer, data: str, tmp_path: Path
) -> None:
    """On the CPU: the first loss is that of a model that knows nothing, and the last is lower."""
    plan = small(tmp_path / "bridge", data, base, NEW[base], **BRIDGE, lr=1e-2)
    (trained,) = train_bridge(bridge_server, plan)
    assert trained["loss"][0] == pytest.approx(math.log(8192), abs=0.05)
    assert trained["loss"][-1] < trained["loss"][0] - 0.05
