"""The final plan: every value resolved, with its origin. It is saved in the run folder."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemolaunch import catalogue
from nemolaunch.arithmetic.ramp import BatchSizes, batch_sizes_of
from nemolaunch.arithmetic.schedule import Schedule, schedule_of
from nemolaunch.check import check
from nemolaunch.data.blend import Share
from nemolaunch.data.stream_budget import Outlook
from nemolaunch.data.validation_sets import ValidationSet
from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.estimate import Estimate, SpeedAssumption, estimate
from nemolaunch.facts import Facts, installed_versions, look, run_folder
from nemolaunch.facts.container_engine import ContainerHost
from nemolaunch.facts.saved_values import saved_values
from nemolaunch.facts.submission import Submission
from nemolaunch.findings import Finding, apply_force, by_severity, errors
from nemolaunch.job import SECRETS, Job
from nemolaunch.planning import capacity, fix_ranking, html
from nemolaunch.planning import environment as training_environment
from nemolaunch.planning.variables import environment, given_variables
from nemolaunch.resolve import Resolved, resolve
from nemolaunch.resolve import dev_run as dev_runs
from nemolaunch.resolve.backend import interpreter_of, trains_with_bridge
from nemolaunch.resolve.model import model_of
from nemolaunch.resolve.resuming import Resumption
from nemolaunch.resolve.shrinkage import shrinkage
from nemolaunch.resolve.software import patches_of, software
from nemolaunch.run.folder import RunDir
from nemolaunch.system import folder_identity
from nemolaunch.system.atomic_files import write_json
from nemolaunch.system.json_files import read_json
from nemolaunch.system.plain_values import misfit
from nemolaunch.system.quantities import counted

FORMAT = 1


class PlanError(NemolaunchError):
    """A plan that cannot run; its errors are in `findings`."""

    def __init__(self, findings: tuple[Finding, ...]) -> None:
        lines = "".join(f"\n  {finding}" for finding in findings)
        super().__init__(f"the job has {counted(len(findings), 'error')}; nothing was started{lines}")
        self.findings = findings


@dataclass(frozen=True, kw_only=True, repr=False)
class Plan:
    """A job as it will run. Ranks need nothing else to compile it, on any machine.

    Attributes:
        job: the resolved job, without secrets.
        recipe: name of the NeMo 2 recipe it is compiled from.
        overrides: fields of the NeMo model configuration that differ from the recipe's.
        blend: (weight or None, absolute prefix) pairs.
        blend_tokens: tokens of each of these data files.
        validation_sets: named data that each validation evaluates.
        index_folder: folder of Megatron's index, different for other data; None for a stream, or a plan of version 0.2.
        digests: prefix of each data file → digest of its content.
        ledger: what the run reads from each source of its data, if there are several.
        stream: sources of a stream of rows, as serialised by `nemolaunch.data.stream_spec`; None for indexed data.
        outlook: what the run reads from each of them, if known.
        tokenizer: folder of the tokenizer, or None if it must be downloaded from the hub.
        end_tokens: ids that end documents, as recorded with the data.
        environment: variables of the training processes, overridden by exported ones.
        variables: variables set by flags, which override exported ones.
        origins: where values come from; a value without an origin is the default of its flag.
        left_out: features that the device cannot rehearse.
        shrunk: what a dev run shrank, as `layers 16 → 2`.
        resumes: the earlier training that the job continues, if any.
        computed: fields of the job that were not given.
        converted: given fields that others express in another unit: field name → value as given.
        submission: what the batch script needs to know about this machine, if the job is for Slurm.
        python: interpreter that trains, if it is neither the one that plans nor a container's.
        container: what a container's command line needs to know about it, if the job runs in one here.
        patches: changes to NeMo and Megatron in the training processes that their releases need.
        versions: of nemolaunch, Python and the libraries that train, once the plan is saved.
        estimate: memory, time and disk.
        forced: codes of the errors that were ignored with `--force`.
    """

    job: Job
    folder: str
    device: str
    world_size: int
    data_parallel_size: int
    model: str
    model_source: str
    recipe: str
    architecture: dict[str, Any]
    overrides: dict[str, Any]
    blend: tuple[tuple[float | None, str], ...]
    epoch_samples: int
    tokenizer: str | None
    environment: dict[str, str]
    origins: dict[str, str]
    left_out: tuple[str, ...]
    index_folder: str | None = None
    digests: dict[str, str] = field(default_factory=dict)
    ledger: tuple[Share, ...] = ()
    blend_tokens: tuple[int, ...] = ()
    validation_sets: tuple[ValidationSet, ...] = ()
    end_tokens: tuple[int, ...] = ()
    stream: dict[str, Any] | None = None
    outlook: tuple[Outlook, ...] = ()
    resumes: Resumption | None = None
    computed: tuple[str, ...] = ()
    converted: dict[str, Any] = field(default_factory=dict)
    submission: Submission | None = None
    container: ContainerHost | None = None
    versions: dict[str, str] = field(default_factory=dict, compare=False)
    findings: tuple[Finding, ...] = field(default=(), compare=False)
    estimate: Estimate | None = field(default=None, compare=False)
    forced: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)
    python: str | None = None
    patches: tuple[str, ...] = field(default=(), compare=False)
    shrunk: tuple[str, ...] = field(default=(), compare=False)

    def __repr__(self) -> str:
        found = [counted(len(errors(self.findings)), "error")] if errors(self.findings) else []
        where = self._processes()
        steps = f"{self.max_steps} steps" if self.job.batch.max_steps else "steps not known"
        return f"<Plan {self.folder!r}: {', '.join([self.model, where, steps, *found])}>"

    def _repr_html_(self) -> str:
        """Return the plan as a table, for notebooks."""
        data = {"data": self.data_parallel_size} if self.data_parallel_size > 1 else {}
        sizes = {**self.model_parallel_sizes, **data}
        found = len(errors(self.findings))
        rows = [
            ("Verdict", counted(found, "error") if found else "ready to launch"),
            (
                "Model",
                f"{self.model} ({self.model_source}), "
                + ("for Megatron-Bridge" if self.with_bridge else f"NeMo recipe {self.recipe}"),
            ),
            (
                "Runs on",
                self._processes() + (", a rehearsal" if self.device == "cpu" else ""),
            ),
            (
                "Parallel sizes",
                ", ".join(f"{name} {size}" for name, size in sizes.items()) or "none",
            ),
            ("Run folder", self.folder),
        ]
        if self.job.batch.max_steps and self.job.data.seq_length:
            rows.append(("Steps", f"{self.max_steps:,} of {self.tokens_per_step:,} tokens"))
            rows.append(("Learning rate", f"{self.schedule.lr:g}, {self.schedule.sentence}"))
        if self.estimate is not None:
            rows += html.estimate_rows(self.estimate)
        return html.table(rows, self.findings)

    def _processes(self) -> str:
        one, many = ("CPU process", "CPU processes") if self.device == "cpu" else ("GPU", "GPUs")
        return counted(self.world_size, one, many)

    def raise_for_errors(self) -> None:
        """Raise PlanError, whose message lists them, if the plan has errors."""
        found = errors(self.findings)
        if found:
            raise PlanError(found)

    @property
    def model_row(self) -> catalogue.ModelSpec:
        """The model as it was planned, even if the file that described it has changed since."""
        architecture: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in self.architecture.items()
        }
        try:
            known = catalogue.Architecture(**architecture)
        except TypeError as error:
            raise NemolaunchError(f"the plan of {self.folder} does not describe a model: {error}") from None
        return catalogue.ModelSpec(
            name=self.model,
            recipe=catalogue.recipe(self.recipe),
            architecture=known,
            overrides=dict(self.overrides),
            source=self.model_source,
        )

    @property
    def with_bridge(self) -> bool:
        """Whether Megatron-Bridge trains it, instead of NeMo 2."""
        return trains_with_bridge(self.job)

    @property
    def entry(self) -> str:
        """The module that each training process runs, with the plan file as its argument."""
        return "nemolaunch.bridge.entry" if self.with_bridge else "nemolaunch.nemo2.entry"

    @property
    def run(self) -> RunDir:
        """The run folder."""
        return RunDir(Path(self.folder))

    @property
    def checkpoint_prefix(self) -> str:
        """How NeMo's names of the run's checkpoints begin."""
        return re.sub(r"[^A-Za-z0-9._]+", "-", self.model)

    @property
    def outlives_its_command(self) -> bool:
        """Whether it outlives the command that started it: on Slurm and in a container."""
        return self.submission is not None or self.container is not None

    @property
    def evaluates(self) -> bool:
        """Whether its checkpoints are evaluated beside the run."""
        return self.job.logging.sample_every is not None or self.job.logging.eval_every is not None

    @property
    def tokens_per_step(self) -> int:
        """Tokens in a global batch; the first steps of a ramp have fewer."""
        return self.job.batch.global_batch_size * self.seq_length

    @property
    def batch_sizes(self) -> BatchSizes:
        """The global batch size of each step."""
        sizes, done = batch_sizes_of(self.job.values()), self.resumes
        if done is None or done.samples is None:
            return sizes
        return dataclasses.replace(sizes, done_steps=done.step, done_samples=done.samples)

    @property
    def model_parallel_sizes(self) -> dict[str, int]:
        """Sizes above 1 of the parallel groups that split the model: tensor, pipeline, context, expert."""
        parallel = self.job.parallelism
        sizes = {
            "tensor": parallel.tensor_model_parallel_size,
            "pipeline": parallel.pipeline_model_parallel_size,
            "context": parallel.context_parallel_size,
            "expert": parallel.expert_model_parallel_size,
        }
        return {name: size for name, size in sizes.items() if size > 1}

    @property
    def max_steps(self) -> int:
        """Optimizer steps."""
        return _resolved(self.job.batch.max_steps)

    @property
    def seq_length(self) -> int:
        """Tokens per sequence."""
        return _resolved(self.job.data.seq_length)

    @property
    def schedule(self) -> Schedule:
        """The learning rate of each step."""
        found = schedule_of(self.job.values())
        assert found is not None  # `resolve` fills in what it needs
        return found

    @property
    def num_gpus(self) -> int:
        """Processes per node."""
        return _resolved(self.job.launch.num_gpus)

    @property
    def is_private(self) -> bool:
        """Whether the files that hold the plan are for the user only: `--env` may hold anything."""
        return any("=" in word for word in self.job.launch.env)

    def save(self, path: Path | None = None) -> Path:
        """Write the plan atomically as JSON. Return the file's path."""
        if path is None:
            path = self.run.plan
            self._identify()
        content = {"format": FORMAT, "values": self.job.values(), **dataclasses.asdict(self)}
        del content["job"]
        content["findings"] = [str(f) for f in self.findings]
        content["versions"] = self.versions or installed_versions()
        write_json(path, content, private=self.is_private)
        return path

    def _identify(self) -> None:
        """Give the run folder its identity, if it has none or is a copy."""
        self.run.root.mkdir(parents=True, exist_ok=True)
        # a run of a version before 0.4 continues its W&B run, whose id was this
        earlier = hashlib.sha256(self.folder.encode()).hexdigest()[:16] if self.run.plan.exists() else None
        folder_identity.claim(self.run.root, earlier)

    @classmethod
    def of_run(cls, run: RunDir) -> Plan:
        """Return the plan in a run folder, with its current paths: the folder may have been moved or copied.

        Raises:
            NemolaunchError: the plan cannot be read, or is not a plan of this format.
        """
        plan = cls.load(run.plan)
        here = Path(plan.folder).exists() and Path(plan.folder).samefile(run.root)
        return plan if here else plan.moved_to(run.root)

    def moved_to(self, folder: Path) -> Plan:
        """Return the plan with another run folder, and with the paths of the job's files inside it."""
        old, new = self.folder, str(folder.absolute())

        def moved(value: Any) -> Any:
            if isinstance(value, (list, tuple)):
                return type(value)(map(moved, value))
            inside = isinstance(value, str) and (value == old or value.startswith(old + os.sep))
            return new + value[len(old) :] if inside else value

        values = {name: moved(value) for name, value in self.job.values().items()}
        return dataclasses.replace(
            self,
            folder=new,
            job=Job().with_values(**values),
            tokenizer=moved(self.tokenizer),
            blend=tuple((weight, moved(prefix)) for weight, prefix in self.blend),
            index_folder=moved(self.index_folder),
        )

    @classmethod
    def load(cls, path: Path) -> Plan:
        """Read a saved plan. Findings and the estimate are not restored: they only applied when it was made.

        Raises:
            NemolaunchError: the plan cannot be read, or is not a plan of this format.
        """
        try:
            content = read_json(path)
        except OSError as error:
            raise NemolaunchError(f"cannot read the plan {path}: {error.strerror}") from None
        except ValueError as error:
            raise NemolaunchError(f"{path} is not a plan.json: {error}; --config takes YAML files") from None
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise NemolaunchError(f"{path} is not a plan of format {FORMAT}")
        content.update(findings=(), estimate=None)
        try:
            content["job"] = Job().with_values(**(saved_values(content) or {}))
            del content["values"]
            content["blend"] = tuple(tuple(pair) for pair in content["blend"])
            content["ledger"] = tuple(Share(**row) for row in content.get("ledger", ()))
            content["outlook"] = tuple(Outlook(**row) for row in content.get("outlook", ()))
            content["blend_tokens"] = tuple(content.get("blend_tokens", ()))
            content["validation_sets"] = tuple(
                ValidationSet(**{**row, "prefixes": tuple(row["prefixes"])})
                for row in content.get("validation_sets", ())
            )
            content["left_out"] = tuple(content["left_out"])
            content["end_tokens"] = tuple(content.get("end_tokens", ()))
            content["forced"] = tuple(content.get("forced", ()))
            content["computed"] = tuple(content.get("computed", ()))
            content["patches"] = tuple(content.get("patches", ()))
            content["shrunk"] = tuple(content.get("shrunk", ()))
            if content.get("resumes"):
                content["resumes"] = Resumption(**content["resumes"])
            if content.get("submission"):
                content["submission"] = Submission(**content["submission"])
            if content.get("container"):
                row = content["container"]
                folders = {name: tuple(row[name]) for name in ("links", "stream_folders")}
                content["container"] = ContainerHost(**{**row, **folders})
            plan = cls(**content)
            wrong = misfit(plan)
        except (LookupError, TypeError, ValueError, AttributeError, UsageError) as error:
            raise NemolaunchError(f"{path} is not a complete plan: {error}") from None
        if wrong:
            raise NemolaunchError(f"{path} is not a complete plan: {wrong} is {getattr(plan, wrong)!r}")
        return plan


def _resolved(value: int | None) -> int:
    """Return a value that `resolve` fills in."""
    assert value is not None
    return value


def make_plan(
    job: Job,
    *,
    dev_run: bool = False,
    facts: Facts | None = None,
    given: Mapping[str, str] | None = None,
    model: catalogue.ModelSpec | None = None,
    speed: SpeedAssumption | None = None,
    force: Collection[str] = (),
    starts: bool = False,
) -> Plan:
    """Gather facts, resolve, check and estimate. Return the plan.

    Args:
        given: origins of given values: field name → `flag` or a file.
        model: the model, if it is not to be looked up by the job's `model_name`.
        speed: assumptions about the time a step takes.
        force: codes of errors to ignore.
        starts: whether the job is about to start from this machine, and therefore must fit it.

    Raises:
        UsageError: only if there is nothing to plan: the model or the GPU does not exist.
    """
    if dev_run:
        job = dev_runs.renamed(job)
    facts = facts or look(job)
    model = model or model_of(job, facts.tokenizer)
    resolved = resolve(job, model, facts, given)
    estimated = estimate(resolved, speed or SpeedAssumption())
    found = judged(resolved, estimated, starts=starts)
    sizes: tuple[str, ...] = ()
    if dev_run:
        full, small = resolved, dev_runs.shrunk(job, model, facts)
        resolved = resolve(small.job, small.model, small.facts, dev_runs.origins(given or {}, job, small.job))
        sizes = shrinkage(full, resolved)
        resolved = dataclasses.replace(resolved, left_out=resolved.left_out + small.left_out)
        estimated = estimate(resolved, speed or SpeedAssumption())
        found = dev_runs.findings(found, judged(resolved, estimated, starts=starts))
    plan = compose(resolved, by_severity(apply_force(found, force)), estimated)
    return dataclasses.replace(plan, shrunk=sizes)


def judged(resolved: Resolved, estimated: Estimate | None, *, starts: bool = False) -> list[Finding]:
    """Return all findings, from the rules and from the estimates, each with its best fix first."""
    found = check(resolved)
    found += training_environment.findings(resolved, starts=starts)
    found += capacity.findings(resolved, estimated, found, starts=starts)
    return fix_ranking.ordered(found, resolved)


def compose(resolved: Resolved, findings: tuple[Finding, ...], estimated: Estimate | None = None) -> Plan:
    """Return the plan of a resolved job."""
    job, model = resolved.job, resolved.model
    tokenizer = resolved.facts.tokenizer
    return Plan(
        job=job.with_values(**dict.fromkeys(SECRETS)),
        folder=str(run_folder(job).root),
        device=resolved.device,
        world_size=resolved.world_size,
        data_parallel_size=resolved.data_parallel_size,
        model=model.name,
        model_source=model.source,
        recipe=model.recipe.name,
        architecture=dataclasses.asdict(model.architecture),
        overrides=dict(model.overrides),
        blend=resolved.blend,
        index_folder=resolved.index_folder,
        digests={f.prefix: f.digest for f in resolved.facts.data_files if f.digest},
        ledger=resolved.ledger,
        blend_tokens=tuple(file.num_tokens for file in resolved.facts.data),
        validation_sets=resolved.validation_sets,
        end_tokens=tuple(sorted({f.end_token for f in resolved.facts.data if f.end_token is not None})),
        stream=resolved.stream.as_values() if resolved.stream else None,
        outlook=resolved.outlook,
        epoch_samples=resolved.epoch_samples,
        tokenizer=tokenizer.folder if tokenizer else None,
        environment=environment(resolved),
        variables=given_variables(job),
        origins=resolved.origins,
        left_out=resolved.left_out,
        resumes=resolved.resumes,
        computed=tuple(sorted(resolved.computed)),
        converted=dict(resolved.converted),
        patches=() if trains_with_bridge(job) else _patches(resolved),
        python=interpreter_of(job, resolved.facts),
        versions=_versions(resolved),
        submission=resolved.facts.submission if job.launch.executor == "slurm" else None,
        container=resolved.facts.container if job.launch.engine else None,
        findings=findings,
        estimate=estimated,
        forced=tuple(sorted({finding.code for finding in findings if finding.forced})),
    )


def _patches(resolved: Resolved) -> tuple[str, ...]:
    what = software(resolved.job, resolved.facts)
    return tuple(map(str, patches_of(what, resolved.model.recipe.model_class)))


def _versions(resolved: Resolved) -> dict[str, str]:
    """Return the releases in the environment that trains, as far as planning knows them; {} if it is this one."""
    found = resolved.facts.interpreter
    if found is None or interpreter_of(resolved.job, resolved.facts) is None:
        return {}
    here = {"nemolaunch": installed_versions().get("nemolaunch")}
    seen = {**here, "megatron-bridge": found.bridge, "megatron-core": found.megatron}
    return {name: release for name, release in seen.items() if release is not None}
