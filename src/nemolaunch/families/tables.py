"""Rules for tensor names that several families share."""

from __future__ import annotations

from nemolaunch.families.ops import Concatenated, Qkv
from nemolaunch.families.rules import Rule, rule

HF, NEMO = "model.layers.*.", "decoder.layers.*."


def outer(
    embedding: str = "model.embed_tokens", norm: str = "model.norm", head: str = "lm_head"
) -> tuple[Rule, ...]:
    """Return the rules for embedding, final norm and output layer."""
    return (
        rule(f"{embedding}.weight", "embedding.word_embeddings.weight"),
        rule(f"{norm}.weight", "decoder.final_layernorm.weight"),
        rule(f"{norm}.bias", "decoder.final_layernorm.bias"),
        rule(f"{head}.weight", "output_layer.weight"),
    )


def attention(hf: str = HF + "self_attn.") -> tuple[Rule, ...]:
    """Return the rules for attention with separate query, key and value projections, and optional biases and norms."""
    nemo = NEMO + "self_attention."
    return (
        *(
            rule(f"{hf}q_proj.{kind} {hf}k_proj.{kind} {hf}v_proj.{kind}", f"{nemo}linear_qkv.{kind}", Qkv())
            for kind in ("weight", "bias")
        ),
        *renamed(hf + "o_proj", nemo + "linear_proj"),
        *renamed(hf + "q_norm", nemo + "q_layernorm"),
        *renamed(hf + "k_norm", nemo + "k_layernorm"),
    )


def renamed(hf: str, nemo: str) -> tuple[Rule, ...]:
    """Return the rules for the weight and bias of a module."""
    return tuple(rule(f"{hf}.{kind}", f"{nemo}.{kind}") for kind in ("weight", "bias"))


def fused_norm(hf: str, nemo: str) -> tuple[Rule, ...]:
    """Return the rules for a norm that Megatron fuses into the linear layer after it."""
    return tuple(rule(f"{hf}.{kind}", f"{nemo}.layer_norm_{kind}") for kind in ("weight", "bias"))


INPUT_NORM = fused_norm(HF + "input_layernorm", NEMO + "self_attention.linear_qkv")
MLP_NORM = fused_norm(HF + "post_attention_layernorm", NEMO + "mlp.linear_fc1")
EXPERTS_NORM = renamed(HF + "post_attention_layernorm", NEMO + "pre_mlp_layernorm")


def gated_mlp(hf: str = HF + "mlp.", nemo: str = NEMO + "mlp.") -> tuple[Rule, ...]:
    """Return the rules for gate, up and down projection."""
    return (
        *(
            rule(f"{hf}gate_proj.{kind} {hf}up_proj.{kind}", f"{nemo}linear_fc1.{kind}", Concatenated())
            for kind in ("weight", "bias")
        ),
        *renamed(hf + "down_proj", nemo + "linear_fc2"),
    )


def gated_experts(hf: str, gate: str, up: str, down: str) -> tuple[Rule, ...]:
    """Return the rules for experts with one tensor each; `hf` ends with the wildcard for the expert's number."""
    experts = NEMO + "mlp.experts."
    return (
        rule(f"{hf}.{gate}.weight {hf}.{up}.weight", f"{experts}linear_fc1.weight*", Concatenated()),
        rule(f"{hf}.{down}.weight", f"{experts}linear_fc2.weight*"),
    )


LLAMA = (*outer(), *attention(), *INPUT_NORM, *MLP_NORM, *gated_mlp())
