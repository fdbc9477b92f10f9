"""`nemolaunch preflight`: measure the nodes of a job, and name those that are slow or sick."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.parsing.cluster_profile import add_cluster_flag, profile_of
from nemolaunch.cli.parsing.finding_flags import add_force_flag, forced_codes
from nemolaunch.cli.parsing.flags import add_some_job_flags, job_from, origins_from
from nemolaunch.cli.views import render
from nemolaunch.errors import NemolaunchError
from nemolaunch.findings import errors
from nemolaunch.system.quantities import counted

FIELDS = (
    "executor", "num_nodes", "num_gpus", "device", "account", "partition", "container_image",
    "container_mounts", "container_runtime", "time", "qos", "gres", "constraint", "exclude", "reservation",
    "sbatch", "modules", "setup", "pre_commands", "network_interface", "env_preset", "env", "experiment",
    "output_dir", "preflight_tolerance",
)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """Return the parser, with the flags of `nemolaunch pretrain` that say where a job runs."""
    p = Parser(
        prog="nemolaunch preflight",
        usage="%(prog)s [options]",
        example="nemolaunch preflight --executor slurm -N 4 -P gpu -A physics -E my-run",
        description="Measure the nodes that a job would run on: health and clocks of the GPUs, matrix products, "
        "all-reduces within and between nodes, the file system of the run folder, versions, clocks. Nodes that are "
        "slow or sick are named; `nemolaunch pretrain --exclude-slow` with the same run folder leaves them out. Exit "
        "code: 0 if all nodes are fit, 1 if not.",
    )
    p.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="YAML file of a job, of which only these flags count, and its data",
    )
    add_cluster_flag(p)
    p.add_argument("--json", action="store_true", help="print all measurements as JSON")
    p.add_argument("--show-script", action="store_true", help="print the batch script, and do not submit it")
    add_force_flag(p)
    add_some_job_flags(p, FIELDS)
    return p


@render.guarded
def main(argv: list[str] | None = None) -> int:
    """Run the command. Return the exit code."""
    given = vars(parser().parse_args(argv))
    config, as_json, show_script = given.pop("config"), given.pop("json"), given.pop("show_script")
    force, profile = forced_codes(given), profile_of(given)

    from nemolaunch.planning.node_plan import ANY_MODEL, make_node_plan

    job = job_from({**given, "model_name": ANY_MODEL}, config, profile)
    plan = make_node_plan(job, origins_from(given, config, profile), force)
    render.print_findings(plan.findings)
    if found := errors(plan.findings):
        raise NemolaunchError(f"the job has {counted(len(found), 'error')}; nothing was measured")
    if plan.container is not None:
        raise NemolaunchError(
            "nemolaunch preflight starts no container on this machine: use nemolaunch pretrain --preflight "
            f"--executor {job.launch.executor}, which measures in the container before the first step"
        )
    if show_script:
        from nemolaunch.preflight.command import command
        from nemolaunch.slurm.preflight_script import script

        if plan.submission is None:
            raise NemolaunchError("--show-script is for --executor slurm")
        sys.stdout.write(script(plan, command(plan)))
        return 0

    from nemolaunch.cli.views.preflight import as_text, show
    from nemolaunch.launching.preflight import run_preflight

    result = run_preflight(plan, lambda text: print(text, file=sys.stderr, flush=True))
    if as_json:
        print(as_text(result))
    else:
        show(result, plan.run, on_slurm=plan.submission is not None)
    return 1 if result.unfit else 0


if __name__ == "__main__":
    sys.exit(main())
