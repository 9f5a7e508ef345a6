"""The exact solver: latency and importance tables in, the whole frontier of plans out."""

from dpcompress.solver.budget import parse_budget
from dpcompress.solver.constraints import (
    Limit,
    latency_limit,
    mac_limit,
    memory_limit,
    parameter_limit,
)
from dpcompress.solver.explain import Decision, explain
from dpcompress.solver.frontier import Frontier
from dpcompress.solver.frontier_file import read_frontier, write_frontier
from dpcompress.solver.problem import Problem, upper_bound
from dpcompress.solver.solve import ApproximateFrontier, solve
from dpcompress.solver.spread_plans import spread_plans
from dpcompress.solver.stage1 import Stretch, fastest

__all__ = [
    "ApproximateFrontier",
    "Decision",
    "Frontier",
    "Limit",
    "Problem",
    "Stretch",
    "explain",
    "fastest",
    "latency_limit",
    "mac_limit",
    "memory_limit",
    "parameter_limit",
    "parse_budget",
    "read_frontier",
    "solve",
    "spread_plans",
    "upper_bound",
    "write_frontier",
]
