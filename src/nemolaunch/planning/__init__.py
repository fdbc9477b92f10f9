"""The plan of a job: every value resolved, checked and estimated. Final once it is made."""

from nemolaunch.planning.plan import Plan, compose, judged, make_plan

__all__ = ["Plan", "compose", "judged", "make_plan"]
