"""Audit of how often each row of the sources was fed: the ledger compared with the files themselves.

It checks that in each epoch no row was fed twice; that none was skipped: a reader that has reached a row has
fed all rows before its current shuffle window; and that samples follow each other without a gap, each row
continuing where it was cut.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from nemolaunch.data.stream_spec import StreamSource
from nemolaunch.errors import NemolaunchError
from nemolaunch.run.folder import RunDir
from nemolaunch.stream import ledger
from nemolaunch.stream.holdout import held_out
from nemolaunch.stream.inventory import Inventory, held, sequences, take
from nemolaunch.stream.ledger import Session
from nemolaunch.stream.manifest import File, Listed, Manifest
from nemolaunch.stream.order import Array
from nemolaunch.stream.reader import BEGINS, DAMAGED, ENDS, REJECTED

Count = Callable[[StreamSource, Sequence[File]], Sequence[list[Array | None]]]
LISTED = 5


@dataclass
class EpochCount:
    """Rows of a source in one epoch of one order: fed once, more often, skipped, not reached yet."""

    seed: int
    epoch: int
    once: int = 0
    repeated: int = 0
    passed_over: int = 0
    to_come: int = 0


@dataclass
class SourceAudit:
    """The audit of one source.

    Attributes:
        rows: in its files. `held_out` of them are for validation; `without_text` were read and skipped.
        damaged: groups that were skipped because they could not be read.
        fed: rows that were fed, counted each time; `tokens` is their length.
        requested, by_rows, by_tokens: shares requested (in the last session) and achieved.
        times: how often each place was fed, over the whole run.
    """

    name: str
    rows: int
    held_out: int
    requested: float
    without_text: int = 0
    damaged: int = 0
    fed: int = 0
    tokens: int = 0
    by_rows: float = 0.0
    by_tokens: float = 0.0
    epochs: list[EpochCount] = field(default_factory=list)
    times: Array = field(default_factory=lambda: np.zeros(0, np.uint16))
    inventory: Inventory | None = None
    listed: Listed | None = None

    def histogram(self) -> dict[int, int]:
        """Return how many rows were fed how often, without those held out."""
        assert self.inventory is not None
        counts = np.bincount(self.times[self.inventory.exists])
        found = {times: int(count) for times, count in enumerate(counts) if count}
        if self.held_out:
            found[0] = found.get(0, 0) - self.held_out
        return {times: count for times, count in found.items() if count}


@dataclass
class Audit:
    """The audit of a whole run.

    Attributes:
        samples, tokens: fed and not undone.
        undone: samples fed after the checkpoint from which the run resumed, and so fed again or lost.
        problems: violations of what a stream guarantees.
    """

    sessions: list[Session]
    unit: str
    sources: list[SourceAudit]
    samples: int = 0
    tokens: int = 0
    undone: int = 0
    problems: list[str] = field(default_factory=list)


def audit(run: RunDir, count: Count) -> Audit:
    """Audit a run.

    Raises NemolaunchError if it has no ledger, or its files have changed.
    """
    found = ledger.sessions(run)
    if not found:
        raise NemolaunchError(
            f"{run.root} has no ledger of rows: it does not use --data-mode stream, or uses --no-data-ledger"
        )
    last = found[-1]
    manifests = {s.digest: Manifest.load(run.stream_manifest(s.digest)) for s in found}
    if len(manifests) > 1:
        raise NemolaunchError(
            f"the files of the run changed {len(manifests) - 1} times, with --data-resume fresh; only a run on "
            "the same files can be audited"
        )
    listed = manifests[last.digest].sources
    sources = [
        _source(source, take(source, count), last, share)
        for source, share in zip(listed, last.shares, strict=True)
    ]
    result = Audit(sessions=found, unit=last.unit, sources=sources)
    for orders in _by_order(found):
        _Order(result, orders, found).count(run)
    total = max(1, sum(s.tokens for s in sources))
    rows = max(1, sum(s.fed for s in sources))
    for source in sources:
        source.by_rows, source.by_tokens = source.fed / rows, source.tokens / total
    return result


def _source(listed: Listed, inventory: Inventory, session: Session, share: float) -> SourceAudit:
    validation = held(inventory, held_out(listed, session.held_out)) & inventory.exists
    return SourceAudit(
        name=listed.source.name,
        rows=int(inventory.exists.sum()),
        held_out=int(validation.sum()),
        requested=share,
        times=np.zeros(len(inventory.exists), np.uint16),
        inventory=inventory,
        listed=listed,
    )


def _by_order(found: list[Session]) -> list[list[Session]]:
    """Group sessions that continue each other's order."""
    groups: list[list[Session]] = []
    for session in found:
        if groups and session.resume == "exact" and groups[-1][-1].seed == session.seed:
            groups[-1].append(session)
        else:
            groups.append([session])
    return groups


def _end_of(session: Session, found: list[Session]) -> int:
    """Return the first sample of a session that does not count, because a later one resumed before it."""
    return min((s.samples for s in found if s.number > session.number), default=2**63 - 1)


class _Order:
    """Counter for the sessions of one order of rows."""

    def __init__(self, result: Audit, sessions: list[Session], found: list[Session]) -> None:
        self._result, self._sessions, self._found = result, sessions, found
        self._readers = sessions[0].readers
        self._last: dict[int, tuple[int, bool, tuple[int, ...]]] = {}
        self._counts: dict[tuple[int, int], Array] = {}
        self._furthest: dict[tuple[int, int], int] = {}
        self._damaged: set[tuple[int, int, int]] = set()
        self._rejected: dict[int, set[int]] = {}
        self._noted: Counter[str] = Counter()

    def count(self, run: RunDir) -> None:
        """Read the ledger, then look for skipped rows."""
        for session in self._sessions:
            end = _end_of(session, self._found)
            for batch in ledger.fed(run, session.number):
                undone = batch["sample"] >= end
                self._result.undone += len(np.unique(batch["sample"][undone]))
                self._take(batch[~undone], session)
        for source, audited in enumerate(self._result.sources):
            self._judge(source, audited)

    def _note(self, kind: str, problem: str) -> None:
        """List a problem, unless enough of its kind are listed."""
        self._noted[kind] += 1
        if self._noted[kind] <= LISTED:
            self._result.problems.append(problem)
        elif self._noted[kind] == LISTED + 1:
            self._result.problems.append(f"… and more {kind}")

    def _take(self, rows: Array, session: Session) -> None:
        if not len(rows):
            return
        reader = (rows["sample"] % self._readers).astype(np.int64)
        self._follow(rows[np.argsort(reader, kind="stable")], session)
        samples = len(np.unique(rows["sample"]))
        self._result.samples += samples
        tokens = int(rows["tokens"].sum(dtype=np.int64))
        self._result.tokens += tokens
        if tokens != samples * session.seq_length:
            self._note("sessions", f"session {session.number}: {samples} samples hold {tokens} tokens")
        for source in np.unique(rows["source"]).tolist():
            self._add(source, rows[rows["source"] == source])

    def _follow(self, rows: Array, session: Session) -> None:
        """Check that each reader's samples, and the pieces of each row, follow each other."""
        fed = rows[rows["flags"] & REJECTED == 0]
        for reader in np.unique(fed["sample"] % self._readers).tolist():
            mine = fed[fed["sample"] % self._readers == reader]
            before = self._last.get(reader)
            if before is not None:
                first = mine[:1].copy()
                first["sample"], first["flags"] = before[0], ENDS * before[1]
                for name, value in zip(("source", "epoch", "file", "group", "row"), before[2], strict=True):
                    first[name] = value
                mine = np.concatenate([first, mine])
            self._check(reader, mine)
            end = mine[-1]
            row = tuple(int(end[name]) for name in ("source", "epoch", "file", "group", "row"))
            self._last[reader] = (int(end["sample"]), bool(end["flags"] & ENDS), row)

    def _check(self, reader: int, rows: Array) -> None:
        steps = np.diff(rows["sample"].astype(np.int64))
        gaps = np.flatnonzero((steps != 0) & (steps != self._readers))
        for i in gaps.tolist():
            self._note(
                "samples that do not follow each other",
                f"reader {reader + 1}: sample {int(rows['sample'][i + 1])} follows sample {int(rows['sample'][i])}",
            )
        same = np.ones(len(rows) - 1, bool)
        for name in ("source", "epoch", "file", "group", "row"):
            same &= rows[name][1:] == rows[name][:-1]
        ended = rows["flags"][:-1] & ENDS > 0
        begins = rows["flags"][1:] & BEGINS > 0
        for i in np.flatnonzero(np.where(ended, ~begins, begins | ~same)).tolist():
            self._note(
                "rows that do not continue",
                f"reader {reader + 1}: sample {int(rows['sample'][i + 1])} does not continue where a row was cut",
            )

    def _add(self, source: int, rows: Array) -> None:
        audited = self._result.sources[source]
        assert audited.inventory is not None
        damaged = rows["flags"] & DAMAGED > 0
        for row in rows[damaged]:
            self._damaged.add((source, int(row["file"]), int(row["group"])))
        rows = rows[~damaged]
        places = audited.inventory.places(
            rows["file"], rows["group"].astype(np.int64), rows["row"].astype(np.int64)
        )
        if (places < 0).any() or not audited.inventory.exists[places].all():
            self._note("rows that do not exist", f"{audited.name}: rows were fed that are not in its files")
            return
        rejected = rows["flags"] & REJECTED > 0
        self._rejected.setdefault(source, set()).update(places[rejected].tolist())
        audited.tokens += int(rows["tokens"].sum(dtype=np.int64))
        begun = (rows["flags"] & BEGINS > 0) & ~rejected
        audited.fed += int(begun.sum())
        np.add.at(audited.times, places[begun], 1)
        reader = rows["sample"] % self._readers
        for epoch in np.unique(rows["epoch"]).tolist():
            counts = self._counts.setdefault((source, epoch), np.zeros(len(audited.times), np.uint8))
            of_epoch = rows["epoch"] == epoch
            np.add.at(counts, places[of_epoch & begun], 1)
            for number in np.unique(reader[of_epoch]).tolist():
                key = (source, int(number))
                self._furthest[key] = max(self._furthest.get(key, 0), epoch)

    def _judge(self, source: int, audited: SourceAudit) -> None:
        session = self._sessions[-1]
        inventory, listed = audited.inventory, audited.listed
        assert inventory is not None
        assert listed is not None
        audited.without_text = len(self._rejected.get(source, ()))
        audited.damaged = sum(1 for s, _, _ in self._damaged if s == source)
        window = max(s.windows[source] for s in self._sessions)
        for epoch in sorted(e for s, e in self._counts if s == source):
            counts = self._counts[source, epoch]
            count = EpochCount(seed=session.seed, epoch=epoch, once=int((counts == 1).sum()))
            count.repeated = int((counts > 1).sum())
            for place in np.flatnonzero(counts > 1).tolist():
                self._note(
                    "rows fed again",
                    f"{self._name(audited, place)} was fed {counts[place]} times in epoch {epoch + 1}",
                )
            orders = sequences(
                inventory,
                listed,
                held_out(listed, session.held_out),
                seed=session.seed,
                epoch=epoch,
                readers=self._readers,
                shuffle=session.shuffle_files,
            )
            excluded = self._excluded(source, inventory)
            for reader, order in enumerate(orders):
                good = order[~excluded[order]]
                self._look_for_gaps(audited, count, (source, reader), good, counts, window)
            audited.epochs.append(count)

    def _excluded(self, source: int, inventory: Inventory) -> Array:
        """Return True for rows without text, and for all rows of damaged groups."""
        found = np.zeros(len(inventory.exists), bool)
        found[list(self._rejected.get(source, ()))] = True
        for s, file, group in self._damaged:
            if s == source:
                number = int(inventory.first_group[file]) + group
                found[int(inventory.first_place[number]) : int(inventory.first_place[number + 1])] = True
        return found

    def _look_for_gaps(
        self,
        audited: SourceAudit,
        count: EpochCount,
        key: tuple[int, int],
        order: Array,
        counts: Array,
        window: int,
    ) -> None:
        """Find rows that the reader must have fed, but has not."""
        missing, fed = np.flatnonzero(counts[order] == 0), np.flatnonzero(counts[order])
        finished = count.epoch < self._furthest.get(key, 0)
        due = missing if finished else missing[missing <= (fed[-1] if len(fed) else -1) - window]
        count.passed_over += len(due)
        count.to_come += len(missing) - len(due)
        for place in order[due].tolist():
            self._note("rows skipped", f"{self._name(audited, place)} was skipped in epoch {count.epoch + 1}")

    def _name(self, audited: SourceAudit, place: int) -> str:
        assert audited.inventory is not None
        assert audited.listed is not None
        file, group, row = audited.inventory.name(place)
        return f"{audited.name}: {audited.listed.files[file].path}, group {group}, row {row}"
