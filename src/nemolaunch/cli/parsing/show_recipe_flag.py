"""`--show-recipe`: the compiled recipe below the plan."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from nemolaunch.errors import UsageError
from nemolaunch.findings import errors

if TYPE_CHECKING:
    from nemolaunch.planning import Plan


def add_show_recipe_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--show-recipe`."""
    parser.add_argument(
        "--show-recipe",
        action="store_true",
        help="also compile NeMo's recipe on this machine, and print every field with its value",
    )


def recipe_of(plan: Plan) -> str:
    """Return the compiled recipe below a heading; nothing if the plan has errors.

    Raises:
        UsageError: Megatron-Bridge trains the plan, which has no recipe.
    """
    if errors(plan.findings):
        return ""
    if plan.with_bridge:
        raise UsageError("--show-recipe prints NeMo's recipe, and --backend bridge trains without it")
    from nemolaunch.nemo2.show_recipe import recipe_text

    return f"\nrecipe {plan.recipe}:\n\n{recipe_text(plan)}"
