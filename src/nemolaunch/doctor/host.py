"""The host: memory, limits, network interfaces."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

from nemolaunch.doctor.verdict import Verdict, bad, good, note, warning
from nemolaunch.observe.units import size

LEAST_OPEN_FILES = 4096
LEAST_SHM_BYTES = 2**30
NETWORKS = Path("/sys/class/net")
INFINIBAND = Path("/sys/class/infiniband")


def look() -> Iterator[Verdict]:
    """Check cores, memory, and limits that affect training."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield good("host", f"{len(os.sched_getaffinity(0))} cores, {size(memory)} memory, {socket.gethostname()}")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < LEAST_OPEN_FILES:
        yield warning("host", f"the limit of open files is only {soft}", f"ulimit -n {min(hard, 65536)}")
    try:
        shm = os.statvfs("/dev/shm")
    except OSError:
        return
    total = shm.f_frsize * shm.f_blocks
    if total < LEAST_SHM_BYTES:
        text = f"/dev/shm has only {size(total)}, which may be too little for data loading processes and NCCL"
        yield warning("host", text, "start the container with --shm-size=16g, or use --num-workers 0")


def network(networks: Path = NETWORKS, infiniband: Path = INFINIBAND) -> Iterator[Verdict]:
    """Check interfaces that are up, InfiniBand ports, and what this machine's host name resolves to."""
    up = [p.name for p in sorted(networks.glob("*")) if p.name != "lo" and _read(p / "operstate") != "down"]
    shown = [
        name + _speed(networks / name) for name in up if not _read(networks / name / "bridge" / "bridge_id")
    ]
    if shown:
        yield good("network", "up: " + ", ".join(shown))
    else:
        yield warning("network", "no network interface is up", "jobs on several nodes need one")
    ports = [
        f"{port.parents[1].name} {_read(port / 'rate')}"
        for port in sorted(infiniband.glob("*/ports/*"))
        if "ACTIVE" in _read(port / "state")
    ]
    if ports:
        yield good("network", "InfiniBand: " + ", ".join(ports))
    name = socket.gethostname()
    try:
        address = socket.gethostbyname(name)
    except OSError:
        yield bad("network", f"this machine's host name {name} does not resolve", f"add {name} to /etc/hosts")
        return
    if address.startswith("127."):
        yield note(
            "network",
            f"{name} resolves to {address}, which other nodes cannot reach",
            f"for jobs on several nodes, use --network-interface {up[0] if up else 'NAME'}",
        )
    else:
        yield good("network", f"{name} resolves to {address}")


def _speed(interface: Path) -> str:
    text = _read(interface / "speed")
    if not text.isdigit():
        return ""
    return f" ({int(text) // 1000} Gbit/s)" if int(text) >= 1000 else f" ({text} Mbit/s)"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
