"""The classes by which Megatron-Bridge describes models, and the functions that make their layers, by family."""

from __future__ import annotations

from dataclasses import dataclass

_BRIDGE, _CORE = "megatron.bridge.models", "megatron.core.models.gpt"
GPT = f"{_BRIDGE}.gpt_provider.GPTModelProvider"
LATENT = f"{_BRIDGE}.mla_provider.MLAModelProvider"
HYBRID = f"{_BRIDGE}.hybrid.hybrid_provider.HybridModelProvider"
OLMOE = f"{_BRIDGE}.olmoe.olmoe_provider.OlMoEModelProvider"
CLASSES = (GPT, LATENT, HYBRID, OLMOE)
# Layers that differ: dense ones before those with experts. With Transformer Engine's layers: Bridge's classes of some
# models name the function without them where it is not installed, so not our stand-ins for it
BLOCK = f"{_CORE}.gpt_layer_specs.get_gpt_decoder_block_spec"
DELTA_NETS = (
    f"{_CORE}.experimental_attention_variant_module_specs."
    "get_transformer_block_with_experimental_attention_variant_spec"
)
OLMOE_LAYERS = f"{_BRIDGE}.olmoe.olmoe_provider.olmoe_layer_spec"
MINIMAX_LAYERS = f"{_BRIDGE}.minimax_m2.minimax_m2_provider.minimax_m2_layer_spec"


@dataclass(frozen=True)
class BridgeClass:
    """How Bridge describes the models of a family.

    Attributes:
        path: the class of the configuration.
        layers: the function that makes its layers, if it is not the class's own.
    """

    path: str
    layers: str | None = None

    @property
    def name(self) -> str:
        """The class's name, as `run_config.yaml` has it last."""
        return self.path.rpartition(".")[2]


# Families whose models are Megatron's GPT without code of their own. Where the fields fit several, these compute the
# same, and the first is taken.
PLAIN = (
    "llama", "qwen2", "qwen3", "qwen3_moe", "mixtral", "mistral", "nemotron", "phi3", "starcoder2", "gpt_bigcode",
    "baichuan", "chatglm",
)  # fmt: skip
# By `model_type`
WRITTEN: dict[str, BridgeClass] = {
    **dict.fromkeys(PLAIN, BridgeClass(GPT)),
    "deepseek_v2": BridgeClass(LATENT, BLOCK),
    "deepseek_v3": BridgeClass(LATENT, BLOCK),
    "glm4_moe": BridgeClass(GPT, BLOCK),
    "gpt_oss": BridgeClass(GPT),
    "minimax_m2": BridgeClass(GPT, MINIMAX_LAYERS),
    "nemotron_h": BridgeClass(HYBRID),
    "olmoe": BridgeClass(OLMOE, OLMOE_LAYERS),
    "qwen3_next": BridgeClass(GPT, DELTA_NETS),
    "qwen3_5_moe_text": BridgeClass(GPT, DELTA_NETS),
}
# Layers that only one family has, by which a file says what it is, whatever its class
OWN_LAYERS = {OLMOE_LAYERS: "olmoe", MINIMAX_LAYERS: "minimax_m2"}
