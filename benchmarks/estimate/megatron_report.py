"""Compare our memory estimate with Megatron-LM's own theoretical report, recipe by recipe.

Both count the bytes of a rank in the first pipeline stage. Megatron-LM's report counts the activations of a
GPT-3 layer (34 s b h with an MLP of width 4 h), whatever the model's layers keep. It supports neither context
parallelism nor full recompute, so only recipes without them are shown, and it omits the activations of
experts.

    python benchmarks/estimate/megatron_report.py MEGATRON_LM/megatron/training/theoretical_memory_usage.py
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
import types
from pathlib import Path
from typing import Any

from nemolaunch import arithmetic, catalogue
from nemolaunch.estimate import Layout, layout_of_recipe
from nemolaunch.estimate.memory import stage_memory

GIB = 2**30


def load(path: Path) -> Any:
    """Import the module with stubs for the two functions it needs from the package around it."""
    package = types.ModuleType("megatron_training")
    package.__path__ = []
    utils = types.ModuleType("megatron_training.utils")
    utils.print_rank_0 = lambda *_: None  # type: ignore[attr-defined]
    utils.is_hybrid_model = lambda _: False  # type: ignore[attr-defined]
    sys.modules.update({"megatron_training": package, "megatron_training.utils": utils})
    spec = importlib.util.spec_from_file_location("megatron_training.report", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Arguments(types.SimpleNamespace):
    """Megatron-LM's arguments; those not set are None, as most are by default."""

    def __getattr__(self, name: str) -> None:
        return None


def arguments(recipe: catalogue.Recipe, layout: Layout, rows: int) -> Arguments:
    """Return a recipe as Megatron-LM's arguments."""
    a = recipe.architecture
    return Arguments(
        is_hybrid_model=False,
        kv_channels=a.kv_channels,
        num_attention_heads=a.num_attention_heads,
        hidden_size=a.hidden_size,
        group_query_attention=not a.multi_latent_attention and a.num_query_groups != a.num_attention_heads,
        num_query_groups=a.num_query_groups,
        num_experts=a.num_moe_experts,
        swiglu=a.gated_linear_unit,
        moe_shared_expert_intermediate_size=a.moe_shared_expert_intermediate_size,
        moe_layer_freq=list(a.moe_layer_freq) if isinstance(a.moe_layer_freq, tuple) else a.moe_layer_freq,
        moe_ffn_hidden_size=a.moe_ffn_hidden_size,
        mtp_num_layers=a.mtp_num_layers,
        moe_router_topk=a.moe_router_topk,
        normalization=a.normalization,
        multi_latent_attention=a.multi_latent_attention,
        q_lora_rank=a.q_lora_rank,
        kv_lora_rank=a.kv_lora_rank,
        qk_head_dim=a.qk_head_dim,
        qk_pos_emb_head_dim=a.qk_pos_emb_head_dim,
        v_head_dim=a.v_head_dim,
        num_layers=a.num_layers,
        ffn_hidden_size=a.ffn_hidden_size,
        padded_vocab_size=rows,
        untie_embeddings_and_output_weights=not a.share_embeddings_and_output_weights,
        pipeline_model_parallel_size=layout.pipeline,
        tensor_model_parallel_size=layout.tensor,
        virtual_pipeline_model_parallel_size=layout.virtual if layout.virtual > 1 else None,
        use_distributed_optimizer=True,
        data_parallel_size=layout.data,
        seq_length=layout.seq_length,
        micro_batch_size=layout.micro_batch_size,
        sequence_parallel=layout.sequence_parallel,
        recompute_granularity="selective",
        world_size=layout.world_size,
        expert_model_parallel_size=layout.expert,
        expert_tensor_parallel_size=layout.expert_tensor,
        context_parallel_size=1,
    )


def words(layout: Layout) -> str:
    """Return a layout in the form `TP4 PP8 VPP6`."""
    sizes = {"TP": layout.tensor, "PP": layout.pipeline, "VPP": layout.virtual, "EP": layout.expert}
    return " ".join(f"{name}{size}" for name, size in sizes.items() if size > 1)


def main() -> None:
    """Print one line per recipe."""
    report = load(Path(sys.argv[1])).report_theoretical_memory
    head = f"{'recipe':26} {'layout':18} {'weights and optimizer, GiB':>30} {'activations, GiB':>30}"
    print(f"{head}\n{'':45} {'Megatron-LM':>12} {'ours':>8} {'':8} {'Megatron-LM':>12} {'ours':>8}")
    for recipe in catalogue.recipes():
        a, layout = recipe.architecture, layout_of_recipe(recipe)
        if a.kind != "gpt" or layout.context > 1 or layout.recompute_granularity:
            continue
        unit = layout.pipeline * max(layout.tensor, layout.expert * layout.expert_tensor)
        layout = layout.with_values(
            world_size=max(layout.world_size, unit), sequence_parallel=layout.tensor > 1
        )
        rows, _ = arithmetic.model_vocab_rows(catalogue.model(recipe.name), None, layout.tensor)
        with contextlib.redirect_stdout(io.StringIO()):
            weights, activations, _ = report(arguments(recipe, layout, rows), layout.num_microbatches)
        m = stage_memory(a, layout, 0, rows)
        ours = (m.parameters + m.gradients + m.optimizer) / GIB
        kept = (m.activations + m.logits) / GIB
        print(
            f"{recipe.name:26} {words(layout):18} "
            f"{weights / 1024:>12.2f} {ours:>8.2f} {ours / weights * 1024 - 1:>+8.1%} "
            f"{activations / 1024:>12.2f} {kept:>8.2f} {kept / activations * 1024 - 1:>+8.0%}"
        )


if __name__ == "__main__":
    main()
