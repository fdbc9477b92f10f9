"""The loss curve as an image, for a README, a paper or a chat."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nemolaunch.data.validation_sets import loss_key, set_names
from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.observe.report.run_page import RunPage
from nemolaunch.system.atomic_files import atomic_file
from nemolaunch.system.installation import how_to_install

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".svg", ".pdf")


def draw_loss(pages: list[RunPage], output: Path) -> None:
    """Draw training loss (raw and smoothed), validation loss and restarts. The suffix selects the format.

    Raises:
        UsageError: the suffix is not one of FORMATS, or no run has a loss yet.
        NemolaunchError: matplotlib is not installed, or the file cannot be written.
    """
    if output.suffix.lower() not in FORMATS:
        raise UsageError(f"--png {output}: the file name must end in {', '.join(FORMATS)}")
    if not any("loss" in page.data["series"] for page in pages):
        raise UsageError(f"--png {output}: no step has been recorded yet, so there is no loss to draw")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise NemolaunchError(f"--png needs matplotlib: {how_to_install('train')}") from None
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for i, page in enumerate(pages):
        _draw(axes, page, f"C{i % 10}", len(pages) > 1)
    axes.set_xlabel("optimizer steps")
    axes.set_ylabel("loss (nats per token)")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    axes.set_title(", ".join(page.name for page in pages)[:90], loc="left")
    try:
        with atomic_file(output) as file:
            figure.savefig(file, format=output.suffix[1:].lower(), dpi=160)
    except OSError as error:
        raise NemolaunchError(f"cannot write --png {output}: {error.strerror}") from None


def _draw(axes: Axes, page: RunPage, colour: str, several: bool) -> None:
    prefix = f"{page.name}: " if several else ""
    series = page.data["series"]
    if "loss" in series:
        axes.plot(*series["loss"], color=colour, alpha=0.3, linewidth=0.9)
        (line,) = axes.plot(*series["loss_smoothed"], color=colour, linewidth=1.8)
        line.set_label(f"{prefix}training, smoothed")
    sets = {f"validation, {name}": loss_key(name) for name in set_names(series)}
    for number, (label, key) in enumerate((sets or {"validation": "val_loss"}).items(), start=1):
        if key in series:
            (line,) = axes.plot(*series[key], "o--", markersize=4.5, linewidth=1.0)
            line.set(color=colour if several else f"C{number % 10}", label=f"{prefix}{label}")
    for mark in page.data["marks"]:
        if mark["kind"] == "restart":
            axes.axvline(mark["step"], color="0.5", linewidth=0.8, linestyle=":")
