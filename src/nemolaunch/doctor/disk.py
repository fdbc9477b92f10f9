"""Free disk space and write speed."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from nemolaunch.doctor.verdict import Verdict, bad, good, warning
from nemolaunch.observe.units import size

TEST_BYTES = 256 << 20
BLOCK = 8 << 20
SLOW_BYTES_PER_S = 100e6
LITTLE_BYTES = 20 << 30


def look(folder: Path, test_bytes: int | None = None) -> Iterator[Verdict]:
    """Check space and speed of the file system that runs are written to."""
    place = folder.expanduser().absolute()
    while not place.is_dir():
        place = place.parent
    space = os.statvfs(place)
    free = space.f_frsize * space.f_bavail
    if free < LITTLE_BYTES:
        yield warning(
            "disk",
            f"only {size(free)} free in {place}",
            "use --output-dir on a larger disk, or keep fewer checkpoints with --keep-latest",
        )
    else:
        yield good("disk", f"{size(free)} free in {place}")
    if space.f_files and space.f_favail < 10_000:
        yield warning(
            "disk",
            f"only {space.f_favail} more files can be created in {place}",
            "remove files you no longer need",
        )
    num_bytes = min(test_bytes or TEST_BYTES, free // 4)
    try:
        speed = write_speed(place, num_bytes)
    except OSError as error:
        yield bad("disk", f"{place} is not writable: {error.strerror}", "use --output-dir on another disk")
        return
    text = f"write speed {speed / 1e6:,.0f} MB/s ({num_bytes >> 20} MiB, flushed to the disk)"
    if speed < SLOW_BYTES_PER_S:
        yield warning(
            "disk", text, "saving checkpoints of large models will be slow: use --output-dir on a faster disk"
        )
    else:
        yield good("disk", text)


def write_speed(folder: Path, num_bytes: int) -> float:
    """Measure the bytes per second of writing and flushing a file of random bytes, which is then removed."""
    block = os.urandom(min(BLOCK, max(1, num_bytes)))
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".nemolaunch-doctor-") as file:
        begin = time.perf_counter()
        written = 0
        while written < num_bytes:
            written += file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return written / max(time.perf_counter() - begin, 1e-9)
