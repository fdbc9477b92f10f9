"""The command line of the measuring processes."""

from __future__ import annotations

from nemolaunch.planning import Plan


def command(plan: Plan) -> list[str]:
    """Return the arguments of the measuring process of each rank, after the interpreter, without its attempt."""
    words = [
        "-W",
        "ignore:The pynvml package is deprecated",
        "-m",
        "nemolaunch.preflight.rank",
        "--run",
        plan.folder,
    ]
    words += ["--device", plan.device, "--tolerance", str(plan.job.guards.preflight_tolerance)]
    if plan.blend:
        words += ["--data", f"{plan.blend[0][1]}.bin"]
    return words
