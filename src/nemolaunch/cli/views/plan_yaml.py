"""A plan as YAML that reproduces it: every value, with its origin as a comment."""

from __future__ import annotations

import json

from nemolaunch.job import PARTS, SECRETS, specs
from nemolaunch.planning import Plan

COLUMN = 52  # where comments start, as long as values are short


def plan_yaml(plan: Plan) -> str:
    """Return a complete `--config` file of the resolved job, without secrets."""
    lines = [
        f"# {plan.model} ({plan.model_source}), compiled from NeMo's recipe {plan.recipe}.",
        "# Every value of the job, with its origin. Usage: nemolaunch pretrain --config FILE",
    ]
    for part, cls in PARTS.items():
        lines += ["", f"# {part}: {(cls.__doc__ or '').splitlines()[0]}"]
        for spec in specs():
            if spec.part == part and spec.name not in SECRETS:
                entry = f"{spec.name}: {scalar(plan.job.get(spec.name))}"
                lines.append(f"{entry:<{COLUMN}}  # {plan.origins.get(spec.name, 'default')}")
    return "\n".join(lines) + "\n"


def scalar(value: object) -> str:
    """Return a value as unambiguous YAML: strings in quotes, floats with a decimal point."""
    if isinstance(value, float):
        text = repr(value)
        return text if "." in text or "e" not in text else text.replace("e", ".0e")
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
