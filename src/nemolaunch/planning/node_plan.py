"""The plan of a preflight without a training: where to measure, and how to get there."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from nemolaunch import catalogue
from nemolaunch.check import check_nodes
from nemolaunch.facts import look
from nemolaunch.findings import apply_force, by_severity
from nemolaunch.job import Job
from nemolaunch.planning.plan import Plan, compose
from nemolaunch.resolve import resolve

ANY_MODEL = "llama32_1b"  # rules about nodes do not depend on it


def make_node_plan(job: Job, given: Mapping[str, str], force: Collection[str] = ()) -> Plan:
    """Return the plan of a job of which only nodes, devices, image and environment count.

    Its findings are those about the cluster.
    """
    resolved = resolve(job, catalogue.model(ANY_MODEL), look(job), given)
    return compose(resolved, by_severity(apply_force(check_nodes(resolved), force)))
