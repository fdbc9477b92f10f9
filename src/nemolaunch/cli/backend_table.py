"""Generate the table of docs/backends.md from the code's tables.

python -m nemolaunch.cli.backend_table docs/backends.md
"""

from __future__ import annotations

import sys
from pathlib import Path

from nemolaunch.catalogue import bridge_fields
from nemolaunch.cli.resume_table import BEGIN, END
from nemolaunch.job import SECRETS, specs


def table() -> str:
    """Return what becomes of each flag, as Markdown."""
    lines = ["| flag | with `--backend bridge` |", "|---|---|"]
    lines += [f"| `{spec.flag}` | {_fate(spec.name)} |" for spec in specs() if spec.name not in SECRETS]
    return "\n".join(lines)


def _fate(name: str) -> str:
    refused = {**bridge_fields.REFUSED, **bridge_fields.REFUSED_VALUES}
    if name in refused:
        accepted, reason = refused[name]
        values = [f"`{value}`" for value in accepted if value not in (None, False, ())]
        return f"{'only ' + ' or '.join(values) if values else 'refused'}: {reason}"
    if name in bridge_fields.SET:
        return ", ".join(f"`{field}`" for field in bridge_fields.SET[name].split(", "))
    if name in bridge_fields.WITH_REFUSED:
        return f"as `--{bridge_fields.WITH_REFUSED[name].replace('_', '-')}`"
    return "the same"


def with_table(page: str) -> str:
    """Return the page with its table written anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_table(path.read_text(encoding="utf-8")), encoding="utf-8")
