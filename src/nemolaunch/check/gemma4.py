"""What does not reach the layers of Gemma 4, which Megatron-Bridge has code of its own for."""

from __future__ import annotations

from collections.abc import Iterator

from nemolaunch.catalogue.bridge_models import GEMMA4, GEMMA4_EXPERTS
from nemolaunch.check.support import error, fix, flag, shown, without
from nemolaunch.findings import Finding
from nemolaunch.resolve import Resolved
from nemolaunch.resolve.recompute import granularity_of, selected_modules

CODE = "gemma4-layers"


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Check number format and recompute against the layers that Bridge builds (`modeling_gemma4.py`)."""
    model, job = resolved.model, resolved.job
    if model.recipe.bridge_provider not in (GEMMA4, GEMMA4_EXPERTS):
        return
    plain = model.recipe.bridge_provider == GEMMA4
    if plain and job.batch.fp8 and resolved.device == "gpu":
        yield error(
            CODE,
            f"{flag('fp8')} would have no effect: the layers of {model.name} are in plain PyTorch, without Transformer "
            f"Engine's matrices",
            fix(fp8=False),
        )
    granularity = granularity_of(job, model.recipe)
    if granularity == "full" and model.architecture.per_layer_embed_dim:
        yield error(
            CODE,
            f"{shown('recompute_granularity', 'full')} is not possible: the recomputed layers of {model.name} take a "
            f"pair of rotary embeddings, which Megatron's checkpoints cannot keep (_gemma4_checkpointed_forward)",
            fix(
                recompute_granularity="selective",
                recompute_method=None,
                recompute_num_layers=None,
            ),
            without(resolved, "recompute_granularity", "recompute_method", "recompute_num_layers"),
        )
    out_of_reach = ("layernorm", "mlp") if plain else ("layernorm",)
    wrong = [module for module in selected_modules(job, model.recipe) if module in out_of_reach]
    if wrong:
        yield error(
            CODE,
            f"{flag('recompute_modules')}: {' and '.join(wrong)} cannot be recomputed in Bridge's layers of "
            f"{model.name}",
            fix(recompute_modules=tuple(m for m in job.memory.recompute_modules if m not in wrong)),
        )
