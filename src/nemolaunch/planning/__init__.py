"""The plan of a job: every value resolved, checked and estimated. Final once it is made."""

from nemolaunch.planning.plan import Plan, PlanError, compose, judged, make_plan

__all__ = ["Plan", "PlanError", "compose", "judged", "make_plan"]
