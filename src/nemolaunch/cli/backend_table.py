"""Generate the tables of docs/backends.md from the code's tables.

python -m nemolaunch.cli.backend_table docs/backends.md
"""

from __future__ import annotations

import sys
from pathlib import Path

from nemolaunch import catalogue
from nemolaunch.catalogue import bridge_fields, bridge_models
from nemolaunch.cli.resume_table import BEGIN, END
from nemolaunch.job import SECRETS, specs


def table() -> str:
    """Return what becomes of each flag, as Markdown."""
    lines = ["| flag | with `--backend bridge` |", "|---|---|"]
    lines += [f"| `{spec.flag}` | {_fate(spec.name)} |" for spec in specs() if spec.name not in SECRETS]
    return "\n".join(lines)


def _fate(name: str) -> str:
    if name in bridge_fields.SET:
        return ", ".join(f"`{field}`" for field in bridge_fields.SET[name].split(", "))
    return "the same"


def models_table() -> str:
    """Return which recipes are trained, and why the others are not, as Markdown."""
    rows: dict[str, list[str]] = {}
    for name in (*(recipe.name for recipe in catalogue.recipes()), *catalogue.only_in_bridge()):
        rows.setdefault(_model_fate(catalogue.model(name)), []).append(f"`{name}`")
    order = sorted(rows, key=lambda fate: (not fate.startswith("trained"), fate))
    lines = ["| models | with `--backend bridge` |", "|---|---|"]
    return "\n".join(lines + [f"| {', '.join(rows[fate])} | {fate} |" for fate in order])


def _model_fate(model: catalogue.ModelSpec) -> str:
    why = bridge_models.refusal(model)
    if why:
        return f"refused: {why}"
    if model.recipe.bridge_provider:
        return "trained with this backend only"
    differences = bridge_models.differences(model, model.recipe.seq_length)
    return f"trained; {'; '.join(differences)}" if differences else "trained"


def with_table(page: str) -> str:
    """Return the page with its tables written anew: of models, then of flags."""
    before, _, rest = page.partition(BEGIN)
    _, _, rest = rest.partition(END)
    between, _, rest = rest.partition(BEGIN)
    _, _, after = rest.partition(END)
    first, second = (f"{BEGIN}\n\n{text}\n\n{END}" for text in (models_table(), table()))
    return f"{before}{first}{between}{second}{after}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_table(path.read_text(encoding="utf-8")), encoding="utf-8")
