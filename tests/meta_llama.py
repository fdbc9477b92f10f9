"""A Llama as Meta defines it, for comparison: plain torch, complex rotation of neighbouring channels."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F


def logits(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    """Return logits `[length, vocabulary]` of a model in Meta's format, for token ids `[length]`."""
    params = json.loads((folder / "params.json").read_text())
    w = torch.load(folder / "consolidated.00.pth", weights_only=True)
    x = w["tok_embeddings.weight"][ids]
    rotation = _rotation(params, len(ids))
    for n in range(params["n_layers"]):
        x = x + _attention(
            w, f"layers.{n}.attention", _norm(w, f"layers.{n}.attention_norm", x, params), params, rotation
        )
        h = _norm(w, f"layers.{n}.ffn_norm", x, params)
        w1, w2, w3 = (w[f"layers.{n}.feed_forward.w{k}.weight"] for k in (1, 2, 3))
        x = x + F.silu(h @ w1.T) * (h @ w3.T) @ w2.T
    return _norm(w, "norm", x, params) @ w["output.weight"].T


def _norm(w: dict[str, torch.Tensor], name: str, x: torch.Tensor, params: dict[str, Any]) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + params["norm_eps"]) * w[f"{name}.weight"]


def _rotation(params: dict[str, Any], length: int) -> torch.Tensor:
    """Return unit complex numbers `[length, channels / 2]`."""
    channels = params["dim"] // params["n_heads"]
    frequencies = params["rope_theta"] ** -(torch.arange(0, channels, 2).double() / channels)
    if params.get("use_scaled_rope"):
        frequencies = torch.stack([_scaled(float(f), params) for f in frequencies])
    angles = torch.outer(torch.arange(length).double(), frequencies)
    return torch.polar(torch.ones_like(angles), angles)


def _scaled(frequency: float, params: dict[str, Any]) -> torch.Tensor:
    factor, low, high = params.get("rope_scaling_factor", 8.0), 1.0, params.get("rope_high_freq_factor", 4.0)
    wavelength = 2 * math.pi / frequency
    smooth = min(max((8192 / wavelength - low) / (high - low), 0.0), 1.0)
    return torch.tensor((1 - smooth) * frequency / factor + smooth * frequency).double()


def _attention(
    w: dict[str, torch.Tensor], name: str, x: torch.Tensor, params: dict[str, Any], rotation: torch.Tensor
) -> torch.Tensor:
    heads, groups = params["n_heads"], params["n_kv_heads"]
    query, key, value = (
        (x @ w[f"{name}.{part}.weight"].T).reshape(len(x), count, -1)
        for part, count in (("wq", heads), ("wk", groups), ("wv", groups))
    )
    query, key = _rotated(query, rotation), _rotated(key, rotation)
    key, value = (t.repeat_interleave(heads // groups, dim=1) for t in (key, value))
    scores = torch.einsum("qhc,khc->hqk", query, key) / query.shape[-1] ** 0.5
    causal = torch.full(scores.shape[1:], -math.inf).triu(1)
    mixed = torch.einsum("hqk,khc->qhc", torch.softmax(scores + causal, dim=-1), value)
    return mixed.reshape(len(x), -1) @ w[f"{name}.wo.weight"].T


def _rotated(x: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    pairs = torch.view_as_complex(x.double().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * rotation.unsqueeze(1)).reshape(x.shape).to(x.dtype)
