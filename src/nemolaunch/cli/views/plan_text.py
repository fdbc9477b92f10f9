"""A plan as text: what will run, what it will take, and every value that differs from its default."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from nemolaunch.cli.views.estimate import TITLE, estimate_lines, parameters_text, row
from nemolaunch.cli.views.launch import launch_lines
from nemolaunch.cli.views.paint import is_terminal, write_parts
from nemolaunch.cli.views.schedule import resume_lines, schedule_lines
from nemolaunch.cli.views.units import count
from nemolaunch.data.stream_budget import sources_without_size
from nemolaunch.data.stream_spec import StreamSpec
from nemolaunch.findings import Finding, errors
from nemolaunch.job import Job
from nemolaunch.planning import Plan
from nemolaunch.system.quantities import counted

SHOWN_FILES = 8


def plan_text(plan: Plan, *, with_script: bool = False, verbose: bool = False) -> str:
    """Return the resolved plan, preceded by the script or command that would run if that is asked for."""
    return script_text(plan, with_script) + "\n".join(plan_lines(plan, with_script, verbose)) + "\n"


def print_plan(plan: Plan, *, with_script: bool = False, verbose: bool = False) -> None:
    """Print what `plan_text` returns; on a terminal with colours, and wrapped."""
    sys.stdout.write(script_text(plan, with_script))
    for line in plan_lines(plan, with_script, verbose):
        if line.startswith("--"):
            write_parts([("", line)], indent=_column_of_origin(line))
        elif line[TITLE - 1 : TITLE].strip():
            write_parts([("", line)])
        else:
            title, text = line[:TITLE], line[TITLE:]
            style = ("error" if errors(plan.findings) else "good") if title.startswith("verdict") else ""
            write_parts([("title", title), (style, text)], indent=TITLE)
    if is_terminal(sys.stdout):
        sys.stdout.write("\n")  # above the findings
    sys.stdout.flush()


def _column_of_origin(line: str) -> int:
    at = line.rfind("  ") + 2
    return at if 2 < at <= 56 else 4


def script_text(plan: Plan, wanted: bool) -> str:
    """Return the batch script or the command of the container below a heading; nothing if it is not wanted."""
    if not wanted or errors(plan.findings):
        return ""
    if plan.container is not None:
        from nemolaunch.containers.run import run_command

        return f"command of the container:\n\n{shlex.join(run_command(plan))}\n\n"
    script = batch_script(plan)
    return f"batch script {_script_path(plan)}:\n\n{script}\n\n" if script is not None else ""


def _script_hint(plan: Plan) -> list[str]:
    if errors(plan.findings):
        return []
    if plan.container is not None:
        return ["", "command of the container: --show-script prints it"]
    return ["", f"batch script {_script_path(plan)}: --show-script prints it"] if plan.submission else []


def _script_path(plan: Plan) -> Path:
    from nemolaunch.slurm import batch_job

    return batch_job.script_path(plan)


def batch_script(plan: Plan) -> str | None:
    """Return the exact script that would be submitted; None for a local job, or one with errors."""
    if plan.submission is None or errors(plan.findings):
        return None
    from nemolaunch.slurm import batch_script as batch_scripts

    return batch_scripts.script(plan)


def plan_lines(plan: Plan, with_script: bool = False, verbose: bool = False) -> list[str]:
    """Return the resolved plan as lines: the verdict, what is trained, on what, how, and what that takes."""
    parameters = f"; {parameters_text(plan.estimate)}" if plan.estimate else ""
    lines = [
        row("verdict", verdict(plan.findings)),
        row("model", f"{plan.model} ({plan.model_source}){_compiled(plan)}{parameters}"),
        row("tokenizer", str(plan.tokenizer or plan.job.model.hf_model_id or "not known")),
        row("run folder", plan.folder),
    ]
    lines += resume_lines(plan)
    if plan.shrunk:
        lines.append(row("dev run", ", ".join(plan.shrunk)))
    lines += ["", *data_lines(plan), *ledger_lines(plan)]
    if plan.stream is None:
        lines.append(row("epoch", f"{plan.epoch_samples:,} samples of {plan.seq_length:,} tokens"))
    if plan.index_folder:
        where = "in --index-mapping-dir" if plan.job.data.index_mapping_dir else "next to the data"
        lines.append(row("index", f"{plan.index_folder} ({where}, named by the content of the data)"))
    lines += stream_lines(plan)
    lines += validation_lines(plan)
    if schedule := schedule_lines(plan):
        lines += ["", *schedule]
    lines += ["", row("runs on", _where(plan))]
    if plan.estimate:
        lines += estimate_lines(plan.estimate, on_gpu=_is_for_gpu(plan))
    lines += [row("" if i else "left out", text) for i, text in enumerate(plan.left_out)]
    lines += ["", *value_lines(plan)]
    if verbose:
        lines += ["", *launch_lines(plan)]
        lines += [f"patch in the training processes: {sentence}" for sentence in plan.patches]
    lines += [f"error ignored by --force: {code}" for code in plan.forced]
    return lines if with_script else [*lines, *_script_hint(plan)]


def verdict(findings: Iterable[Finding]) -> str:
    """Return `ok` or how many errors there are, and how many other findings."""
    numbers = Counter(finding.severity.value for finding in findings)
    more = ", ".join(counted(numbers[word], word) for word in ("warning", "note") if numbers[word])
    if numbers["error"]:
        return f"{counted(numbers['error'], 'error')}: nothing would start" + (f" ({more})" if more else "")
    return f"ok ({more} below)" if more else "ok"


def _is_for_gpu(plan: Plan) -> bool:
    """Whether the estimate is for a GPU: the one that trains, or one that a flag of a rehearsal asks about."""
    asked = plan.job.launch.gpu is not None or (plan.estimate and plan.estimate.time.source == "given")
    return plan.device == "gpu" or bool(asked)


def data_lines(plan: Plan) -> list[str]:
    """Return the data files with their tokens and weights: the first few, and how many there are."""
    lines = []
    for number, (weight, prefix) in enumerate(plan.blend[:SHOWN_FILES]):
        tokens = f", {count(plan.blend_tokens[number])} tokens" if plan.blend_tokens else ""
        share = f" (weight {weight:g})" if weight is not None else ""
        lines.append(row("" if number else "data", prefix + tokens + share))
    if len(plan.blend) > 1:
        shown = f"and {len(plan.blend) - SHOWN_FILES:,} more: " if len(plan.blend) > SHOWN_FILES else ""
        total = f", {count(sum(plan.blend_tokens))} tokens" if plan.blend_tokens else ""
        lines.append(row("", f"{shown}{len(plan.blend):,} files{total}"))
    return lines


def validation_lines(plan: Plan) -> list[str]:
    """Return the validation sets: tokens in the set, samples of it that each validation evaluates, files."""
    lines = []
    width = max((len(each.name) for each in plan.validation_sets[:SHOWN_FILES]), default=0)
    for number, each in enumerate(plan.validation_sets[:SHOWN_FILES]):
        samples = each.num_batches * plan.job.batch.global_batch_size
        files = each.prefixes[0] + (f" and {len(each.prefixes) - 1:,} more" if len(each.prefixes) > 1 else "")
        where = f"--split {each.split} of the data" if each.split else files
        figures = f"{count(each.tokens)} tokens, {samples:,} of {each.num_samples:,} samples"
        lines.append(row("" if number else "validation", f"{each.name:<{width}}  {figures}: {where}"))
    if len(plan.validation_sets) > SHOWN_FILES:
        lines.append(row("", f"and {len(plan.validation_sets) - SHOWN_FILES:,} more"))
    return lines


def ledger_lines(plan: Plan) -> list[str]:
    """Return a table of the data sources: requested share of tokens and documents, achieved share, epochs."""
    if not plan.ledger:
        return []
    width = max(len(share.path) for share in plan.ledger)
    lines = [
        row("blend", f"{'':<{width}}  {'tokens':>8} {'documents':>9} {'achieved':>8} {'samples':>13}  epochs")
    ]
    for share in plan.ledger:
        asked = f"{share.by_tokens:>8.2%} {share.by_rows:>9.2%}"
        read = f"{share.achieved:>8.2%} {share.samples:>13,} {share.epochs:>7.2f}"
        lines.append(row("", f"{share.path:<{width}}  {asked} {read}"))
    return lines


def stream_lines(plan: Plan) -> list[str]:
    """Return a table of the sources of a stream: requested share, and tokens and epochs read, if known."""
    if not plan.outlook:
        return []
    width = max(len(source.name) for source in plan.outlook)
    unit = plan.job.data.blend_by or "tokens"
    lines = [row("stream", f"{'':<{width}}  of {unit:<6}  {'tokens':>9}  epochs  read from")]
    for source in plan.outlook:
        tokens = f"{count(source.tokens):>9}" if source.tokens is not None else f"{'?':>9}"
        epochs = f"{source.epochs:>6.2f}" if source.epochs is not None else f"{'?':>6}"
        lines.append(
            row("", f"{source.name:<{width}}  {source.share:>9.2%}  {tokens}  {epochs}  {source.where}")
        )
    if plan.stream and (unknown := sources_without_size(StreamSpec.from_values(plan.stream), unit)):
        without = f"{', '.join(unknown)} {'does' if len(unknown) == 1 else 'do'} not give `tokens` and `rows`"
        lines.append(row("", f"?: shares are of rows, and {without}, so the length of a row is not known"))
    each = int(plan.job.stream.stream_readers or 0) // max(1, plan.data_parallel_size)
    lines.append(row("readers", f"{plan.job.stream.stream_readers}, {each} for each data-parallel rank"))
    return lines


def _compiled(plan: Plan) -> str:
    if plan.with_bridge:
        return f", for Megatron-Bridge in {plan.python or 'this environment'}"
    return "" if plan.recipe == plan.model else f", from NeMo's recipe {plan.recipe}"


def _where(plan: Plan) -> str:
    nodes = plan.job.launch.num_nodes
    device = "this CPU, as a rehearsal" if plan.device == "cpu" else "GPUs"
    if plan.submission is not None:
        launch = plan.job.launch
        device += f" of partition {launch.partition}, account {launch.account}"
    where = f"{device}: {counted(plan.world_size, 'process', 'processes')}"
    if nodes > 1:
        where += f" on {nodes} nodes"
    if plan.container is not None:
        where += f" in {plan.container.engine}, image {plan.container.image}"
    return f"{where}, data parallel size {plan.data_parallel_size}"


def value_lines(plan: Plan) -> list[str]:
    """Return flag, value and origin of every value that was given or computed, or differs from the default."""
    defaults = Job().values()
    shown = [
        ("--" + name.replace("_", "-"), word(one), plan.origins.get(name, ""))
        for name, value in plan.job.values().items()
        if value != defaults[name] or name in plan.origins
        for one in (value if name == "set" else [value])
    ]
    names = max((len(name) for name, _, _ in shown), default=0)
    values = min(44, max((len(value) for _, value, _ in shown), default=0))
    return [f"{name:<{names}}  {value:<{values}}  {origin}".rstrip() for name, value, origin in shown]


def word(value: object) -> str:
    """Return a value as written on a command line."""
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
