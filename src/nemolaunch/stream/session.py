"""One start of a run on a stream: its files, position and seed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from nemolaunch.data.stream_budget import validation_share
from nemolaunch.data.stream_spec import StreamSpec, shares, with_text_key
from nemolaunch.errors import NemolaunchError
from nemolaunch.job import Job
from nemolaunch.run.folder import RunDir
from nemolaunch.stream import ledger, manifest
from nemolaunch.stream.cursor import Rules
from nemolaunch.stream.holdout import held_out
from nemolaunch.stream.ledger import Session
from nemolaunch.stream.manifest import Listed, Manifest
from nemolaunch.stream.order import key
from nemolaunch.stream.reader import StreamSetup
from nemolaunch.stream.state import Mix, StreamState, initial_state


@dataclass(frozen=True)
class StartedSession:
    """A session that has begun: its readers' setup and states, and its line in the ledger."""

    session: Session
    setup: StreamSetup
    validation: StreamSetup
    state: StreamState


def begin(
    run: RunDir,
    job: Job,
    stream: StreamSpec,
    *,
    tokenizer: str,
    data_parallel_size: int,
    samples: int,
    state: StreamState | None,
    say: Callable[[str], None] = lambda _: None,
) -> StartedSession:
    """Decide how the stream starts or resumes, and record it. One process does this for all.

    Args:
        job: the resolved job.
        tokenizer: its digest.
        samples: seen before, over all ranks.
        state: the checkpoint's position in its stream, if it has one.

    Raises:
        NemolaunchError: the files or the tokenizer are not those of the run so far.
    """
    number = len(ledger.sessions(run)) + 1
    stream = with_text_key(stream, job.stream.text_key)
    unit = str(job.data.blend_by or "tokens")
    readers = job.stream.stream_readers
    assert readers is not None, "the job is not resolved"
    fresh = job.stream.data_resume == "fresh"
    seed = key("session", run.root, job.batch.seed, number) if fresh else job.batch.seed
    if state is not None and not fresh:
        listed = _resumed(run, stream, state)
        _check(state, tokenizer, readers)
        mix = _mix(stream, listed, unit)
        state = state.with_sources([source.source.name for source in listed.sources]).mixed(mix)
        seed = state.seed
    else:
        listed = manifest.make(stream)
        names = [source.source.name for source in listed.sources]
        state = initial_state(
            seed=seed, digest=listed.digest, tokenizer=tokenizer, names=names,
            mix=_mix(stream, listed, unit), readers=readers, samples=-(-samples // readers),
        )  # fmt: skip
    setup, validation = _setups(job, listed, state)
    resume = "start" if not samples else job.stream.data_resume
    session = Session(
        number=number, time=time.time(), resume=resume, seed=seed, samples=samples, digest=listed.digest,
        tokenizer=tokenizer, readers=readers, data_parallel_size=data_parallel_size,
        workers=job.data.num_workers, seq_length=setup.seq_length,
        names=tuple(source.source.name for source in listed.sources), shares=setup.mix.shares, unit=unit,
        windows=setup.windows, held_out=validation_share(job.data.split),
        shuffle_files=job.stream.shard_shuffle,
    )  # fmt: skip
    listed.save(run.stream_manifest(listed.digest))
    ledger.begin_session(run, session)
    say(f"stream: session {number}, {resume}, shuffle seed {seed}, from sample {samples}, {readers} readers")
    return StartedSession(session, setup, validation, replace(state, digest=listed.digest))


def _mix(stream: StreamSpec, listed: Manifest, unit: str) -> Mix:
    """Return the shares of all listed sources; 0 for those no longer requested."""
    given = dict(zip((source.name for source in stream.sources), shares(stream), strict=True))
    return Mix(tuple(given.get(source.source.name, 0.0) for source in listed.sources), unit)


def _resumed(run: RunDir, stream: StreamSpec, state: StreamState) -> Manifest:
    """Return the files of a resumed stream: those of the run so far, then those of new sources."""
    before = (
        Manifest.load(run.stream_manifest(state.digest))
        if run.stream_manifest(state.digest).exists()
        else None
    )
    wanted = {source.name: source for source in stream.sources}
    if before is None:  # a checkpoint of a run in another folder
        found = manifest.make(stream)
        if found.digest != state.digest:
            raise NemolaunchError(
                "the sources are not those of the checkpoint's run, or have changed; resume in that run's "
                "folder, or start the stream over with --data-resume fresh"
            )
        return found
    listed: list[Listed] = []
    for old in before.sources:
        source = wanted.pop(old.source.name, None)
        listed.append(old if source is None else _same(old, source))
    return Manifest((*listed, *manifest.make(StreamSpec(sources=tuple(wanted.values()))).sources))


def _same(old: Listed, source: Any) -> Listed:
    """Return a source of the run so far, which may have moved."""
    spec = ("paths", "dataset", "config", "split", "text_key")
    if all(getattr(old.source, name) == getattr(source, name) for name in spec):
        return old
    (found,) = manifest.make(StreamSpec(sources=(source,))).sources
    if found.digest != old.digest:
        raise NemolaunchError(
            f"source {source.name} does not have the files that the run was fed from {old.source.where}: "
            "names, sizes, order and text key must be the same. Give a source with other files another `name`, "
            "or start the stream over with --data-resume fresh"
        )
    return found


def _check(state: StreamState, tokenizer: str, readers: int) -> None:
    if state.tokenizer != tokenizer:
        raise NemolaunchError(
            "the run was fed with another tokenizer, and its position in a row is counted in tokens; use that "
            "one, or start the stream over with --data-resume fresh"
        )
    if len(state.readers) != readers:
        raise NemolaunchError(
            f"--stream-readers {readers}: the run was started with {len(state.readers)}; keep that, or start "
            "the stream over with --data-resume fresh"
        )


def _setups(job: Job, listed: Manifest, state: StreamState) -> tuple[StreamSetup, StreamSetup]:
    """Return the setups of training and of validation."""
    buffer, held = job.stream.shuffle_buffer, validation_share(job.data.split)
    assert job.data.seq_length is not None, "the job is not resolved"
    rules = Rules(
        seed=state.seed,
        readers=len(state.readers),
        shuffle_files=job.stream.shard_shuffle,
        once=job.stream.stopping_strategy == "first-exhausted",
        skip_damaged=job.stream.bad_data == "skip",
        skip_bad_rows=job.stream.bad_data != "stop",
    )
    setup = StreamSetup(
        manifest=listed,
        rules=rules,
        windows=tuple(max(1, round(buffer * share)) for share in state.mixes[-1].shares),
        held_out=tuple(held_out(source, held) for source in listed.sources),
        mixes=state.mixes,
        seq_length=job.data.seq_length,
    )
    validation = replace(
        setup,
        rules=replace(rules, seed=0, shuffle_files=False, once=False, validation=True),
        windows=(1,) * len(setup.windows),
        mixes=state.mixes[-1:],
    )
    return setup, validation
