"""On a machine that is not there: the layers for a GPU without Transformer Engine, on tensors without memory.

PyTorch refuses to mix them with tensors of the CPU, as it refuses to mix those of a GPU. Prints JSON.
"""

from __future__ import annotations

import json

import torch

from nemolaunch.cpu.install import install_layers

META = torch.device("meta")


def attended(window: tuple[int, int] | None) -> list[int]:
    """Shape of what causal attention gives, with or without a sliding window."""
    from megatron.core.transformer.enums import AttnMaskType
    from megatron.core.transformer.transformer_config import TransformerConfig

    from nemolaunch.cpu.attention import CoreAttention

    config = TransformerConfig(
        num_layers=2, hidden_size=64, num_attention_heads=4, num_query_groups=2, attention_dropout=0.0,
        window_size=window,
    )  # fmt: skip
    query = torch.empty(32, 2, 4, 16, device=META)
    key = torch.empty(32, 2, 2, 16, device=META)
    out = CoreAttention(config, 1, AttnMaskType.causal)(query, key, key)
    assert out.device == META
    return list(out.shape)


def stepped() -> int:
    """Steps that the optimizer counts after two of them."""
    from megatron.core.optimizer import Adam

    weights = [torch.nn.Parameter(torch.empty(8, device=META)) for _ in range(3)]
    optimizer = Adam(weights, lr=1e-3)
    for _ in range(2):
        for weight in weights:
            weight.grad = torch.empty_like(weight)
        optimizer.step()
    assert optimizer.state[weights[0]]["exp_avg"].device == META
    return int(optimizer.param_groups[0]["step"])


def main() -> None:
    install_layers()
    from megatron.core.models.gpt import gpt_layer_specs

    norm = gpt_layer_specs.TENorm.__module__
    found = {"norm": norm, "plain": attended(None), "windowed": attended((8, 0)), "steps": stepped()}
    found["cuda is its own"] = not torch.cuda.is_initialized()  # the rehearsal would say that it is
    print(json.dumps(found))


if __name__ == "__main__":
    main()
