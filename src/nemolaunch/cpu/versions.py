"""The versions of NeMo and Megatron-Core that the rehearsal backend is known to work with."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from nemolaunch.errors import NemolaunchError

# Tested combinations. NeMo requires megatron-core without a version, so pip may install incompatible ones: NeMo
# 2.7.3 imports with megatron-core 0.16.1 but then fails to build its optimizer; NeMo 2.5 does not import with 0.15.
NEMO = ("2.5.3", "2.7.3")
MEGATRON = "0.14 for NeMo 2.5, 0.15 for NeMo 2.6 and 2.7"


def check_versions() -> None:
    """Raise `NemolaunchError` unless the installed NeMo and Megatron-Core are a supported combination."""
    check(_installed("nemo_toolkit"), _installed("megatron-core"))


def check(nemo: str | None, megatron: str | None) -> None:
    """Raise `NemolaunchError` unless these versions are a supported combination; `None` means not installed."""
    rule = (
        f"The CPU rehearsal works with nemo_toolkit {NEMO[0]} to {NEMO[1]} and megatron-core {MEGATRON}. "
        "`pip install -c constraints.txt 'nemolaunch[train]'` installs a working combination."
    )
    if nemo is None or megatron is None:
        missing = " and ".join(
            n for n, v in (("nemo_toolkit", nemo), ("megatron-core", megatron)) if v is None
        )
        raise NemolaunchError(f"{missing} not installed. {rule}")
    from packaging.version import Version

    core = Version(megatron).release[:2]
    wanted = (0, 14) if Version(nemo).release[:2] == (2, 5) else (0, 15)
    if not Version(NEMO[0]) <= Version(nemo) <= Version(NEMO[1]) or core != wanted:
        raise NemolaunchError(f"installed: nemo_toolkit {nemo} and megatron-core {megatron}. {rule}")


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
