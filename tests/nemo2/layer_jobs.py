"""What the CPU's layers compute, in the ranks of the fork server; most return maximum differences."""

from __future__ import annotations

import itertools
import os
from typing import Any

SEQUENCE, BATCH, HEADS, HEAD_SIZE = 16, 2, 4, 8


def _config(**kwargs: Any) -> Any:
    from megatron.core.transformer.transformer_config import TransformerConfig

    return TransformerConfig(
        num_layers=2,
        hidden_size=HEADS * HEAD_SIZE,
        num_attention_heads=HEADS,
        attention_dropout=0.0,
        **kwargs,
    )


def _start_parallel(**sizes: int) -> None:
    import torch
    from megatron.core import parallel_state, tensor_parallel

    torch.distributed.init_process_group("gloo")
    parallel_state.initialize_model_parallel(**sizes)
    tensor_parallel.model_parallel_cuda_manual_seed(1)


def norms() -> dict[str, float]:
    """Against torch's own modules, with gamma as stored and zero-centred; the type that comes out."""
    import torch

    from nemolaunch.cpu.norms import Norm

    x = torch.randn(3, 5, 32)
    gamma, beta = torch.randn(32), torch.randn(32)
    out: dict[str, float] = {}
    for name, theirs in (
        ("RMSNorm", torch.nn.RMSNorm(32, 1e-5)),
        ("LayerNorm", torch.nn.LayerNorm(32, 1e-5)),
    ):
        theirs.load_state_dict({"weight": gamma, **({"bias": beta} if name == "LayerNorm" else {})})
        for centred in (False, True):
            ours = Norm(_config(normalization=name, layernorm_zero_centered_gamma=centred), 32)
            with torch.no_grad():
                ours.weight.copy_(gamma - 1 if centred else gamma)
                if name == "LayerNorm":
                    assert ours.bias is not None
                    ours.bias.copy_(beta)
            out[f"{name} {centred}"] = (ours(x) - theirs(x)).abs().max().item()
            half = ours(x.bfloat16())
            assert half.dtype == torch.bfloat16
            exact = theirs(x.bfloat16().float())
            rounding = exact.abs() * 2**-8  # once, at the end
            out[f"{name} {centred} bf16"] = ((half - exact).abs() - rounding).max().item()
    return out


def attention(window: int | None = None, groups: int = HEADS) -> float:
    """Against softmax(QK/sqrt(d))V written out over the whole sequence; a rank compares its own queries."""
    import torch
    from megatron.core import parallel_state
    from megatron.core.transformer.enums import AttnMaskType

    from nemolaunch.cpu.attention import CoreAttention

    ranks = int(os.environ["WORLD_SIZE"])
    _start_parallel(context_parallel_size=ranks)
    config = _config(num_query_groups=groups, context_parallel_size=ranks, window_size=window and (window, 0))
    generator = torch.Generator().manual_seed(3)
    query, key, value = (
        torch.randn(SEQUENCE, BATCH, heads, HEAD_SIZE, generator=generator)
        for heads in (HEADS, groups, groups)
    )
    rank, chunks = parallel_state.get_context_parallel_rank(), torch.arange(SEQUENCE).chunk(2 * ranks)
    mine = torch.cat([chunks[rank], chunks[2 * ranks - 1 - rank]]) if ranks > 1 else torch.arange(SEQUENCE)
    ours = CoreAttention(config, 1, AttnMaskType.causal)(query[mine], key[mine], value[mine])
    expected = _attention_written_out(query, key, value, window)[mine]
    return (ours - expected).abs().max().item()


def packed_attention(window: int | None, groups: int) -> float:
    """Against the same formula, written out for each of three documents."""
    import torch
    from megatron.core.packed_seq_params import PackedSeqParams
    from megatron.core.transformer.enums import AttnMaskType

    from nemolaunch.cpu.attention import CoreAttention

    config = _config(num_query_groups=groups, window_size=window and (window, 0))
    query, key, value = (torch.randn(SEQUENCE, heads, HEAD_SIZE) for heads in (HEADS, groups, groups))
    bounds = [0, 5, 6, SEQUENCE]
    cu_seqlens = torch.tensor(bounds, dtype=torch.int32)
    packed = PackedSeqParams(qkv_format="thd", cu_seqlens_q=cu_seqlens, cu_seqlens_kv=cu_seqlens)
    ours = CoreAttention(config, 1, AttnMaskType.causal)(query, key, value, packed_seq_params=packed)
    expected = []
    for start, end in itertools.pairwise(bounds):
        q, k, v = (t[start:end, None] for t in (query, key, value))
        expected.append(_attention_written_out(q, k, v, window)[:, 0])
    return (ours.flatten(1) - torch.cat(expected)).abs().max().item()


def _attention_written_out(query: Any, key: Any, value: Any, window: int | None) -> Any:
    import torch

    length, batch = query.shape[:2]
    key, value = (t.repeat_interleave(HEADS // t.size(2), dim=2) for t in (key, value))
    scores = torch.einsum("qbhd,kbhd->bhqk", query, key) / HEAD_SIZE**0.5
    gap = torch.arange(length)[:, None] - torch.arange(length)
    seen = (gap >= 0) & (gap <= (length if window is None else window))
    weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
    return torch.einsum("bhqk,kbhd->qbhd", weights, value).reshape(length, batch, -1)


def grouped_linear(bias: bool) -> float:
    """Three experts, one without tokens, against one linear each."""
    import torch
    import torch.nn.functional as F

    from nemolaunch.cpu.grouped import ColumnParallelGroupedLinear

    _start_parallel()
    experts = ColumnParallelGroupedLinear(
        3, 8, 12, config=_config(), init_method=torch.nn.init.normal_, bias=bias, skip_bias_add=False
    )
    splits = [4, 0, 2]
    x = torch.randn(sum(splits), 8)
    out, _ = experts(x, splits)
    expected = [
        F.linear(part, getattr(experts, f"weight{i}"), getattr(experts, f"bias{i}", None))
        for i, part in enumerate(x.split(splits))
    ]
    return (out - torch.cat(expected)).abs().max().item()


def adam(weight_decay: float, adam_w_mode: bool) -> float:
    """Ten steps against torch's Adam or AdamW, the state reloaded half way."""
    import torch

    from nemolaunch.cpu.optim import FusedAdam

    ours, theirs = (torch.nn.Parameter(torch.linspace(-1, 1, 10)) for _ in range(2))
    optimizer = FusedAdam([ours], lr=0.1, weight_decay=weight_decay, adam_w_mode=adam_w_mode)
    kind = torch.optim.AdamW if adam_w_mode else torch.optim.Adam
    reference = kind([theirs], lr=0.1, weight_decay=weight_decay)
    for step in range(10):
        for parameter in (ours, theirs):
            parameter.grad = torch.sin(parameter.detach() * (step + 1))
        if step == 5:
            state = optimizer.state_dict()
            optimizer = FusedAdam([ours], lr=0.1, weight_decay=weight_decay, adam_w_mode=adam_w_mode)
            optimizer.load_state_dict(state)
        optimizer.step()
        reference.step()
    return (ours - theirs).abs().max().item()


def devices() -> dict[str, str]:
    """Where tensors end up that are asked for on 'cuda'."""
    import torch

    tensors = {
        "constructor": torch.zeros(2, device="cuda"),
        "index": torch.empty(2, device=0),
        "torch.device": torch.ones(2, device=torch.device("cuda", 0), dtype=torch.float64),
        "cuda()": torch.zeros(2).cuda(),
        "to": torch.zeros(2).to("cuda:0"),
        "to, with a type": torch.zeros(2).to("cuda", torch.float64),
        "new_zeros": torch.zeros(2).new_zeros(3, device="cuda"),
        "pinned": torch.zeros(2, pin_memory=True),
        "meta": torch.zeros(2, device="meta"),
        "meta context": _zeros_on_meta(),
    }
    return {name: str(tensor.device) for name, tensor in tensors.items()}


def _zeros_on_meta() -> Any:
    import torch

    with torch.device("meta"):
        return torch.zeros(2)


def random_states() -> bool:
    """Seeding and restoring 'the GPU's' generator repeats its numbers."""
    import torch

    torch.cuda.manual_seed(7)
    state = torch.cuda.get_rng_state()
    first = torch.rand(3, device="cuda")
    torch.cuda.set_rng_state(state)
    return bool(torch.equal(first, torch.rand(3, device="cuda")))


def mamba(groups: int) -> dict[str, float]:
    """A layer against that of transformers, from random weights: the output, and the gradients of the weights."""
    import torch
    from torch import nn
    from transformers import Mamba2Config
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    from nemolaunch.cpu import scan

    torch.manual_seed(3)
    config = Mamba2Config(
        hidden_size=32, num_heads=8, head_dim=8, state_size=16, n_groups=groups, chunk_size=32, expand=2
    )
    theirs = Mamba2Mixer(config, layer_idx=0)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.randn(BATCH, 2 * scan.CHUNK + 7, 32)
    ours = _mamba_layer(theirs, x, groups)
    right = theirs.torch_forward(x)
    out = {"output": (ours - right).abs().max().item()}
    for name, parameter in theirs.named_parameters():
        wanted, found = (
            torch.autograd.grad(y.square().sum(), parameter, retain_graph=True) for y in (right, ours)
        )
        out[name] = ((wanted[0] - found[0]).abs().max() / wanted[0].abs().max()).item()
    return out


def _mamba_layer(theirs: Any, x: Any, groups: int) -> Any:
    """What Megatron's layer computes with the stand-ins, from the weights of a layer of transformers."""
    import torch.nn.functional as F

    from nemolaunch.cpu import scan

    y = scan.split_conv_scan(
        theirs.in_proj(x),
        theirs.conv1d.weight.squeeze(1),
        theirs.conv1d.bias,
        theirs.dt_bias,
        -theirs.A_log.exp(),
        D=theirs.D,
        chunk_size=128,
        headdim=theirs.head_dim,
        ngroups=groups,
        norm_before_gate=False,
    )
    # transformers normalises over all channels, whatever the groups
    norm = scan.GatedRMSNorm(y.size(-1), eps=theirs.norm.variance_epsilon)
    del norm.weight
    norm.weight = theirs.norm.weight
    return F.linear(norm(y), theirs.out_proj.weight, theirs.out_proj.bias)
