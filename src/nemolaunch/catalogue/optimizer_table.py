"""Published optimizer settings for pretraining, by the size of the model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class OptimizerDefaults:
    """How a model is pretrained unless the job says otherwise.

    Attributes:
        lr, min_lr: learning rate after the warmup and at the end of the decay.
        warmup_steps: steps of linear warmup; None for a hundredth of the run (as NeMo's recipes of T5).
        weight_decay: decoupled weight decay.
        adam_beta1, adam_beta2: decay rates of Adam's moments.
        adam_eps: term added to Adam's denominator.
        clip_grad: maximum global gradient norm.
        source: where the values come from.
    """

    lr: float
    min_lr: float
    warmup_steps: int | None
    weight_decay: float
    adam_beta1: float
    adam_beta2: float
    adam_eps: float
    clip_grad: float
    source: str


# Largest number of parameters, its peak learning rate, and a published run at that rate and about that size
_RATES = (
    (100e6, 1e-3, "Pythia 70M, arXiv 2304.01373"),
    (250e6, 6e-4, "GPT-3 125M, arXiv 2005.14165"),
    (20e9, 3e-4, "Llama 7B and 13B, arXiv 2302.13971"),
    (100e9, 1.5e-4, "Llama 65B, arXiv 2302.13971"),
    (float("inf"), 8e-5, "Llama 3 405B, arXiv 2407.21783"),
)


def by_size(num_parameters: int) -> OptimizerDefaults:
    """Return settings for a model of that many parameters.

    The rates are those of published runs (the source names one of each size). The rest is common to GPT-3 and Llama:
    decay to a tenth of the rate, weight decay 0.1, betas 0.9 and 0.95, gradients clipped to norm 1. Epsilon is that of
    GPT-3, the warmup of 2,000 steps that of Llama (arXiv 2302.13971, section 2.3).
    """
    lr, source = next((rate, where) for most, rate, where in _RATES if num_parameters <= most)
    return OptimizerDefaults(
        lr=lr,
        min_lr=float(f"{lr / 10:.6g}"),
        warmup_steps=2000,
        weight_decay=0.1,
        adam_beta1=0.9,
        adam_beta2=0.95,
        adam_eps=1e-8,
        clip_grad=1.0,
        source=f"as {source}",
    )
