"""The releases of NeMo and Megatron-Core that will train the job: whether they work together and with the job."""

from __future__ import annotations

from collections.abc import Iterator

from nemolaunch.catalogue.containers import Container, containers, nearest_known, newest_with_nemo2
from nemolaunch.catalogue.version_pairs import field_since, judge, nearest_proven, recipe_since, release
from nemolaunch.check.support import each, error, fix, flag, shown, warning
from nemolaunch.findings import Finding, Fix
from nemolaunch.job.settings import path_of
from nemolaunch.resolve import Resolved
from nemolaunch.resolve.backend import BRIDGE, trains_with_bridge
from nemolaunch.resolve.settings import PREFIX
from nemolaunch.resolve.software import Software, software


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Check the container's releases, or the installed ones. `backend` checks those of Megatron-Bridge."""
    if trains_with_bridge(resolved.job):
        return
    found = software(resolved.job, resolved.facts)
    if found is None:
        return
    container = found.container
    if container is not None and not container.nemo2:
        yield _without_nemo2(resolved, container)
        return
    if found.nemo is None or found.megatron is None:
        yield _unknown(resolved, found)
        if found.nemo is not None:
            yield from _recipe(resolved, found, found.nemo)
        return
    yield from _pair(found, found.nemo, found.megatron)
    yield from _recipe(resolved, found, found.nemo)
    yield from _fields(resolved, found, found.nemo, found.megatron)


def _without_nemo2(resolved: Resolved, container: Container) -> Finding:
    newest = newest_with_nemo2()
    return error(
        "image-without-nemo2",
        f"{shown('container_image', resolved.job.launch.container_image)} has no NeMo 2 for LLMs that works "
        f"(nemo.collections.llm), which trains the recipe; the last container that has it is {newest.image} "
        f"[{container.source}]",
        *each("container_image", [newest.image]),
        *each("backend", [BRIDGE] if container.megatron_bridge else []),
    )


def _unknown(resolved: Resolved, found: Software) -> Finding:
    near = nearest_known(found.tag or "")
    releases = (("NeMo", found.nemo), ("Megatron-Core", found.megatron))
    unknown = " and ".join(name for name, known in releases if known is None)
    known = "".join(f" (with {name} {known})" for name, known in releases if known is not None)
    return warning(
        "image-unknown",
        f"{shown('container_image', resolved.job.launch.container_image)}{known}: its release of {unknown} is "
        f"not known, so the job is not checked against it; the nearest known container is {near.image}, with NeMo "
        f"{near.nemo} and Megatron-Core {near.megatron}",
        *each("container_image", [near.image]),
    )


def _pair(found: Software, nemo: str, megatron: str) -> Iterator[Finding]:
    verdict = judge(nemo, megatron)
    pair = f"NeMo {nemo} with Megatron-Core {megatron}"
    if verdict.pair and verdict.pair.fails:
        yield error(
            "versions-incompatible",
            f"{_where(found)} has {pair}, which fails on import: {verdict.pair.fails}; "
            "`pip install -c constraints.txt 'nemolaunch[train]'` installs releases that work together",
        )
    elif verdict.status != "works":
        known = "can be imported, but was never trained" if verdict.status == "imports" else "was never tried"
        yield warning(
            "versions-untested",
            f"{_where(found)} has {pair}, which {known}; the nearest tested pair is {nearest_proven(nemo, megatron)}",
        )


def _recipe(resolved: Resolved, found: Software, nemo: str) -> Iterator[Finding]:
    recipe = resolved.model.recipe.name
    since = recipe_since(recipe)
    if since is None or release(nemo) >= release(since):
        return
    yield error(
        "recipe-not-in-release",
        f"{shown('model_name', resolved.job.model.model_name)} needs the recipe {recipe}, which came with NeMo "
        f"{since}; {_where(found)} has NeMo {nemo}",
        *_newer_images(found, nemo=since),
    )


def _fields(resolved: Resolved, found: Software, nemo: str, megatron: str) -> Iterator[Finding]:
    """Yield settings, and fields of a model file, that these releases do not have."""
    set_paths = {path_of(word): word for word in resolved.job.recipe.set}
    own = {f"{PREFIX}{name}": f"`{name}` of {resolved.model.source}" for name in resolved.model.overrides}
    for path, what in {**own, **{path: f"{flag('set')} {word}" for path, word in set_paths.items()}}.items():
        since = field_since(path, nemo, megatron)
        if since is None:
            continue
        without = [word for word in resolved.job.recipe.set if path_of(word) != path]
        yield error(
            "field-not-in-release",
            f"{what}: {path} came with {since}; {_where(found)} has NeMo {nemo} and Megatron-Core {megatron}",
            *_newer_images(found, nemo="2.6"),
            *([fix(set=tuple(without))] if path in set_paths else []),
        )


def _newer_images(found: Software, nemo: str) -> tuple[Fix, ...]:
    """Return fixes that use the oldest container with this NeMo or a newer one; none outside a container."""
    newer = [c for c in containers() if c.nemo2 and c.nemo and release(c.nemo) >= release(nemo)]
    return each("container_image", [newer[0].image]) if found.tag and newer else ()


def _where(found: Software) -> str:
    return f"nvcr.io/nvidia/nemo:{found.tag}" if found.tag else "this environment"
