"""Adapt a compiled NeMo recipe for training on a CPU, and report what is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from nemolaunch.errors import NemolaunchError

# Field of the model's configuration -> (value on the CPU, what is lost)
MODEL_FIELDS: dict[str, tuple[Any, str]] = {
    "fp8": (None, "fp8: trains in the plugin's 16-bit type"),
    "fp4": (None, "fp4: trains in the plugin's 16-bit type"),
    "tp_comm_overlap": (False, "overlap of tensor-parallel communication (a GPU kernel; same result)"),
    "cpu_offloading": (
        False,
        "activation offloading to the CPU (activations are already there; same result)",
    ),
    "gradient_accumulation_fusion": (False, "fused gradient accumulation (a GPU kernel; same result)"),
    "defer_embedding_wgrad_compute": (False, "deferred embedding gradients (a GPU kernel; same result)"),
    "delay_wgrad_compute": (False, "delayed weight gradients (Transformer Engine; same result)"),
    "enable_cuda_graph": (False, "CUDA graphs (same result)"),
    "external_cuda_graph": (False, "CUDA graphs (same result)"),
    "use_te_rng_tracker": (False, "Transformer Engine's random generator (different dropout masks)"),
    "use_te_activation_func": (False, "Transformer Engine's activation functions (same result)"),
    "use_transformer_engine_op_fuser": (None, "Transformer Engine's operation fuser (same result)"),
    "use_transformer_engine_full_layer_spec": (False, "Transformer Engine's whole layer (same result)"),
    "moe_enable_deepep": (False, "DeepEP: experts exchange tokens by all-to-all (same result)"),
    "moe_router_fusion": (False, "the fused expert router (a GPU kernel; same result)"),
}

OPTIMIZER_FIELDS: dict[str, tuple[Any, str]] = {
    "optimizer_cpu_offload": (False, "optimizer offloading to the CPU (it is already there; same result)"),
    "use_precision_aware_optimizer": (False, "the precision-aware optimizer: the state is float32"),
}

CALLBACK_FIELDS = ("tp_comm_overlap", "defer_embedding_wgrad_compute")

# These need their own CUDA kernels, or use Transformer Engine's layers other than through Megatron's spec.
REFUSED_MODELS = ("HyenaModel", "T5Model", "HuggingFaceBertModel")


def adapt(recipe: Any) -> list[str]:
    """Change `recipe`, a `run.Partial` for pretraining, in place so that it trains on the CPU.

    Return one sentence per feature removed. Raise `NemolaunchError`, listing every reason, if the recipe needs
    something that has no CPU counterpart; the recipe is then unchanged.
    """
    reasons = refusals(recipe)
    if reasons:
        raise NemolaunchError(
            "this job cannot be rehearsed on a CPU:\n" + "\n".join(f"  - {reason}" for reason in reasons)
        )
    recipe.trainer.accelerator = "cpu"
    _use_full_layers(recipe.model.config)
    dropped = _remove_unsupported(recipe)
    if _switch_off_rng_tracker(recipe):
        dropped[MODEL_FIELDS["use_te_rng_tracker"][1]] = None
    return [f"not supported on the CPU: {what}" for what in dropped]


def _use_full_layers(config: Any) -> None:
    """Give DeepSeek the layers of a GPU run: NeMo chose others on import, since there is no Transformer Engine."""
    if not _get(config, "multi_latent_attention"):
        return
    import fiddle
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec

    config.transformer_layer_spec = fiddle.Partial(get_gpt_decoder_block_spec, use_transformer_engine=True)


def adapt_for_plain_layers(recipe: Any) -> list[str]:
    """Like `adapt`, but for a GPU without Transformer Engine: remove only what needs Transformer Engine."""
    dropped = _remove_unsupported(recipe)
    _switch_off_rng_tracker(recipe)
    return [f"not supported without Transformer Engine: {what}" for what in dropped]


def _remove_unsupported(recipe: Any) -> dict[str, None]:
    """Remove what plain layers cannot do. Return it as an ordered set: the two CUDA graph flags count once."""
    dropped: dict[str, None] = {}

    def drop(what: str) -> None:
        dropped[what] = None

    _adapt_plugins(recipe.trainer, drop)
    adapt_model(recipe.model.config, drop)
    _adapt_callbacks(recipe.trainer, drop)
    _adapt_optimizer(recipe, drop)
    return dropped


def _switch_off_rng_tracker(recipe: Any) -> bool:
    """Turn off Transformer Engine's random states. Return whether the strategy used them."""
    strategy = recipe.trainer.strategy
    had = bool(_get(strategy, "use_te_rng_tracker"))
    if had:
        strategy.use_te_rng_tracker = False
    return had


def refusals(recipe: Any) -> list[str]:
    """Return why the recipe cannot be rehearsed, as sentences; an empty list if it can."""
    strategy = recipe.trainer.strategy
    ddp = _get(strategy, "ddp")
    model = _class_name(recipe.model)
    reasons = []
    if model in REFUSED_MODELS:
        reasons.append(f"{model} has no CPU layers; decoder models built from Megatron's GPT layers do")
    if _get(strategy, "fsdp") or _get(ddp, "use_megatron_fsdp") or _get(ddp, "use_custom_fsdp"):
        reasons.append("Megatron-FSDP needs GPUs; use the distributed optimizer instead")
    if _get(_get(recipe, "data"), "packed_sequence_specs"):
        reasons.append(
            "packed sequences need Transformer Engine's attention; rehearse with unpacked sequences"
        )
    return reasons


def adapt_model(config: Any, drop: Callable[[str], None] = lambda what: None) -> None:
    """Adapt the model's configuration, built or not; `drop` is called with each feature removed."""
    _reset(config, MODEL_FIELDS, drop)
    if _get(config, "cross_entropy_fusion_impl") == "te":
        config.cross_entropy_fusion_impl = "native"
        drop("Transformer Engine's cross entropy: Megatron's own is used (same result)")
    if _get(config, "moe_token_dispatcher_type") == "flex":
        config.moe_token_dispatcher_type = "alltoall"
        drop(MODEL_FIELDS["moe_enable_deepep"][1])
    if _get(config, "cuda_graph_impl", "none") != "none":
        config.cuda_graph_impl = "none"
        drop(MODEL_FIELDS["enable_cuda_graph"][1])
    if _class_name(config).startswith("Gemma2") and _get(config, "masked_softmax_fusion"):
        config.masked_softmax_fusion = False  # Gemma 2's own attention would call the kernel
        drop("the fused masked softmax (a GPU kernel; same result)")


def _adapt_plugins(trainer: Any, drop: Callable[[str], None]) -> None:
    for plugin in _each(_get(trainer, "plugins")):
        if _get(plugin, "fp8") or _get(plugin, "fp4"):
            drop(MODEL_FIELDS["fp8" if plugin.fp8 else "fp4"][1])
            for name in list(plugin.__arguments__):
                if name.startswith(("fp8", "fp4", "first_last_layers", "num_layers_at", "reuse_grad_buf")):
                    delattr(plugin, name)


def _adapt_callbacks(trainer: Any, drop: Callable[[str], None]) -> None:
    for callback in _each(_get(trainer, "callbacks")):
        for name in CALLBACK_FIELDS:
            if _get(callback, name):
                setattr(callback, name, False)
                drop(MODEL_FIELDS[name][1])
        if _get(callback, "tp_comm_overlap_cfg"):
            callback.tp_comm_overlap_cfg = None


def _adapt_optimizer(recipe: Any, drop: Callable[[str], None]) -> None:
    config = _get(_get(recipe, "optim"), "config")
    if config is None:
        return
    _reset(config, OPTIMIZER_FIELDS, drop)
    for name in ("main_grads_dtype", "main_params_dtype", "exp_avg_dtype", "exp_avg_sq_dtype"):
        if name in getattr(config, "__arguments__", {}):  # they belong to the precision-aware optimizer
            delattr(config, name)


def _reset(config: Any, fields: dict[str, tuple[Any, str]], drop: Callable[[str], None]) -> None:
    for name, (value, what) in fields.items():
        if _get(config, name):
            setattr(config, name, value)
            drop(what)


def _get(config: Any, name: str, default: Any = None) -> Any:
    """Return a field's value or its class's default; `default` if there is neither, or if it is `None`."""
    value = getattr(config, name, None)
    return default if value is None else value


def _each(value: Any) -> Iterable[Any]:
    if value is None:
        return ()
    return value if isinstance(value, (list, tuple)) else (value,)


def _class_name(config: Any) -> str:
    return str(getattr(getattr(config, "__fn_or_cls__", type(config)), "__name__", ""))
