"""Convert a checkpoint: detect its format, write the other one atomically, verify it, and write a report."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from nemolaunch.checkpoint.convert import report
from nemolaunch.checkpoint.convert.options import Conversion, Options, Route
from nemolaunch.checkpoint.convert.routes import ROUTES
from nemolaunch.checkpoint.convert.stream import Advance
from nemolaunch.checkpoint.storage.check import Check
from nemolaunch.checkpoint.storage.formats import ENDINGS, FORMATS, detect
from nemolaunch.checkpoint.storage.publish import (
    check_apart,
    check_free,
    check_space,
    explain_os_error,
    publishing,
    size,
)
from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.families.rules import counted, some

Say = Callable[[str], None]


class ProgressReporter(Protocol):
    """A display of the progress of one phase, in bytes."""

    def __call__(self, label: str, total_bytes: int, /) -> contextlib.AbstractContextManager[Advance]:
        """Start a phase; the function in the context is called with the bytes done."""


@contextlib.contextmanager
def no_progress(label: str, total_bytes: int) -> Iterator[Advance]:
    """Show no progress."""
    yield lambda count: None


def convert(
    source: Path,
    output: Path,
    to: str,
    options: Options | None = None,
    say: Say = lambda text: None,
    progress: ProgressReporter = no_progress,
) -> dict[str, Any]:
    """Convert the checkpoint `source` to the format `to` as `output`, and return the report saved next to it.

    Args:
        say: called with one line per step.
        progress: shows the bytes done in each phase.

    Raises:
        UsageError: the source is not a checkpoint, the output exists, or there is no such conversion.
        NemolaunchError: the source is damaged, the target format cannot represent the model, the disk is full,
            or a check failed. Nothing is then left at `output`, and an existing checkpoint there is untouched.
    """
    options = options or Options()
    source, output = (path.expanduser().absolute() for path in (source, output))
    check_free(output, overwrite=options.overwrite)
    check_apart(source, output)
    options = dataclasses.replace(options, one_file=_is_one_file(output, to))
    conversion = _route(source, to)(source, options)
    try:
        check_space(conversion.disk_bytes(output), output)
        say(f"{conversion.title}, {size(conversion.nbytes)}")
        for text in _remarks(conversion):
            say(text)
        return _run(conversion, source, output, to, options, say, progress)
    except OSError as error:
        raise explain_os_error(error, f"writing {output}") from error
    except RuntimeError as error:
        # When torch.save cannot write, it complains about its position in the file
        if not isinstance(error.__context__, OSError):
            raise
        raise explain_os_error(error.__context__, f"writing {output}") from error
    finally:
        conversion.close()


def _run(
    conversion: Conversion,
    source: Path,
    output: Path,
    to: str,
    options: Options,
    say: Say,
    progress: ProgressReporter,
) -> dict[str, Any]:
    seconds: dict[str, float] = {}
    checks: list[Check] = []
    with publishing(output, overwrite=options.overwrite, tell=say) as new:
        with _timed(seconds, "write"), progress("writing", conversion.nbytes) as advance:
            conversion.write(new, advance)
        if options.verify:
            with _timed(seconds, "verify"), progress("verifying", conversion.nbytes) as advance:
                checks += conversion.verify(new, advance)
            if options.compare and all(check.passed for check in checks):
                with _timed(seconds, "compare"):
                    compared = options.compare(conversion, source, new)
                checks += [compared] if compared else []
        about = {
            "source": str(source),
            "output": str(output),
            "to": to,
            "title": conversion.title,
            "bytes": conversion.nbytes,
            "changed": conversion.changed,
            "left_out": conversion.left_out,
        }
        record = report.content(about, checks, seconds)
        for check in checks:
            say(str(check))
        _refuse_failed(checks, record, output)
    report.write(report.path_for(output), record)
    say(f"wrote {output}; the report is {report.path_for(output)}")
    return record


def _refuse_failed(checks: list[Check], record: dict[str, Any], output: Path) -> None:
    failed = [check for check in checks if not check.passed]
    if failed:
        report.write(report.path_for(output), record)
        lines = "\n".join(f"  {check.name}: {line}" for check in failed for line in check.differences[:4])
        raise NemolaunchError(
            f"the result does not match the source, so {output} was not written:\n{lines}\n"
            f"The report is {report.path_for(output)}"
        )


def _is_one_file(output: Path, to: str) -> bool:
    """Return whether the output's name is a file's; raise `UsageError` if the format does not match it."""
    fits = output.suffix in ENDINGS.get(to, ())
    if to == "torch" and not fits:
        raise UsageError(f"{output}: --to torch writes one file; use a name that ends in .pt")
    if not fits and output.suffix in sum(ENDINGS.values(), ()):
        raise UsageError(f"{output}: --to {to} writes a folder, but this is a file name")
    return fits


def _route(source: Path, to: str) -> Route:
    found = detect(source)
    if to == found:
        raise UsageError(f"{source} is already in the format {to} ({FORMATS[to]})")
    if (found, to) not in ROUTES:
        possible = [target for origin, target in ROUTES if origin == found]
        raise UsageError(
            f"{source} is in the format {found} ({FORMATS[found]}), which converts to "
            f"{', '.join(possible) or 'no other format'}, not to {to}"
        )
    return ROUTES[found, to]


def _remarks(conversion: Conversion) -> Iterator[str]:
    yield from conversion.changed
    if conversion.left_out:
        yield f"omitted: {counted(conversion.left_out, 'tensor')}: {some(conversion.left_out)}"


@contextlib.contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    begin = time.monotonic()
    yield
    seconds[name] = time.monotonic() - begin
