"""Parameters of the operators that replace attention in Mamba-2 and Hyena layers, and in linear attention."""

from __future__ import annotations

from nemolaunch.catalogue import Architecture

_CONVOLUTION_WIDTH = 4  # d_conv of megatron.core.ssm.mamba_mixer.MambaMixer
_EXPANSION = 2  # its expand, if the config does not set the number of heads


def mamba_heads(a: Architecture) -> int:
    """Return the number of heads of a Mamba-2 layer."""
    return a.mamba_num_heads or _EXPANSION * a.hidden_size // a.mamba_head_dim


def mamba_inner_width(a: Architecture) -> int:
    """Return the number of channels of a Mamba-2 layer's state space part."""
    return mamba_heads(a) * a.mamba_head_dim


def mamba(a: Architecture) -> int:
    """Count a Mamba-2 mixer: input and output projection, short convolution, three values per head, gated norm."""
    inner, heads = mamba_inner_width(a), mamba_heads(a)
    states = 2 * a.mamba_num_groups * a.mamba_state_dim
    in_projection = a.hidden_size * (2 * inner + states + heads)
    convolution = (inner + states) * (_CONVOLUTION_WIDTH + 1)
    return in_projection + convolution + 3 * heads + inner + inner * a.hidden_size


def hyena(a: Architecture, letter: str) -> int:
    """Count the Hyena operator of a short (S), medium (D) or long (H) layer.

    It has three input projections followed by a convolution over 3 tokens, an output projection with a bias, and
    a filter: 7 (S) or 128 (D) taps per group, or three values per group and mode of an implicit filter (H); D and H
    have a bias per channel (nemo.collections.llm.gpt.model.megatron.hyena, hyena_mixer and hyena_config).
    """
    filters = {
        "S": 7 * a.known("num_groups_hyena_short"),
        "D": 128 * a.known("num_groups_hyena_medium") + a.hidden_size,
        "H": 3 * 16 * a.known("num_groups_hyena") + a.hidden_size,
    }
    projections = 4 * a.hidden_size * a.hidden_size + a.hidden_size
    return projections + 3 * 3 * a.hidden_size + filters[letter]


def delta_widths(a: Architecture) -> tuple[int, int]:
    """Return the channels of all keys, and of all values, of a gated delta net. There are as many queries as keys."""
    keys = a.known("linear_num_key_heads") * a.known("linear_key_head_dim")
    return keys, a.known("linear_num_value_heads") * a.known("linear_value_head_dim")


def delta_net(a: Architecture) -> int:
    """Count a gated delta net (megatron.core.ssm.gated_delta_net).

    The input projection makes queries, keys, values, a gate as wide, and two numbers per head of values; a convolution
    over queries, keys and values has no bias; a step and a decay per head; a norm over a head; the output projection.
    """
    keys, values = delta_widths(a)
    heads = a.known("linear_num_value_heads")
    projections = a.hidden_size * (2 * keys + 2 * values + 2 * heads) + values * a.hidden_size
    convolution = (2 * keys + values) * a.known("linear_conv_kernel_dim")
    return projections + convolution + 2 * heads + a.known("linear_value_head_dim")
