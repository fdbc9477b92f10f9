"""Locks: a file with a record of who holds it, for file systems that several machines may share.

One rule for all of them. The file is created by exactly one process and never truncated or followed as a link. Its
holder keeps a kernel lock on it and touches it regularly. A lock is stale if its process is known to be gone or, where
that cannot be seen, if nothing has touched it for a minute: kernel locks do not reach across all cluster file systems.
A stale lock is taken over in place, under the kernel lock, so that exactly one process does it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nemolaunch.errors import NemolaunchError
from nemolaunch.system.atomic_files import write_text
from nemolaunch.system.process_identity import ProcessIdentity, this_process

STALE_S = 60
TOUCH_EVERY_S = 15.0
RECORD_BYTES = 4096
TRIES, PAUSE_S = 40, 0.05  # while another process is between creating and recording, or releasing
NO_KERNEL_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOLCK)


class Held(NemolaunchError):
    """Somebody else holds the lock. `holder` is their record, `age_s` the seconds since they last touched it."""

    def __init__(self, path: Path, holder: str, age_s: float) -> None:
        super().__init__(f"{path} is held by {holder or 'another process'}")
        self.path, self.holder, self.age_s = path, holder, age_s


class Lock:
    """A lock file that this process holds from `take` to `release`.

    Args:
        alive: returns whether the holder that a record names is alive; None if that is not known.
    """

    def __init__(self, path: Path, alive: Callable[[str], bool | None] | None = None) -> None:
        self._path = path
        self._alive = alive or is_alive
        self._mine = f"local {this_process()}"
        self._file = -1
        self._released = threading.Event()
        self.lost = threading.Event()  # another process has taken the lock: this one must stop writing

    def take(self) -> None:
        """Take the lock, and keep it touched.

        Raises:
            Held: another process holds it.
            OSError: the file cannot be written, or is a link.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        for number in range(TRIES):
            if self._try(last=number == TRIES - 1):
                break
            time.sleep(PAUSE_S)
        else:
            raise Held(self._path, read_record(self._path), 0.0)
        threading.Thread(target=self._keep, name="lock", daemon=True).start()

    def release(self) -> None:
        """Release the lock if this process still holds it."""
        self._released.set()
        if self._file < 0:
            return
        if self.is_mine():
            self._path.unlink(missing_ok=True)
        os.close(self._file)
        self._file = -1

    def is_mine(self) -> bool:
        """Return whether the file under the lock's name is still the one that this process has recorded itself in."""
        return self._is_named(self._file) and _record(self._file) == self._mine

    def _try(self, last: bool) -> bool:
        """Try to take the lock once. Return False if it is worth trying again."""
        file, created = _opened(self._path)
        try:
            busy = not _kernel_lock(file)
            holder = _record(file)
            if not self._is_named(file) or (busy and not holder and not last):
                return False  # released, or being taken, at this moment
            if busy or not (created or self._is_stale(file, holder)):
                raise Held(self._path, holder, age_s(self._path))
            self._write(file, created)
            if not self._is_named(file):  # a batch script has taken it over, by renaming
                return False
            self._file, file = file, -1
            return True
        finally:
            if file >= 0:
                os.close(file)

    def _write(self, file: int, created: bool) -> None:
        text = f"{self._mine}\n".encode()
        try:
            os.pwrite(file, text, 0)
            os.ftruncate(file, len(text))
        except OSError:  # a full disk
            if created:
                self._path.unlink(missing_ok=True)
            raise

    def _is_stale(self, file: int, holder: str) -> bool:
        alive = self._alive(holder)
        return not alive if alive is not None else age_s(self._path, os.fstat(file).st_mtime) >= STALE_S

    def _is_named(self, file: int) -> bool:
        try:
            return os.path.samestat(os.stat(self._path, follow_symlinks=False), os.fstat(file))
        except OSError:
            return False

    def _keep(self) -> None:
        while not self._released.wait(TOUCH_EVERY_S):
            with contextlib.suppress(OSError):
                if self.is_mine():
                    os.utime(self._file)
                elif not self._released.wait(1.0) and not self.is_mine():
                    self.lost.set()
                    return


@contextmanager
def held(path: Path, busy: str, wait_s: float = 0.0) -> Iterator[Lock]:
    """Hold a lock during the block.

    Args:
        busy: the error if another process holds it.
        wait_s: how long to wait for a holder that cannot be seen from here, which may be gone.

    Raises:
        NemolaunchError: another process holds it, or the file is a link or cannot be written.
    """
    lock, until = Lock(path), time.monotonic() + wait_s
    while True:
        try:
            lock.take()
            break
        except Held as error:
            if is_alive(error.holder) is not None or time.monotonic() > until:
                raise NemolaunchError(busy) from None
            time.sleep(1)
        except OSError as error:
            raise refused(path, error) from None
    try:
        yield lock
    finally:
        lock.release()


def refused(path: Path, error: OSError) -> NemolaunchError:
    """Return an error for a lock that cannot be opened."""
    if error.errno == errno.ELOOP:
        return NemolaunchError(f"{path} is a link, not a lock: remove it")
    return NemolaunchError(f"cannot write {error.filename or path}: {error.strerror}")


def read_record(path: Path) -> str:
    """Return the record of a lock's holder; empty if there is none."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return _record(file)
    finally:
        os.close(file)


def is_alive(holder: str) -> bool | None:
    """Return whether the process in a record is running; None if that cannot be seen from here."""
    kind, _, rest = holder.partition(" ")
    process = ProcessIdentity.parse(rest) if kind == "local" else None
    return process.is_alive if process else None


def age_s(path: Path, touched: float | None = None) -> float:
    """Return the seconds since a lock was last touched, by the clock of its file system."""
    clock = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        touched = path.stat().st_mtime if touched is None else touched
        write_text(clock, "", durable=False)
        return clock.stat().st_mtime - touched
    except OSError:
        return float("inf") if touched is None else time.time() - touched
    finally:
        with contextlib.suppress(OSError):
            clock.unlink(missing_ok=True)


def _opened(path: Path) -> tuple[int, bool]:
    """Open the lock, never through a link: in a folder that others may write, that could be any file.

    Return it, and whether this call created it.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    while True:
        try:
            return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644), True
        except FileExistsError:
            pass
        try:
            file = os.open(path, flags)
        except FileNotFoundError:  # a link to nothing, or released since
            if path.is_symlink():
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from None
            continue
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return file, False


def _kernel_lock(file: int) -> bool:
    """Lock an open file, if its file system can. Return False if another process has locked it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_KERNEL_LOCKS:
            raise
    return True


def _record(file: int) -> str:
    try:
        return os.pread(file, RECORD_BYTES, 0).decode("utf-8", "replace").strip()
    except OSError:
        return ""
