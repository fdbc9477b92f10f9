"""Every rule a job can break, checked before anything starts."""

from __future__ import annotations

from nemolaunch.check.basic import check

__all__ = ["check"]
