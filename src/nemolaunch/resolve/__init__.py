"""Resolution of a job: filling in open values, the data mixture, attention kernels, dev runs."""

from nemolaunch.resolve.values import MOST_PER_WEIGHT, MOST_TOKENS, Resolved, changed, resolve

__all__ = ["MOST_PER_WEIGHT", "MOST_TOKENS", "Resolved", "changed", "resolve"]
