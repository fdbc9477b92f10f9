"""A plan as YAML that reproduces it: every value, with its origin as a comment.

Values that follow from others stay open (`null`), so that the file can be changed: with a decay that ends at step
20 because the run did, `--max-steps 400` would train 380 steps at the minimum rate.
"""

from __future__ import annotations

import json

from nemolaunch.job import PARTS, SECRETS, specs
from nemolaunch.planning import Plan
from nemolaunch.planning.open_values import open_values

COLUMN = 52  # where comments start, as long as values are short


def plan_yaml(plan: Plan) -> str:
    """Return a complete `--config` file of the resolved job, without secrets."""
    lines = [
        f"# {plan.model} ({plan.model_source}), "
        + ("for Megatron-Bridge." if plan.with_bridge else f"compiled from NeMo's recipe {plan.recipe}."),
        "# Every value of the job, with its origin. Usage: nemolaunch pretrain --config FILE",
    ]
    left_open = open_values(plan)
    for part, cls in PARTS.items():
        lines += ["", f"# {part}: {(cls.__doc__ or '').splitlines()[0]}"]
        for spec in specs():
            if spec.part == part and spec.name not in SECRETS:
                value = plan.job.get(spec.name)
                origin = plan.origins.get(spec.name, "default")
                if left_open.get(spec.name, value) != value:
                    origin = "flag" if value is None else f"computed: {scalar(value)}, {origin}"
                    value = left_open[spec.name]
                entry = f"{spec.name}: {scalar(value)}"
                lines.append(f"{entry:<{COLUMN}}  # {origin}")
    return "\n".join(lines) + "\n"


def scalar(value: object) -> str:
    """Return a value as unambiguous YAML: strings in quotes, floats with a decimal point."""
    if isinstance(value, float):
        text = repr(value)
        return text if "." in text or "e" not in text else text.replace("e", ".0e")
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
