"""Move a run to the other framework: a new run folder that continues it.

The job is planned again for the framework that goes on, by the same checks as any other, as if the new folder already
held the checkpoint. So whatever that framework does not support is refused before anything is written.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.catalogue import ModelSpec, bridge_models
from nemolaunch.checkpoint.convert import report
from nemolaunch.checkpoint.migrate import refusals
from nemolaunch.checkpoint.migrate.migration import Migration, prepare
from nemolaunch.checkpoint.migrate.models import BRIDGE, NEMO2, TITLES
from nemolaunch.checkpoint.storage.publish import check_space, explain_os_error, publishing
from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.facts import EarlierRun, installed_versions, look
from nemolaunch.facts.saved_values import saved_run
from nemolaunch.job import Job
from nemolaunch.planning import Plan, make_plan
from nemolaunch.planning.open_values import open_values
from nemolaunch.run import metrics
from nemolaunch.run.folder import RunDir
from nemolaunch.run.lock import RunLock
from nemolaunch.system import folder_identity, processes
from nemolaunch.system.atomic_files import write_json
from nemolaunch.tokenizer import completion

Advance = Callable[[int], None]
Progress = Callable[[str, int], AbstractContextManager[Advance]]
# These belong to the start of the earlier run, or name checkpoints of the other framework
NOT_KEPT = {"dependency": None, "detach": False, "resume": "auto", "nemo_model": None, "python": None}


@dataclass(frozen=True)
class Item:
    """One thing of a run: whether the new run has it (`carried`, `left`, `differs`), and what there is to say."""

    what: str
    state: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class RunMigration:
    """The migration of a run, decided in full before anything is written.

    Attributes:
        source: the run that is moved.
        before, plan: its plan, and that of the run which continues it.
        checkpoint: how its newest checkpoint becomes one of the other framework.
    """

    source: RunDir
    before: Plan
    plan: Plan
    checkpoint: Migration

    @property
    def items(self) -> list[Item]:
        """What is carried, what is not, and what will differ."""
        return [*_carried(self), *_left(self), *_differences(self)]


def moved_values(plan: Plan, to: str, folder: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the job that continues a run in another folder; `given` are changed ones."""
    kept = {**plan.job.values(), **NOT_KEPT, **open_values(plan, given)}
    return {**kept, **given, "backend": to, "output_dir": str(folder)}


def plan_migration(
    source: RunDir,
    to: str,
    output: Path | None = None,
    job: Job | None = None,
    model: ModelSpec | None = None,
    origins: Mapping[str, str] | None = None,
    force: tuple[str, ...] = (),
) -> RunMigration:
    """Decide how a run is moved. Writes nothing.

    Args:
        to: `nemo2` or `bridge`.
        output: the new run folder; by default that of the run with the framework's name at its end.
        job: the job that continues it; by default as planned.
        model, origins: of that job.
        force: codes of errors to ignore.

    Raises:
        UsageError: there is nothing to move, or the new folder exists.
        NemolaunchError: the checkpoint is damaged, or something of the training is refused, by name.
    """
    before = Plan.of_run(source)
    folder = folder_for(source, to, output)
    _check_folders(source, before, to, folder)
    last = source.last_checkpoint()
    if last is None:
        raise UsageError(
            f"the run in {source.root} has no complete checkpoint: there is nothing to move, start a new run"
        )
    checkpoint = prepare(last.resolve(), to, source.tokenizer if source.tokenizer.is_dir() else None)
    if before.job.data.data_mode == "stream" and checkpoint.progress.stream is None:
        checkpoint.close()
        raise NemolaunchError(
            f"{last} does not have the position in the stream, so the run cannot go on from there"
        )
    job = job or Job().with_values(**moved_values(before, to, folder, {}))
    facts = look(job)
    facts = dataclasses.replace(facts, run=_as_if_moved(facts.run, source, folder, before, checkpoint))
    plan = make_plan(
        job,
        facts=facts,
        given=origins if origins is not None else dict.fromkeys(before.origins, f"plan {source.plan}"),
        model=model or before.model_row,
        force=(*before.forced, *force),
    )
    faults = list(refusals.unknown_releases(_releases(plan)))
    if faults:
        checkpoint.close()
        raise NemolaunchError(f"the run is not moved: {'; '.join(faults)}")
    return RunMigration(source=source, before=before, plan=plan, checkpoint=checkpoint)


def folder_for(source: RunDir, to: str, output: Path | None = None) -> Path:
    """Return the new run folder: the given one, else one beside the run."""
    return output.expanduser().absolute() if output else source.root.with_name(f"{source.root.name}-{to}")


def migrate(moved: RunMigration, tell: Callable[[str], None], progress: Progress) -> dict[str, Any]:
    """Write the new run folder, complete or not at all, and return the report in it.

    Raises:
        PlanError: the plan has errors.
        NemolaunchError: the run is going on, the folder cannot be written, or the result differs from the source.
    """
    moved.plan.raise_for_errors()
    folder = moved.plan.run.root
    try:
        check_space(moved.checkpoint.disk_bytes(folder), folder)
        with _idle(moved.source), publishing(folder, tell=tell) as new:
            record = _write(moved, RunDir(new), progress)
    except OSError as error:
        raise explain_os_error(error, f"writing {folder}") from error
    finally:
        moved.checkpoint.close()
    folder_identity.claim(folder)
    return record


def _write(moved: RunMigration, run: RunDir, progress: Progress) -> dict[str, Any]:
    begin = time.monotonic()
    run.root.mkdir()
    checks = _write_checkpoint(moved, run, progress)
    _write_history(moved, run)
    run.logs.mkdir()
    if moved.source.tokenizer.is_dir():
        run.tokenizer.mkdir()
        completion.copy(moved.source.tokenizer, run.tokenizer)
    if moved.source.stream.is_dir():  # the files of the stream, and what was fed
        shutil.copytree(moved.source.stream, run.stream)
    moved.plan.save(run.plan)
    record = _record(moved, checks, time.monotonic() - begin)
    write_json(run.migration, record)
    return record


def _check_folders(source: RunDir, before: Plan, to: str, folder: Path) -> None:
    if before.with_bridge == (to == BRIDGE):
        raise UsageError(f"the run in {source.root} is already trained with {TITLES[to]}")
    if folder.exists():
        raise UsageError(f"{folder} exists; use another --output")
    inside = folder.resolve()
    if source.root.resolve() in inside.parents:
        raise UsageError(f"{folder} is in the run folder {source.root} itself; use another --output")


def _as_if_moved(
    facts: EarlierRun, source: RunDir, folder: Path, before: Plan, checkpoint: Migration
) -> EarlierRun:
    """Return what planning will see in the new folder."""
    return dataclasses.replace(
        facts,
        last_checkpoint=str(folder / "checkpoints" / _name(before, checkpoint)),
        next_step=checkpoint.progress.step,
        saved=saved_run(source),
    )


def _name(before: Plan, checkpoint: Migration) -> str:
    """Return the name that the framework gives to a checkpoint: NeMo's begins with the model's."""
    progress = checkpoint.progress
    if checkpoint.to == BRIDGE:
        return f"iter_{progress.step:07d}"
    return f"{before.checkpoint_prefix}--step={progress.step - 1}-consumed_samples={progress.samples}.0"


def _releases(plan: Plan) -> dict[str, str]:
    """Return the releases that will train, as far as the plan knows them."""
    from nemolaunch.catalogue.containers import container, nemo_tag

    launch = plan.job.launch
    if launch.runtime is None:
        return dict(plan.versions or installed_versions())
    tag = nemo_tag(launch.container_image)
    image = container(tag) if tag else None
    if image is None:
        return {}
    found = (
        {"megatron-bridge": image.megatron_bridge, "megatron-core": image.megatron}
        if plan.with_bridge
        else {"nemo_toolkit": image.nemo, "megatron-core": image.megatron}
    )
    return {name: release for name, release in found.items() if release}


@contextmanager
def _idle(source: RunDir) -> Iterator[None]:
    """Hold the run that is moved, so that it does not go on meanwhile; one that cannot be written cannot."""
    running = sorted(processes.members(source.root))
    if running:
        raise NemolaunchError(
            f"a job is running in {source.root} (process {running[0]}); end it first: nemolaunch cancel {source.root}"
        )
    lock: Any = RunLock(source.lock) if os.access(source.root, os.W_OK) else None
    if lock is not None:
        lock.take()
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _write_checkpoint(moved: RunMigration, run: RunDir, progress: Progress) -> list[Any]:
    checkpoint = moved.checkpoint
    output = run.checkpoints
    output.mkdir()
    if checkpoint.to == NEMO2:
        output = run.checkpoints / _name(moved.before, checkpoint)
        output.with_name(f"{output.name}-last").symlink_to(output.name)
    label = "copying" if checkpoint.disk_bytes(run.root) else "linking"
    with progress(label, checkpoint.nbytes) as advance:
        checkpoint.write(output, advance)
    with progress("verifying", checkpoint.nbytes) as advance:
        checks = checkpoint.verify(output, advance)
    wrong = [f"\n  {check.name}: {line}" for check in checks for line in check.differences[:4]]
    if wrong:
        raise NemolaunchError(
            f"the result does not match the source, so nothing was written:{''.join(wrong)}"
        )
    return checks


def _write_history(moved: RunMigration, run: RunDir) -> None:
    """Copy the metrics up to the checkpoint: the report then shows one curve, with a mark where the run was moved."""
    step = moved.checkpoint.progress.step
    rows = [row for row in metrics.current(metrics.read(moved.source.metrics)) if row["step"] <= step]
    text = f"moved from {TITLES[_other(moved.checkpoint.to)]} ({moved.source.root}) to {TITLES[moved.checkpoint.to]}"
    mark = {"event": metrics.MIGRATED, "step": step, "time": time.time(), "text": text}
    metrics.write(run.metrics, [*rows, mark])
    evaluations = [row for row in metrics.read(moved.source.evaluations) if row["step"] <= step]
    if evaluations:
        metrics.write(run.evaluations, evaluations)
    if moved.source.finished.is_file() and moved.plan.max_steps <= step:
        shutil.copyfile(moved.source.finished, run.finished)


def _record(moved: RunMigration, checks: list[Any], seconds: float) -> dict[str, Any]:
    identity = folder_identity.read(moved.source.root)
    about = {
        "from": str(moved.source.root),
        "id": identity.id if identity else None,
        "checkpoint": str(moved.checkpoint.folder.path),
        "to": moved.checkpoint.to,
        "step": moved.checkpoint.progress.step,
        "samples": moved.checkpoint.progress.samples,
        "versions": {"before": moved.before.versions, "after": moved.plan.versions},
        "title": moved.checkpoint.title,
        "items": [dataclasses.asdict(item) for item in moved.items],
    }
    return report.content(about, checks, {"write and verify": seconds})


def _other(to: str) -> str:
    return NEMO2 if to == BRIDGE else BRIDGE


def _carried(moved: RunMigration) -> Iterator[Item]:
    checkpoint, plan = moved.checkpoint, moved.plan
    progress = checkpoint.progress
    size = checkpoint.nbytes / 2**30
    linked = (
        "linked, no tensor is read"
        if not checkpoint.disk_bytes(plan.run.root)
        else "copied to another file system"
    )
    yield Item(
        "model and optimizer",
        "carried",
        f"{len(checkpoint.stored.tensors):,} tensors, {size:.2f} GiB, {linked}",
    )
    yield Item("step", "carried", f"{progress.step:,} of {plan.max_steps:,}")
    stream = progress.stream
    place = "" if stream is None else f", from where {len(stream['readers'])} readers are in their rows"
    yield Item("place in the data", "carried", f"sample {progress.samples:,} of the same order{place}")
    prefixes = (
        [prefix for _, prefix in plan.blend] if stream is None else [str(name) for name in stream["names"]]
    )
    files = ", ".join(prefixes[:2]) + (", …" if len(prefixes) > 2 else "")
    yield Item("data", "carried", f"{files}; split {plan.job.data.split}")
    if plan.validation_sets:
        yield Item("validation sets", "carried", ", ".join(each.name for each in plan.validation_sets))
    yield Item("tokenizer", "carried", str(plan.tokenizer or plan.job.model.hf_model_id))
    yield Item("learning rate", "carried", f"{plan.schedule.lr:g}, {plan.schedule.sentence}")
    g = plan.job.guards
    yield Item(
        "guards",
        "carried",
        f"not finite: {g.on_not_finite}, loss spike: {g.on_loss_spike}, slowness: {g.on_slowness}",
    )
    rows = sum(1 for row in metrics.rows(moved.source.metrics) if row["step"] <= progress.step)
    yield Item("history", "carried", f"{rows:,} rows of metrics: the report shows one curve")


def _left(moved: RunMigration) -> Iterator[Item]:
    yield Item("state of random numbers", "left", "matters with dropout only")
    others = len(moved.source.complete_checkpoints()) - 1
    if others > 0:
        yield Item("older checkpoints", "left", f"{others} remain in {moved.source.checkpoints}")
    yield Item("TensorBoard events, logs, traces", "left", f"remain in {moved.source.root}")
    logging = moved.before.job.logging
    for name, used in (("W&B", logging.wandb), ("MLflow", logging.mlflow)):
        if used:
            yield Item(f"{name} run", "left", "a new one is begun: it belongs to the folder of a run")


def _differences(moved: RunMigration) -> Iterator[Item]:
    before, plan = moved.before, moved.plan
    yield Item(
        "trained with", "differs", f"{TITLES[_other(moved.checkpoint.to)]} → {TITLES[moved.checkpoint.to]}"
    )
    if (
        before.job.launch.container_image != plan.job.launch.container_image
        and plan.job.launch.runtime is not None
    ):
        yield Item(
            "image", "differs", f"{before.job.launch.container_image} → {plan.job.launch.container_image}"
        )
    for sentence in bridge_models.differences(plan.model_row, plan.seq_length):
        yield Item("model", "differs", sentence)
    for sentence in moved.checkpoint.changed:
        yield Item("checkpoint", "differs", sentence)


def no_progress(label: str, total_bytes: int) -> AbstractContextManager[Advance]:
    """Show no progress."""
    return nullcontext(lambda count: None)
