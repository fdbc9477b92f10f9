"""One source as one reader sees it: its pieces in a shuffled order, epoch after epoch, its rows in shuffled windows.

Rows are taken in windows of consecutive rows, each in a random order of its own. As one row is handed out, one
of the next window is read, so that a window's rows are held at any time, as with a shuffle buffer; but where it
stands is a few numbers, from which the same rows follow again.
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
# Held-out rows of a source that a reader keeps, rather than to look for them again in each epoch.
KEPT_ROWS = 4096
# Rows without text from the start of a reader on, after which the column is taken to be the wrong one.
HOPELESS_ROWS = 1000


class RowPlace(NamedTuple):
    """Where rows are read from: epoch, place of the piece in the reader's order, place of the group among the
    piece's, rows of it to pass over."""

    epoch: int = 0
    piece: int = 0
    group: int = 0
    row: int = 0


class Position(NamedTuple):
    """Where a cursor stands: where its window begins, how many rows that has (0: not read yet), how many of
    them were handed out, and of how many rows further windows are."""

    epoch: int = 0
    piece: int = 0
    group: int = 0
    row: int = 0
    window: int = 0
    drawn: int = 0
    size: int = 0


class Drawn(NamedTuple):
    """A row handed out: its names, and its texts; or with a reason instead, a row that has none. `damage`: it
    stands for all rows of its group that could not be read."""

    epoch: int
    file: int
    group: int
    row: int
    texts: tuple[str, ...]
    reason: str = ""
    damage: bool = False


class Exhausted(Exception):
    """The source has no further row, and must not begin again."""


class Empty(Exception):
    """The source gives this reader no rows at all."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How the sources of a stream are read.

    Attributes:
        seed: of all orders.
        readers: how many there are; which they are decides nothing else.
        shuffle_files: whether pieces come in a random order.
        once: end at the end of the first epoch.
        validation: read what is held out, instead of the rest.
        skip_damaged: leave out data that cannot be decoded, instead of ending with an error.
        skip_bad_rows: leave out rows without text, instead of ending with an error.
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
    """Hands out the rows of a source to a reader, one by one."""

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
        """Where to begin to get the rows that follow."""
        following, at = self._next, self._position
        if following is not None and following.rows and at.drawn == at.window:
            at = Position(*following.start)
        return at._replace(size=self._window_rows)

    def resize(self, window_rows: int) -> None:
        """Make further windows of so many rows. What was read of the next one is read again."""
        if window_rows == self._window_rows:
            return
        self._window_rows = max(1, window_rows)
        following = self._next
        if following is not None and (following.rows or following.rejects):
            self._rows, self._next = self._from(following.start), None

    def draw(self) -> tuple[Drawn, list[Drawn]]:
        """The next row, and rows without text that were come upon.

        Raises:
            Exhausted, Empty: see there.
            NemolaunchError: for what cannot be read.
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
        """Read the window at the position again, and what had been read of the next."""
        at = self._position
        if at.window == 0:
            return self._begin(RowPlace(*at[:4]), rejects)
        window = self._open(RowPlace(*at[:4]))
        self._fill(window, at.window)
        if len(window.rows) < at.window:
            raise NemolaunchError(
                f"source {self._listed.source.name} has fewer rows than when the run stopped there: "
                f"{len(window.rows)} instead of {at.window} in a window; its files must not change during a run"
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
        """Go on to the next window, in the next epoch if there is none in this."""
        following = self._following()
        self._fill(following, self._window_rows - len(following.rows))
        if following.rows:
            return self._enter(following)
        rejects += following.rejects
        if self._rules.once:
            raise Exhausted
        return self._begin(RowPlace(self._position.epoch + 1), rejects)

    def _begin(self, start: RowPlace, rejects: list[Drawn]) -> _Window:
        """The first window from a place on, in the first epoch that has rows for this reader."""
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
                self._alone = True  # fewer rows are held out than there are readers: this one reads them all
                self._pieces = cut(self._sizes, 1)
            start = RowPlace(start.epoch + 1)
        moving = self._rules.shuffle_files or self._alone  # else this reader has the same few rows each time
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
        """Read so many more rows into a window, fewer only at the end of the epoch."""
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
            raise NemolaunchError(f"{self._where(row)}; --bad-data skip-rows leaves such rows out")
        if not self._good and self._bad >= HOPELESS_ROWS:
            raise NemolaunchError(self._hopeless(row, self._bad))

    def _where(self, row: Drawn) -> str:
        file = self._listed.files[row.file]
        return (
            f"source {self._listed.source.name}: {file.path}, group {row.group}, row {row.row}: {row.reason}"
        )

    def _hopeless(self, row: Drawn, read: int) -> str:
        """Of a source none of whose rows has text."""
        return (
            f"{self._where(row)}, like all {read} rows read of it; if another column has the text, --text-column or "
            "the mixture's `column` of the source names it"
        )

    def _from(self, start: RowPlace) -> Iterator[tuple[RowPlace, Drawn]]:
        """All rows from a place to the end of its epoch, each with its own place."""
        if not self._rules.validation:
            return self._read(start, self._hand(start.epoch))
        return self._read_again(start)

    def _read_again(self, start: RowPlace) -> Iterator[tuple[RowPlace, Drawn]]:
        """The same rows in each epoch, kept in memory if they are few."""
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
        """The reader's pieces in the order of an epoch."""
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
        """What is left out of damaged data, as a row without text."""
        if not self._rules.skip_damaged:
            raise NemolaunchError(f"{error}; --bad-data skip leaves out what cannot be read") from None
        return row._replace(reason=f"left out: {error}", damage=True)
