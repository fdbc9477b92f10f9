"""A Llama and its training step in plain torch, as written by hand: the baseline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Layer(nn.Module):
    """Grouped-query attention and a gated MLP, each after an RMSNorm."""

    def __init__(self, hidden: int, heads: int, groups: int, ffn: int, eps: float) -> None:
        super().__init__()
        self.heads, self.groups, self.size = heads, groups, hidden // heads
        self.attention_norm = nn.RMSNorm(hidden, eps)
        self.qkv = nn.Linear(hidden, (heads + 2 * groups) * self.size, bias=False)
        self.proj = nn.Linear(hidden, hidden, bias=False)
        self.mlp_norm = nn.RMSNorm(hidden, eps)
        self.fc1 = nn.Linear(hidden, 2 * ffn, bias=False)
        self.fc2 = nn.Linear(ffn, hidden, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Apply the layer to `x` of shape [batch, sequence, hidden]."""
        batch, length, hidden = x.shape
        # Megatron's order: for each group, its query heads, then its key, then its value
        per_group = self.heads // self.groups
        qkv = self.qkv(self.attention_norm(x)).view(batch, length, self.groups, per_group + 2, self.size)
        q, k, v = qkv.split([per_group, 1, 1], dim=3)
        q, k, v = (t.reshape(batch, length, -1, self.size).transpose(1, 2) for t in (q, k, v))
        q, k = rotated(q, cos, sin), rotated(k, cos, sin)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.proj(out.transpose(1, 2).reshape(batch, length, hidden))
        gate, up = self.fc1(self.mlp_norm(x)).chunk(2, dim=-1)
        return x + self.fc2(F.silu(gate) * up)


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary embeddings to [batch, heads, sequence, size], pairing channels of the two halves."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Llama(nn.Module):
    """Embedding, layers, norm and an untied output layer. `base` is that of the rotary embedding."""

    def __init__(
        self,
        *,
        vocabulary: int,
        layers: int,
        hidden: int,
        heads: int,
        groups: int,
        ffn: int,
        length: int,
        base: float,
        eps: float,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.layers = nn.ModuleList(Layer(hidden, heads, groups, ffn, eps) for _ in range(layers))
        self.norm = nn.RMSNorm(hidden, eps)
        self.output = nn.Linear(hidden, vocabulary, bias=False)
        size = hidden // heads
        angles = torch.outer(torch.arange(length).float(), base ** (-torch.arange(0, size, 2).float() / size))
        self.angles = torch.cat((angles, angles), dim=-1)

    def forward(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross entropy of tokens of shape [batch, sequence]."""
        x = self.embedding(tokens)
        cos, sin = self.angles.cos().to(x.dtype), self.angles.sin().to(x.dtype)
        for layer in self.layers:
            x = layer(x, cos, sin)
        logits = self.output(self.norm(x))
        return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten())

    def megatron_names(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield each weight with its name in Megatron's model."""
        yield "embedding.word_embeddings.weight", self.embedding.weight
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            name = f"decoder.layers.{i}"
            yield f"{name}.self_attention.linear_qkv.layer_norm_weight", layer.attention_norm.weight
            yield f"{name}.self_attention.linear_qkv.weight", layer.qkv.weight
            yield f"{name}.self_attention.linear_proj.weight", layer.proj.weight
            yield f"{name}.mlp.linear_fc1.layer_norm_weight", layer.mlp_norm.weight
            yield f"{name}.mlp.linear_fc1.weight", layer.fc1.weight
            yield f"{name}.mlp.linear_fc2.weight", layer.fc2.weight
        yield "decoder.final_layernorm.weight", self.norm.weight
        yield "output_layer.weight", self.output.weight

    @torch.no_grad()
    def copy_from(self, weights: Mapping[str, Tensor]) -> None:
        """Copy Megatron's weights. Raises KeyError or RuntimeError if the models differ."""
        for name, parameter in self.megatron_names():
            parameter.copy_(weights[name])


class Training:
    """AdamW with gradient clipping; in bfloat16 with float32 copies of the weights (mixed precision)."""

    def __init__(self, model: Llama, dtype: torch.dtype, betas: tuple[float, float], eps: float) -> None:
        self.model = model.to(dtype)
        self.mixed = dtype != torch.float32
        self.main = [
            nn.Parameter(p.detach().float().clone()) if self.mixed else p for p in self.model.parameters()
        ]
        self.optimizer = torch.optim.AdamW(
            self.main, lr=0.0, betas=betas, eps=eps, weight_decay=0.0, fused=True
        )

    def step(self, tokens: Tensor, labels: Tensor, lr: float) -> float:
        """Train one step on one batch. Return the loss."""
        loss = self.model(tokens, labels)
        loss.backward()
        if self.mixed:
            for main, own in zip(self.main, self.model.parameters(), strict=True):
                assert own.grad is not None
                main.grad, own.grad = own.grad.float(), None
        nn.utils.clip_grad_norm_(self.main, 1.0, foreach=True)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.mixed:
            with torch.no_grad():
                for main, own in zip(self.main, self.model.parameters(), strict=True):
                    own.copy_(main)
        return float(loss.detach())
