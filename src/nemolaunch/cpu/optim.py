"""Transformer Engine's FusedAdam on the CPU.

Without it Megatron falls back to `torch.optim.AdamW`, which counts steps per parameter: the distributed
optimizer then mistakes the scalar `step` for a slice of its buffer, and can neither save nor load. This class
counts per parameter group, like FusedAdam, so the optimizer part of a checkpoint has the layout of a GPU run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.adam import adam


class FusedAdam(torch.optim.Optimizer):
    """Adam (`adam_w_mode=False`) or AdamW, with FusedAdam's arguments and state."""

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        bias_correction: bool = True,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        adam_w_mode: bool = True,
        weight_decay: float = 0.0,
        **options: Any,
    ) -> None:
        unsupported = {k: v for k, v in options.items() if v not in (None, False, torch.float32)}
        if unsupported or not bias_correction:
            raise ValueError(
                f"FusedAdam on the CPU does not support {unsupported or 'bias_correction=False'}"
            )
        self.adam_w_mode = adam_w_mode
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable | None = None, grad_scaler: Any = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            if not group["params"]:
                continue
            group["step"] = int(group.get("step", 0)) + 1
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            for param in params:
                for name in ("exp_avg", "exp_avg_sq"):
                    if name not in self.state[param]:
                        self.state[param][name] = torch.zeros_like(param)
            adam(
                params,
                [p.grad for p in params],
                [self.state[p]["exp_avg"] for p in params],
                [self.state[p]["exp_avg_sq"] for p in params],
                [],
                # views of one tensor on the device the kernel expects; adam() adds one to each
                list(torch.full((len(params),), group["step"] - 1.0, device=params[0].device)),
                fused=True,
                amsgrad=False,
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=False,
                decoupled_weight_decay=self.adam_w_mode,
            )


def install() -> None:
    """Make Megatron use this Adam and treat it as Transformer Engine's."""
    import megatron.core.optimizer as optimizer
    from megatron.core.optimizer import distrib_optimizer

    optimizer.Adam = FusedAdam
    optimizer.USING_PYTORCH_OPTIMIZER = False
    distrib_optimizer.Adam = FusedAdam
    distrib_optimizer.HAVE_APEX_OR_TE = True
    distrib_optimizer.USING_TE_OPTIMIZER = True
