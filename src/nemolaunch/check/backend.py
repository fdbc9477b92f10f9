"""Whether Megatron-Bridge can train the job, where it is chosen: its environment, the model, and every field."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nemolaunch.catalogue import bridge_models
from nemolaunch.catalogue.containers import containers
from nemolaunch.catalogue.version_pairs import bridge_pair, bridge_pairs
from nemolaunch.check.support import error, fix, flag, note, shown, sizes, warning, without
from nemolaunch.findings import Finding, Fix
from nemolaunch.resolve import Resolved
from nemolaunch.resolve.backend import BRIDGE, NEMO2, image_of, trains_with_bridge
from nemolaunch.run.folder import is_bridge


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Check a job that Megatron-Bridge trains."""
    yield from _checkpoint(resolved)
    if not trains_with_bridge(resolved.job):
        yield from _only_bridge(resolved)
        yield from _without_effect(resolved)
        return
    yield from _environment(resolved)
    yield from _model(resolved)


def _only_bridge(resolved: Resolved) -> Iterator[Finding]:
    if resolved.model.recipe.bridge_provider:
        yield error(
            "bridge-only",
            f"NeMo 2 has no model {resolved.model.recipe.name}; Megatron-Bridge has",
            fix(backend=BRIDGE),
        )


def _without_effect(resolved: Resolved) -> Iterator[Finding]:
    given = resolved.job.launch.python
    if given is not None:
        yield error(
            "python-without-bridge",
            f"{shown('python', given)} is the interpreter that has Megatron-Bridge, and this job is trained with NeMo "
            f"2, by the interpreter of this command",
            without(resolved, "python"),
        )


def _environment(resolved: Resolved) -> Iterator[Finding]:
    if resolved.job.launch.runtime is not None:
        yield from _image(resolved)
    found = resolved.facts.interpreter
    if found is None:
        return
    why = found.error or (None if found.bridge else "its environment has no Megatron-Bridge")
    if why:
        yield error(
            "bridge-missing",
            f"{shown('backend', 'bridge')} would train with {found.path}, but {why}; `make install-bridge` in a clone "
            f"builds an environment that has it, whose interpreter is for --python",
            fix(backend=NEMO2, python=None) if resolved.job.launch.python else fix(backend=NEMO2),
        )
        return
    yield from _releases(found.path, found.bridge, found.megatron)


def _image(resolved: Resolved) -> Iterator[Finding]:
    """Check the image of a job: what runs in it is not that of this machine, and `python` is on its path."""
    launch = resolved.job.launch
    if launch.python is not None:
        yield error(
            "python-without-bridge",
            f"{shown('python', launch.python)} has no effect: the job runs in a container, with the interpreter of "
            f"its image",
            without(resolved, "python"),
        )
    image = image_of(resolved.job)
    if image is None or image.megatron_bridge is None:
        yield warning(
            "bridge-untested",
            f"{shown('container_image', launch.container_image)}: its releases of Megatron-Bridge and Megatron-Core "
            f"are not known; tested are {_tested()}",
        )
    else:
        newest = [one.image for one in containers() if one.megatron_bridge][-1]
        yield from _releases(image.image, image.megatron_bridge, image.megatron, fix(container_image=newest))


def _tested() -> str:
    return ", ".join(str(pair) for pair in bridge_pairs() if pair.fails is None)


def _releases(where: str, bridge: str | None, megatron: str | None, *fixes: Fix) -> Iterator[Finding]:
    pair = bridge_pair(bridge, megatron)
    have = {"Megatron-Bridge": bridge, "Megatron-Core": megatron}
    found = " and ".join(f"{name} {has}" for name, has in have.items() if has)
    if pair is None:
        yield warning("bridge-untested", f"{where} has {found}; tested are {_tested()}")
    elif pair.fails is not None:
        text = f"{where} has {found}, which does not train: {pair.fails}; tested are {_tested()}"
        yield error("bridge-too-old", text, fix(backend=NEMO2), *fixes)


def _model(resolved: Resolved) -> Iterator[Finding]:
    why = bridge_models.refusal(resolved.model)
    if why:
        yield error(
            "bridge-model",
            f"{shown('model_name', resolved.job.model.model_name)}: {why} ({flag('backend')} bridge)",
            fix(backend=NEMO2),
        )
        return
    for sentence in bridge_models.differences(resolved.model, resolved.job.data.seq_length or 0):
        yield note("bridge-differs", f"{shown('model_name', resolved.job.model.model_name)}: {sentence}")
    yield from _balance(resolved)


def _balance(resolved: Resolved) -> Iterator[Finding]:
    """Report where the loss that balances experts has another weight, compared with Megatron-Core 0.15.

    Core 0.19 multiplies it so that its weight does not depend on the layout
    (`TopKRouter.attach_and_log_load_balancing_loss`, `forward_step_calc_loss`).
    """
    if not resolved.model.architecture.num_moe_experts:
        return
    job, size = resolved.job, sizes(resolved)
    over_tokens = job.objective.objective == "mlm" or job.data.eod_mask_loss
    factor, names = size.cp, ["context_parallel_size"]
    if over_tokens:  # which the loss is the mean of
        factor, names = factor * size.tp, ["tensor_model_parallel_size", *names]
    if factor > 1:
        layout = ", ".join(shown(name, job.get(name)) for name in names if job.get(name) > 1)
        yield note(
            "bridge-differs",
            f"{layout}: the loss that balances experts weighs {factor} times as much as with NeMo 2, which divides it "
            "by the ranks of this layout",
        )


def _checkpoint(resolved: Resolved) -> Iterator[Finding]:
    """Yield an error if the run would continue from a checkpoint of its own that its backend cannot read."""
    run, resume = resolved.facts.run, resolved.job.checkpoint.resume
    if run.last_checkpoint is None or resume == "never":
        return
    last = Path(run.last_checkpoint)
    wrote, other = (BRIDGE, "NeMo 2") if is_bridge(last) else (NEMO2, "Megatron-Bridge")
    if (wrote == BRIDGE) != trains_with_bridge(resolved.job):
        yield error(
            "checkpoint-of-other-backend",
            f"the run in {run.folder} has the checkpoint {last.name}, which {other} cannot read: it was trained with "
            f"{flag('backend')} {wrote}. `nemolaunch migrate {run.folder} --to {NEMO2 if wrote == BRIDGE else BRIDGE}` "
            "makes a run that continues it",
            fix(backend=wrote),
            fix(resume="never"),
        )
