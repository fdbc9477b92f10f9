"""`nemolaunch prepare-index`: build the index of a job's data on a CPU, before the job."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.parsing.cluster_profile import add_cluster_flag, profile_of
from nemolaunch.cli.parsing.finding_flags import add_force_flag, forced_codes
from nemolaunch.cli.parsing.flags import add_job_flags, job_from, origins_from
from nemolaunch.cli.views import render
from nemolaunch.cli.views.units import duration, gigabytes
from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.findings import errors
from nemolaunch.planning import Plan, make_plan
from nemolaunch.system.quantities import counted


def parser() -> argparse.ArgumentParser:
    """Return the parser with all flags of a pretraining job."""
    job = Parser(
        prog="nemolaunch prepare-index",
        usage="%(prog)s -M MODEL --dataset-dir PATH [PATH ...] [options]",
        example="nemolaunch prepare-index -M llama32_1b --dataset-dir data --max-steps 1000",
        description="Build the index of samples that a job reads, in one process without a GPU, so that the job "
        "starts at once. Takes the flags of the job: the index depends on data, split, seed, sequence length, batch "
        "size, steps and validation.",
    )
    job.add_argument(
        "--config", type=Path, metavar="FILE", help="YAML file with any of the flags below; flags override it"
    )
    job.add_argument(
        "--plan", type=Path, metavar="FILE", help="the plan.json of a run, or its folder; flags override it"
    )
    add_cluster_flag(job)
    job.add_argument("--json", action="store_true", help="print the folder and what was built as JSON")
    add_force_flag(job)
    add_job_flags(job)
    return job


@render.guarded
def main(argv: list[str] | None = None) -> int:
    """Run the command. Return the exit code."""
    given = vars(parser().parse_args(argv))
    config, saved, as_json = given.pop("config"), given.pop("plan"), given.pop("json")
    force, profile = forced_codes(given), profile_of(given)

    from nemolaunch.launching.prepare_index import prepare_index
    from nemolaunch.launching.secrets import Secrets

    if saved and config:
        raise UsageError("--config and --plan both describe the job; use only one of them")
    if saved:
        from nemolaunch.cli.parsing.saved_plan import job_of_plan

        job, model, origins, before = job_of_plan(saved, given, profile=profile)
        plan = make_plan(job, given=origins, model=model, force=(*before, *force))
    else:
        job = job_from(given, config, profile)
        plan = make_plan(job, given=origins_from(given, config, profile), force=force)
    _require_valid(plan)
    begin = time.monotonic()
    built = prepare_index(plan, Secrets.of(job))
    if as_json:
        found = {"folder": str(built.folder), "files": built.num_files, "bytes": built.num_bytes}
        print(json.dumps(found, ensure_ascii=False))
    elif built.num_files:
        took = duration(time.monotonic() - begin)
        print(f"{built.folder}: built {built.num_files} files, {gigabytes(built.num_bytes)}, in {took}")
    else:
        print(f"{built.folder}: complete, nothing to build")
    return 0


def _require_valid(plan: Plan) -> None:
    """Print the findings. Raise NemolaunchError if the job has errors: the index might not be the right one."""
    render.print_findings(plan.findings)
    found = errors(plan.findings)
    if found:
        raise NemolaunchError(f"the job has {counted(len(found), 'error')}; no index was built")


if __name__ == "__main__":
    sys.exit(main())
