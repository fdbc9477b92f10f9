"""Fields of NeMo's recipe that have no flag of their own.

The field carries its command-line form; see `nemolaunch.job.fields.flag`.
"""

from __future__ import annotations

from dataclasses import dataclass

from nemolaunch.job.fields import flag


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Any field of NeMo's compiled recipe that has no flag."""

    set: tuple[str, ...] = flag(
        (),
        "set a field of the compiled recipe, e.g. model.config.hidden_dropout=0.1; may be repeated; PATH= removes an "
        "earlier setting. --show-recipe lists the fields",
        metavar="PATH=VALUE",
    )
