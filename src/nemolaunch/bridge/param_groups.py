"""The optimizer's groups of parameters, where a run resumes with another rate or weight decay.

Megatron-Core 0.19 finds the group that a checkpoint has for each of the optimizer's by all settings that one group may
have of its own, the highest and lowest rate among them (`param_group_identifier_keys` in optimizer/optimizer.py). With
a new `--lr`, it would find none. Here all groups have the rates of the plan, so that the other settings tell them
apart.
"""

from __future__ import annotations

from megatron.core.optimizer import distrib_optimizer, optimizer

PLANNED = frozenset({"max_lr", "min_lr", "start_wd", "end_wd"})


def match_whatever_the_rates() -> None:
    """Have groups found by what the plan does not set. A second call changes nothing."""
    keys = tuple(key for key in optimizer.param_group_identifier_keys if key not in PLANNED)
    optimizer.param_group_identifier_keys = distrib_optimizer.param_group_identifier_keys = keys
