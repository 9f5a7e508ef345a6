"""The limits of a solve: forced decisions, other latencies, sizes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpcompress.errors import BadInput, UsageError

if TYPE_CHECKING:
    from dpcompress.blueprint import Blueprint
    from dpcompress.settings import Caps, Decisions
    from dpcompress.solver import Limit
    from dpcompress.tables import LatencyTable


def constraints_of(
    decisions: Decisions,
    caps: Caps,
    also: list[str],
    pessimistic: bool,
    network: Blueprint | None,
    times: LatencyTable,
) -> dict[str, Any]:
    """Make the keyword arguments of `dpcompress.solve`.

    Args:
        also: budgets on other latency tables, each as FILE=BUDGET.
        network: the traced network, which `caps` need.
    """
    limits = [_also(text, pessimistic) for text in also]
    return {
        "keep": decisions.keep,
        "drop": decisions.drop,
        "never_merge": decisions.never_merge,
        "merge": [(first - 1, last) for first, last in decisions.merge],
        "limits": limits + _sizes(caps, network, times.blueprint),
        "pessimistic": pessimistic,
    }


def read_blueprint(path: Path) -> Blueprint:
    """The blueprint in a file.

    Raises:
        BadInput: there is none, or a damaged one.
    """
    from dpcompress.blueprint import Blueprint

    try:
        return Blueprint.from_json(path.read_bytes(), path)
    except OSError as error:
        raise BadInput(
            f"{path} cannot be read: {error.strerror}.", "Check --blueprint."
        ) from error


def _also(text: str, pessimistic: bool) -> Limit:
    from dpcompress.solver import latency_limit, parse_budget, upper_bound
    from dpcompress.tables import LatencyTable

    path, equals, budget = text.rpartition("=")
    if not equals:
        raise UsageError(f"--also {text}: is not FILE=BUDGET.", "Write T2.csv=20ms.")
    table = LatencyTable.read(path)
    budget_ms = parse_budget(budget, table.original_ms)
    return latency_limit(path, upper_bound(table) if pessimistic else table, budget_ms)


def _sizes(caps: Caps, network: Blueprint | None, digest: str) -> list[Limit]:
    """The limits that `caps` asks for.

    Raises:
        UsageError: `network` is missing, or is not the one of this digest.
    """
    from dpcompress.solver import mac_limit, memory_limit, parameter_limit

    asked = [
        (parameter_limit, caps.max_params),
        (mac_limit, caps.max_macs),
        (memory_limit, caps.max_activations),
    ]
    if all(at_most is None for _, at_most in asked):
        return []
    if network is None:
        raise UsageError("These limits need the network.", "Add --blueprint FILE.")
    if digest not in ("", network.digest):
        raise UsageError(
            "--blueprint is another network than that of the tables.",
            "Take model, input and candidate limits that they were made with.",
        )
    return [make(network, at_most) for make, at_most in asked if at_most is not None]
