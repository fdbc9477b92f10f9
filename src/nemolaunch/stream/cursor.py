"""A reader's cursor in one source: shuffled pieces, epoch after epoch, and rows in shuffled windows.

Rows are read in windows of consecutive rows, each of which is shuffled. As one row is handed out, one of the
next window is read, so that memory always holds one window of rows, as with a shuffle buffer. But the
position is a few numbers, from which the same rows follow again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from nemolaunch.errors import NemolaunchError
from nemolaunch.stream.holdout import HeldOut
from nemolaunch.stream.manifest import Listed
from nemolaunch.stream.order import FileShare, cut, dealt, groups_of, permutation
from nemolaunch.stream.rows import Damaged, open_rows

# A source of very few rows may give a reader none in some epochs.
EMPTY_EPOCHS = 64
# Held-out rows of a source that a reader keeps in memory instead of finding them again in each epoch.
KEPT_ROWS = 4096
# Rows without text at the start of a reader after which the column is assumed to be wrong.
HOPELESS_ROWS = 1000


class RowPlace(NamedTuple):
    """A place to read rows from.

    Its parts are the epoch, the piece in the reader's order, the group in the piece, and rows of it to skip.
    """

    epoch: int = 0
    piece: int = 0
    group: int = 0
    row: int = 0


class Position(NamedTuple):
    """Position of a cursor.

    Attributes:
        epoch, piece, group, row: start of its window, see `RowPlace`.
        window: rows in the window; 0: not read yet.
        drawn: rows of it that were handed out.
        size: rows of further windows.
    """

    epoch: int = 0
    piece: int = 0
    group: int = 0
    row: int = 0
    window: int = 0
    drawn: int = 0
    size: int = 0


class Drawn(NamedTuple):
    """A row handed out: its identity and texts, or the reason why it has none.

    `damage`: it stands for all rows of its group that could not be read.
    """

    epoch: int
    file: int
    group: int
    row: int
    texts: tuple[str, ...]
    reason: str = ""
    damage: bool = False


class Exhausted(Exception):
    """Signal that the source has no further rows and must not repeat."""


class Empty(Exception):
    """Signal that the source has no rows for this reader."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How the sources of a stream are read.

    Attributes:
        seed: of all orders.
        readers: how many there are.
        shuffle_files: whether pieces are shuffled.
        once: stop at the end of the first epoch.
        validation: read what is held out, instead of the rest.
        skip_damaged: skip data that cannot be decoded, instead of raising an error.
        skip_bad_rows: skip rows without text, instead of raising an error.
    """

    seed: int
    readers: int
    shuffle_files: bool = True
    once: bool = False
    validation: bool = False
    skip_damaged: bool = False
    skip_bad_rows: bool = True


@dataclass
class _Window:
    start: RowPlace
    rows: list[Drawn | None] = field(default_factory=list)
    rejects: list[Drawn] = field(default_factory=list)
    order: list[int] = field(default_factory=list)


class Cursor:
    """Cursor that hands out the rows of a source to a reader, one by one."""

    def __init__(
        self,
        listed: Listed,
        rules: Rules,
        reader: int,
        window_rows: int,
        held_out: HeldOut,
        position: Position | None = None,
    ) -> None:
        self._listed, self._rules, self._reader, self._held_out = listed, rules, reader, held_out
        self._position = position or Position()
        self._window_rows = self._position.size or max(1, window_rows)
        self._window: _Window | None = None
        self._next: _Window | None = None
        self._rows: Iterator[tuple[RowPlace, Drawn]] = iter(())
        self._good = self._bad = 0
        files = held_out.files_of(rules.validation, len(listed.files))
        self._files = files
        self._sizes = [listed.files[file].size for file in files]
        self._pieces = cut(self._sizes, rules.readers)
        self._alone = rules.readers == 1
        self._kept: list[tuple[RowPlace, Drawn]] | None = None

    @property
    def position(self) -> Position:
        """Return where to start to get the rows that follow."""
        following, at = self._next, self._position
        if following is not None and following.rows and at.drawn == at.window:
            at = Position(*following.start)
        return at._replace(size=self._window_rows)

    def resize(self, window_rows: int) -> None:
        """Change the size of further windows. What was read of the next one is read again."""
        if window_rows == self._window_rows:
            return
        self._window_rows = max(1, window_rows)
        following = self._next
        if following is not None and (following.rows or following.rejects):
            self._rows, self._next = self._from(following.start), None

    def draw(self) -> tuple[Drawn, list[Drawn]]:
        """Return the next row, and rows without text that were skipped.

        Raises:
            Exhausted, Empty: see there.
            NemolaunchError: if something cannot be read.
        """
        rejects: list[Drawn] = []
        window = self._window or self._load(rejects)
        if self._position.drawn == len(window.rows):
            window = self._advance(rejects)
        if self._position.drawn == 0:
            rejects += window.rejects
            window.rejects = []
        place = window.order[self._position.drawn]
        row, window.rows[place] = window.rows[place], None
        self._position = self._position._replace(drawn=self._position.drawn + 1)
        self._read_ahead(1)
        assert row is not None
        return row, rejects

    def _load(self, rejects: list[Drawn]) -> _Window:
        """Read the window at the position again, and what was read of the next."""
        at = self._position
        if at.window == 0:
            return self._begin(RowPlace(*at[:4]), rejects)
        window = self._open(RowPlace(*at[:4]))
        self._fill(window, at.window)
        if len(window.rows) < at.window:
            raise NemolaunchError(
                f"source {self._listed.source.name} has fewer rows than when the run stopped there: "
                f"{len(window.rows)} instead of {at.window} in a window; its files must not change in a run"
            )
        self._shuffle(window)
        for place in window.order[: at.drawn]:
            window.rows[place] = None
        if at.drawn:
            window.rejects = []
        self._window = window
        self._read_ahead(at.drawn)
        return window

    def _advance(self, rejects: list[Drawn]) -> _Window:
        """Advance to the next window, in the next epoch if there is none in this one."""
        following = self._following()
        self._fill(following, self._window_rows - len(following.rows))
        if following.rows:
            return self._enter(following)
        rejects += following.rejects
        if self._rules.once:
            raise Exhausted
        return self._begin(RowPlace(self._position.epoch + 1), rejects)

    def _begin(self, start: RowPlace, rejects: list[Drawn]) -> _Window:
        """Return the first window from a place on, in the first epoch that has rows for this reader."""
        for _ in range(EMPTY_EPOCHS):
            window = self._open(start)
            self._fill(window, self._window_rows)
            if window.rows:
                return self._enter(window)
            rejects += window.rejects
            if self._rules.once:
                raise Exhausted
            if self._rules.validation:
                if self._alone:
                    break
                self._alone = True  # there are fewer held-out rows than readers: this one reads them all
                self._pieces = cut(self._sizes, 1)
            start = RowPlace(start.epoch + 1)
        # without a new order in each epoch this reader gets the same few rows again and again
        moving = self._rules.shuffle_files or self._alone
        if rejects and not self._good and moving and not self._rules.validation:
            raise NemolaunchError(self._hopeless(rejects[-1], self._bad))
        raise Empty

    def _enter(self, window: _Window) -> _Window:
        self._shuffle(window)
        self._window, self._next = window, None
        self._position = Position(*window.start, window=len(window.rows))
        return window

    def _shuffle(self, window: _Window) -> None:
        words = (self._rules.seed, self._listed.source.name, self._reader, *window.start)
        window.order = permutation(len(window.rows), "rows", *words).tolist()

    def _open(self, start: RowPlace) -> _Window:
        self._rows, self._next = self._from(start), None
        return _Window(start)

    def _following(self) -> _Window:
        if self._next is None:
            self._next = _Window(RowPlace(self._position.epoch))
        return self._next

    def _read_ahead(self, count: int) -> None:
        following = self._following()
        self._fill(following, min(count, self._window_rows - len(following.rows)))

    def _fill(self, window: _Window, count: int) -> None:
        """Read `count` more rows into a window, fewer only at the end of the epoch."""
        while count > 0:
            place, row = next(self._rows, (None, None))
            if row is None or place is None:
                return
            if not window.rows and not window.rejects:
                window.start = place
            if row.reason:
                self._reject(row)
                window.rejects.append(row)
            else:
                self._good += 1
                window.rows.append(row)
                count -= 1

    def _reject(self, row: Drawn) -> None:
        self._bad += 1
        if not self._rules.skip_bad_rows:
            raise NemolaunchError(f"{self._where(row)}; use --bad-data skip-rows to skip such rows")
        if not self._good and self._bad >= HOPELESS_ROWS:
            raise NemolaunchError(self._hopeless(row, self._bad))

    def _where(self, row: Drawn) -> str:
        file = self._listed.files[row.file]
        return (
            f"source {self._listed.source.name}: {file.path}, group {row.group}, row {row.row}: {row.reason}"
        )

    def _hopeless(self, row: Drawn, read: int) -> str:
        """Return the message for a source none of whose rows has text."""
        return (
            f"{self._where(row)}, like all {read} rows read from it; if the text is under another key, set it "
            "with --text-key or as `text_key` of the source in the mixture's file"
        )

    def _from(self, start: RowPlace) -> Iterator[tuple[RowPlace, Drawn]]:
        """Return all rows from a place to the end of its epoch, each with its own place."""
        if not self._rules.validation:
            return self._read(start, self._hand(start.epoch))
        return self._read_again(start)

    def _read_again(self, start: RowPlace) -> Iterator[tuple[RowPlace, Drawn]]:
        """Yield the same rows in each epoch; if they are few they are kept in memory."""
        if self._kept:
            for place, row in self._kept:
                yield place._replace(epoch=start.epoch), row._replace(epoch=start.epoch)
            return
        kept: list[tuple[RowPlace, Drawn]] = []
        for item in self._read(start, self._hand(start.epoch)):
            if len(kept) <= KEPT_ROWS:
                kept.append(item)
            yield item
        if len(kept) <= KEPT_ROWS and start[1:] == (0, 0, 0):
            self._kept = kept

    def _hand(self, epoch: int) -> list[FileShare]:
        """Return the reader's pieces in the order of an epoch."""
        rules, name = self._rules, self._listed.source.name
        if not self._pieces:
            return []
        if rules.shuffle_files:
            order = permutation(len(self._pieces), "pieces", rules.seed, name, epoch)
        else:
            order = np.arange(len(self._pieces))
        readers, reader = (1, 0) if self._alone else (rules.readers, self._reader)
        return dealt(self._pieces, self._sizes, readers, order)[reader]

    def _read(self, start: RowPlace, hand: list[FileShare]) -> Iterator[tuple[RowPlace, Drawn]]:
        for number in range(start.piece, len(hand)):
            at = start if number == start.piece else RowPlace(start.epoch, number)
            yield from self._piece(hand[number], at)

    def _piece(self, piece: FileShare, at: RowPlace) -> Iterator[tuple[RowPlace, Drawn]]:
        file = self._files[piece.file]
        wanted = self._held_out.wanted(self._rules.validation, file)
        try:
            rows = open_rows(self._listed.source, self._listed.files[file])
        except Damaged as error:
            yield at, self._damage(error, Drawn(at.epoch, file, 0, 0, ()))
            return
        try:
            groups = groups_of(rows.num_groups, piece)
            for number in range(at.group, len(groups)):
                skip = at.row if number == at.group else 0
                group = groups[number]
                try:
                    for row in rows.read(group, wanted, skip):
                        place = RowPlace(at.epoch, at.piece, number, skip)
                        yield place, Drawn(at.epoch, file, group.file, row.place, row.texts, row.reason)
                        skip += 1
                except Damaged as error:
                    place = RowPlace(at.epoch, at.piece, number, skip)
                    yield place, self._damage(error, Drawn(at.epoch, file, group.file, 0, ()))
        finally:
            rows.close()

    def _damage(self, error: Damaged, row: Drawn) -> Drawn:
        """Return skipped, damaged data as a row without text."""
        if not self._rules.skip_damaged:
            raise NemolaunchError(f"{error}; use --bad-data skip to skip damaged data") from None
        return row._replace(reason=f"skipped: {error}", damage=True)
