"""Replacement by renaming: under a name there is always the earlier file or folder, or the new one.

Linux exchanges two names in one step (`renameat2`). Where the kernel or the file system cannot, the earlier one is
renamed first, and an interruption between the two renames is undone, by this process or by the next command.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path

AT_FDCWD = -100
NO_REPLACE, EXCHANGE = 1, 2  # flags of renameat2(2)
# Errors of kernels and file systems that lack a flag; overlayfs reports EXDEV for folders of a lower layer
UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EXDEV, errno.EPERM)


@functools.cache
def _renameat2() -> Callable[[int, bytes, int, bytes, int], int] | None:
    if sys.platform != "linux":
        return None
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # glibc 2.28
    if function is None:
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    return function


def _rename_with(flag: int, source: Path, target: Path) -> bool:
    """Rename with a flag of renameat2. Return False if the kernel or the file system does not support it."""
    call = _renameat2()
    if call is None:
        return False
    if call(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), flag) == 0:
        return True
    code = ctypes.get_errno()
    if code in UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(target))


def exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step. Return False if that is not supported here."""
    return _rename_with(EXCHANGE, one, other)


def rename_new(source: Path, target: Path) -> None:
    """Rename to a name that must be free.

    Raises:
        FileExistsError: it is not. Where the file system cannot tell in one step, it is checked just before.
    """
    if _rename_with(NO_REPLACE, source, target):
        return
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    os.rename(source, target)


def put(new: Path, final: Path, aside: Path) -> None:
    """Give a finished file or folder its final name.

    What stood there is then under the name `new`, or `aside`, for the caller to remove. After an exception it stands
    under `final` again, unless the new one does.

    Args:
        aside: a free name on the same file system, which `restore` knows.
    """
    if not os.path.lexists(final):
        rename_new(new, final)
    elif not exchange(new, final):
        try:
            os.rename(final, aside)
            os.rename(new, final)
        except BaseException:  # Ctrl-C may arrive between the two, or inside either
            restore(aside, final)
            raise


def restore(aside: Path, final: Path) -> bool:
    """Give what was set aside its name back, unless the name is taken. Return whether that was needed."""
    if not os.path.lexists(aside) or os.path.lexists(final):
        return False
    rename_new(aside, final)
    return True
