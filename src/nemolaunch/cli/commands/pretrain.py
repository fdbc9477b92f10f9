"""`nemolaunch pretrain` and train/llm/pretrain/pretrain_llm.py: describe, check, launch."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.parsing.cluster_profile import ClusterProfile, add_cluster_flag, profile_of
from nemolaunch.cli.parsing.finding_flags import add_force_flag, add_json_flag, findings_json, forced_codes
from nemolaunch.cli.parsing.flags import add_job_flags, job_from, origins_from
from nemolaunch.cli.parsing.over_ssh import add_ssh_flags, host_of
from nemolaunch.cli.parsing.show_recipe_flag import add_show_recipe_flag, recipe_of
from nemolaunch.cli.parsing.show_script_flag import add_show_script_flag, add_verbose_flag
from nemolaunch.cli.parsing.speed_flags import add_speed_flags, speed_from
from nemolaunch.cli.views.render import guarded
from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.findings import errors
from nemolaunch.run.labels import checked_tags, label
from nemolaunch.system.quantities import counted

if TYPE_CHECKING:
    from nemolaunch.job import Job
    from nemolaunch.launching.ssh_host import SshHost


def parser(prog: str = "nemolaunch pretrain") -> argparse.ArgumentParser:
    """Return the parser with all flags of a pretraining job."""
    job = Parser(
        prog=prog,
        usage="%(prog)s -M MODEL --dataset-dir PATH [PATH ...] [options]",
        example=f"{prog} -M llama32_1b --hf-model-id examples/tokenizer --dataset-dir data --max-steps 1000 --dry-run",
        description="Pretrain a language model with NeMo 2: locally, as a rehearsal on the CPU, or on Slurm.",
    )
    job.add_argument(
        "--config", type=Path, metavar="FILE", help="YAML file with any of the flags below; flags override it"
    )
    add_cluster_flag(job)
    job.add_argument(
        "--plan",
        type=Path,
        metavar="FILE",
        help="repeat a run from the plan.json in its folder; flags override it",
    )
    job.add_argument(
        "--dry-run", action="store_true", help="check and print the plan without starting or writing anything"
    )
    job.add_argument(
        "--tag",
        action="append",
        default=[],
        metavar="TAG",
        help="tag of the run, which `status` lists and finds; may be repeated",
    )
    add_show_recipe_flag(job)
    add_show_script_flag(job)
    add_verbose_flag(job)
    job.add_argument(
        "--dev-run",
        action="store_true",
        help="run a version of the job that takes a minute or two on this machine, in a separate run folder",
    )
    job.add_argument(
        "--wait-for-data",
        action="store_true",
        help="wait while nemolaunch tokenize is still writing the data, then plan and start",
    )
    add_force_flag(job)
    job.add_argument(
        "--format",
        choices=("text", "json"),
        default="text",
        help="output format of --dry-run and of findings",
    )
    add_json_flag(job)
    add_speed_flags(job)
    add_ssh_flags(job)
    add_job_flags(job)
    return job


def main(argv: list[str] | None = None, prog: str = "nemolaunch pretrain") -> int:
    """Run the command under either of its names. Return the exit code."""
    return guarded(lambda words: _main(words, prog))(argv)


def _main(argv: list[str] | None, prog: str) -> int:
    args = parser(prog).parse_args(argv)
    given = vars(args)
    ssh = argparse.Namespace(ssh=given.pop("ssh"), ssh_python=given.pop("ssh_python"))
    profile = profile_of(given)
    stays = given["dev_run"] or given.get("executor", "slurm") != "slurm"
    if profile and profile.ssh and not ssh.ssh and not stays and shutil.which("sbatch") is None:
        ssh = argparse.Namespace(ssh=profile.ssh, ssh_python=profile.ssh_python or ssh.ssh_python)
    if not ssh.ssh:
        return _plan_and_run(given, profile, None)
    with host_of(ssh) as host:
        return _plan_and_run(given, profile, host)


def _plan_and_run(given: dict[str, Any], profile: ClusterProfile | None, host: SshHost | None) -> int:
    """Plan, check and run, on this machine or on a cluster over SSH. Return the exit code of the job."""
    config, saved = given.pop("config"), given.pop("plan")
    dry_run, dev_run, show_recipe = given.pop("dry_run"), given.pop("dev_run"), given.pop("show_recipe")
    show_script, verbose = given.pop("show_script"), given.pop("verbose")
    force, form = forced_codes(given), given.pop("format")
    speed, tags = speed_from(given), checked_tags(given.pop("tag"))
    wait_for_data = given.pop("wait_for_data")

    from nemolaunch.cli.parsing.saved_plan import job_of_plan
    from nemolaunch.cli.views import render
    from nemolaunch.cli.views.plan_text import print_plan
    from nemolaunch.planning import make_plan

    if tags and host:
        raise UsageError(
            f"--tag is for runs started from here; use nemolaunch tag RUN {tags[0]} --ssh {host.name}"
        )
    if show_recipe and (not dry_run or form == "json" or host):
        raise UsageError("--show-recipe is for --dry-run on this machine, as text")
    if show_script and not dry_run:
        raise UsageError("--show-script is for --dry-run")
    if saved:
        if config:
            raise UsageError("--config and --plan both describe the job; use only one of them")
        job, model, origins, before = job_of_plan(saved, given, host.read_text if host else None, profile)
        force = (*before, *force)
    else:
        job, model = job_from(given, config, profile), None
        origins = origins_from(given, config, profile)
    facts = None
    if host:
        from nemolaunch.launching.over_ssh import look_there

        if dev_run:
            raise UsageError("--dev-run runs on this machine; drop --ssh")
        job, facts = look_there(host, job)
    if wait_for_data:
        if host:
            raise UsageError("--wait-for-data looks at folders of this machine; drop --ssh")
        _wait_for_data(job)
    plan = make_plan(
        job,
        dev_run=dev_run,
        facts=facts,
        given=origins,
        model=model,
        speed=speed,
        force=force,
        starts=not dry_run,
    )
    if dry_run and form == "json":
        from nemolaunch.cli.commands.plan import rendered

        sys.stdout.write(rendered(plan, "json"))
        return 1 if errors(plan.findings) else 0
    if dry_run:
        print_plan(plan, with_script=show_script, verbose=verbose)
        sys.stdout.write(recipe_of(plan) if show_recipe else "")
    if form == "json":
        sys.stderr.write(findings_json(plan.findings))
    else:
        render.print_findings(plan.findings)
    if errors(plan.findings):
        raise NemolaunchError(
            f"the job has {counted(len(errors(plan.findings)), 'error')}; nothing was started"
        )
    if dry_run:
        return 0
    from nemolaunch.cli.views.live_run import launch_and_show, launch_over_ssh
    from nemolaunch.launching.secrets import Secrets

    secrets = Secrets.of(job)
    if tags:
        label(plan.run, add=tags)
    return launch_over_ssh(plan, secrets, host) if host else launch_and_show(plan, secrets)


def _wait_for_data(job: Job) -> None:
    """Wait until the job's data are complete."""
    from nemolaunch.data.validation_sets import named_path
    from nemolaunch.facts import unfinished_data
    from nemolaunch.facts.dataset_words import read_blend

    paths = [path for _, path in read_blend(job.data.dataset_dir).sources]
    paths += [named_path(word)[1] for word in job.data.validation_data]
    unfinished_data.wait(tuple(paths), lambda text: print(text, file=sys.stderr))


if __name__ == "__main__":
    sys.exit(main())
