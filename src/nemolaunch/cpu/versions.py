"""Whether the installed NeMo and Megatron-Core can work together."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from nemolaunch.catalogue.version_pairs import judge
from nemolaunch.errors import NemolaunchError
from nemolaunch.system.installation import how_to_repair

INSTALL = f"`{how_to_repair()}` installs a working combination."


def check_versions() -> None:
    """Raise `NemolaunchError` if the installed NeMo and Megatron-Core are known not to work together."""
    check(_installed("nemo_toolkit"), _installed("megatron-core"))


def check(nemo: str | None, megatron: str | None) -> None:
    """Raise `NemolaunchError` if these versions are known not to work together; `None` means not installed."""
    if nemo is None or megatron is None:
        missing = " and ".join(
            n for n, v in (("nemo_toolkit", nemo), ("megatron-core", megatron)) if v is None
        )
        raise NemolaunchError(f"{missing} not installed. {INSTALL}")
    verdict = judge(nemo, megatron)
    if verdict.pair and verdict.pair.fails:
        raise NemolaunchError(
            f"nemo_toolkit {nemo} does not work with megatron-core {megatron}: {verdict.pair.fails}. {INSTALL}"
        )


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
