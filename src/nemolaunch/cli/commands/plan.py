"""`nemolaunch plan` and `generate-config`: print the resolved job as text, YAML or JSON without starting it."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.parsing.cluster_profile import add_cluster_flag, profile_of
from nemolaunch.cli.parsing.finding_flags import add_force_flag, add_json_flag, forced_codes
from nemolaunch.cli.parsing.flags import add_job_flags, job_from, origins_from
from nemolaunch.cli.parsing.show_recipe_flag import add_show_recipe_flag, recipe_of
from nemolaunch.cli.parsing.show_script_flag import add_show_script_flag, add_verbose_flag
from nemolaunch.cli.parsing.speed_flags import add_speed_flags, speed_from
from nemolaunch.cli.views import render
from nemolaunch.errors import UsageError
from nemolaunch.findings import errors
from nemolaunch.planning import Plan, make_plan

FORMATS = ("text", "yaml", "json")


def parser(prog: str = "nemolaunch plan", default_format: str = "text") -> argparse.ArgumentParser:
    """Create the parser of `nemolaunch plan`, or of a command that prints another format by default."""
    plan = Parser(
        prog=prog,
        example=f"{prog} -M llama32_1b --dataset-dir data --max-steps 1000 --output job.yaml"
        if default_format == "yaml"
        else f"{prog} -M llama32_1b --dataset-dir data --max-steps 1000",
        description="Check a job and show what would run: every value and where it comes from.",
    )
    plan.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="YAML file with any of the flags below; flags on the command line take precedence",
    )
    add_cluster_flag(plan)
    plan.add_argument("--dev-run", action="store_true", help="plan the shrunk job that --dev-run would start")
    plan.add_argument(
        "--format",
        choices=FORMATS,
        default=default_format,
        help="text; yaml: a file for --config; json: everything",
    )
    add_json_flag(plan)
    if default_format == "text":
        add_show_recipe_flag(plan)
        add_show_script_flag(plan)
        add_verbose_flag(plan)
    plan.add_argument(
        "--output", "-o", type=Path, metavar="FILE", help="write to FILE instead of standard output"
    )
    add_force_flag(plan)
    add_speed_flags(plan)
    add_job_flags(plan)
    return plan


@render.guarded
def main(argv: list[str] | None = None) -> int:
    """Print the plan. Return exit code 1 if the job has errors."""
    return 1 if errors(_run(argv, parser()).findings) else 0


@render.guarded
def generate_config(argv: list[str] | None = None) -> int:
    """Print the job as YAML even if it has errors; findings go to stderr."""
    _run(argv, parser("nemolaunch generate-config", "yaml"))
    return 0


def _run(argv: list[str] | None, flags: argparse.ArgumentParser) -> Plan:
    given = vars(flags.parse_args(argv))
    config, dev_run = given.pop("config"), given.pop("dev_run")
    form, output = given.pop("format"), given.pop("output")
    show_recipe = given.pop("show_recipe", False)
    show_script, verbose = given.pop("show_script", False), given.pop("verbose", False)
    if show_recipe and form != "text":
        raise UsageError(f"--show-recipe prints text; drop --format {form}")
    speed, force = speed_from(given), forced_codes(given)
    profile = profile_of(given)
    job, origins = job_from(given, config, profile), origins_from(given, config, profile)
    plan = make_plan(job, dev_run=dev_run, given=origins, speed=speed, force=force)
    recipe = recipe_of(plan) if show_recipe else ""
    if output:
        from nemolaunch.system.atomic_files import write_text

        write_text(output, rendered(plan, form, with_script=show_script, verbose=verbose) + recipe)
    elif form == "text":
        from nemolaunch.cli.views.plan_text import print_plan

        print_plan(plan, with_script=show_script, verbose=verbose)
        sys.stdout.write(recipe)
    else:
        sys.stdout.write(rendered(plan, form))
        sys.stdout.flush()
    if form != "json":
        render.print_findings(plan.findings)
    return plan


def rendered(plan: Plan, form: str, *, with_script: bool = False, verbose: bool = False) -> str:
    """Return the plan in the given format; as text, with the batch script if that is asked for."""
    from nemolaunch.cli.views.plan_text import batch_script, plan_text

    if form == "yaml":
        from nemolaunch.cli.views.plan_yaml import plan_yaml

        return plan_yaml(plan)
    if form == "json":
        content = {"values": plan.job.values(), **dataclasses.asdict(plan)}  # as in plan.json
        del content["job"]
        content["findings"] = [finding.as_values() for finding in plan.findings]
        content["script"] = batch_script(plan)
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    return plan_text(plan, with_script=with_script, verbose=verbose)


if __name__ == "__main__":
    sys.exit(main())
