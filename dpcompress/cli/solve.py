"""``dpcompress solve``: the best plan for a budget, and the frontier of all plans."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpcompress.cli.options import Json, ModelArgs
from dpcompress.cli.output import console, emit, print_table, progress_bar
from dpcompress.errors import BadInput, UsageError

if TYPE_CHECKING:
    from dpcompress.blueprint import Blueprint, Plan
    from dpcompress.solver import Decision, Frontier, Limit

DECISIONS = "Forced decisions (numbers such as 3 or 3,5-7)"
LIMITS = "More limits"


def solve(
    latency: Annotated[
        Path,
        typer.Option("--latency", metavar="T.csv", help="Latency table, from profile."),
    ],
    importance: Annotated[
        Path,
        typer.Option("--importance", metavar="I.csv", help="Importance, from score."),
    ],
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            metavar="TIME|%|x",
            help="Latency of the whole network: 12.5ms, 25, 70% of the original, or 1.5x "
            "as a speed-up.",
        ),
    ] = None,
    speedup: Annotated[
        float | None,
        typer.Option("--speedup", help="Instead of a budget: times faster, as in 1.5."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="plan.json", help="Write the plan here."),
    ] = None,
    frontier: Annotated[
        Path | None,
        typer.Option("--frontier", metavar="F.csv", help="Write all best plans here."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="F.png", help="Draw the frontier here."),
    ] = None,
    pessimistic: Annotated[
        bool,
        typer.Option(
            "--pessimistic",
            help="Take each latency at the upper end of its spread (95 %), so that noise "
            "in the measurements rarely breaks the budget.",
        ),
    ] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="For each activation and layer: what deciding otherwise would cost.",
        ),
    ] = False,
    keep: Annotated[
        str,
        typer.Option(
            "--keep", rich_help_panel=DECISIONS, help="Activations that have to stay."
        ),
    ] = "",
    drop: Annotated[
        str,
        typer.Option(
            "--drop", rich_help_panel=DECISIONS, help="Activations that have to go."
        ),
    ] = "",
    never_merge: Annotated[
        str,
        typer.Option(
            "--never-merge",
            rich_help_panel=DECISIONS,
            help="Layers that stay convolutions of their own.",
        ),
    ] = "",
    merge: Annotated[
        str,
        typer.Option(
            "--merge",
            rich_help_panel=DECISIONS,
            help="Layers that end up in one convolution, as in 4-6; a single layer "
            "merges with a neighbour.",
        ),
    ] = "",
    also: Annotated[
        list[str] | None,
        typer.Option(
            "--also",
            metavar="T2.csv=BUDGET",
            rich_help_panel=LIMITS,
            help="Keep within a budget on a second engine, device or batch too, given "
            "its latency table. Repeatable.",
        ),
    ] = None,
    blueprint: Annotated[
        Path | None,
        typer.Option(
            "--blueprint",
            metavar="FILE",
            rich_help_panel=LIMITS,
            help="The traced network (blueprint.json of a run): for the limits below, "
            "and for the reasons in --explain.",
        ),
    ] = None,
    max_params: Annotated[
        float | None,
        typer.Option(
            "--max-params", rich_help_panel=LIMITS, help="Parameters of all convolutions."
        ),
    ] = None,
    max_macs: Annotated[
        float | None,
        typer.Option(
            "--max-macs",
            rich_help_panel=LIMITS,
            help="Multiply-accumulates of all convolutions, for one image.",
        ),
    ] = None,
    max_activations: Annotated[
        float | None,
        typer.Option(
            "--max-activations",
            rich_help_panel=LIMITS,
            help="Numbers that a convolution holds at once (input, output, operand of "
            "its add), for one image.",
        ),
    ] = None,
    measure: Annotated[
        str | None,
        typer.Option(
            "--measure",
            metavar="MODEL",
            help="Build the planned network of this model, time it beside the original, "
            "correct the prediction and choose again, until the plan is measured to fit. "
            "On the machine and engine of the table.",
            show_default=False,
        ),
    ] = None,
    model_args: ModelArgs = None,
    epsilon: Annotated[
        float,
        typer.Option(
            "--epsilon",
            help="0 is exact. Otherwise a plan may be this share slower than another "
            "that is as important. For networks of very many layers.",
        ),
    ] = 0.0,
    json: Json = False,
) -> None:
    """Choose which activations stay and which layers merge, within a latency budget.

    The plan is the most important one that fits, exactly: latencies are not rounded, and
    no plan exceeds its budget. One solve finds the best plan for every budget.

    Budgets are about predicted latency, with --measure about measured latency. Machines
    change their speed, so what is measured is the ratio to the original, both timed at
    once; ms are those of the machine as it was when the table was made.

    \b
    Examples:
      dpcompress solve --latency T.csv --importance I.csv --budget 70% -o plan.json
      dpcompress solve --latency T.csv --importance I.csv --frontier F.csv --plot F.png
      dpcompress solve --latency T.csv --importance I.csv --budget 70% -o plan.json \\
          --measure torchvision:mobilenet_v2
    """
    from dpcompress import solver
    from dpcompress.files import write_bytes, write_text
    from dpcompress.tables import ImportanceTable, LatencyTable

    asks = budget or output or explain or measure
    if (budget is None) == (speedup is None) and asks:
        raise UsageError(
            "A plan needs a budget or a speed-up, and only one of them.",
            "Add --budget 70% or --speedup 1.5.",
        )
    if budget is None and speedup is None and frontier is None and plot is None:
        raise UsageError(
            "There is nothing to write or to choose.",
            "Add --budget 70% -o plan.json, or --frontier F.csv.",
        )
    if explain and measure:
        raise UsageError(
            "--explain compares predictions, --measure corrects them.",
            "Leave out one of them.",
        )
    times, scores = LatencyTable.read(latency), ImportanceTable.read(importance)
    network = None if blueprint is None else _read(blueprint)
    asked: dict[str, Any] = {
        "keep": numbers(keep),
        "drop": numbers(drop),
        "never_merge": numbers(never_merge),
        "merge": [(first - 1, last) for first, last in ranges(merge)],
        "limits": [
            *(_also(text, pessimistic) for text in also or ()),
            *_limits(network, times.blueprint, max_params, max_macs, max_activations),
        ],
        "pessimistic": pessimistic,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", solver.ApproximateFrontier)
        found = solver.solve(times, scores, epsilon=epsilon, **asked)
    if frontier is not None:
        found.write(frontier)
    plan, loop, decisions, budget_ms = None, None, [], None
    text = f"{speedup!r}x" if speedup is not None else budget
    if text is not None:
        budget_ms = solver.parse_budget(text, times.original_ms)
        if measure is None:
            plan = found.at(budget_ms)
        else:
            from dpcompress.latency import Store
            from dpcompress.latency.store import default_path
            from dpcompress.pipeline.trials import measured_plan

            arguments = dict(model_args or ())
            with Store(default_path()) as store, progress_bar("Measure") as progress:
                plan, loop, drift = measured_plan(
                    found,
                    budget_ms,
                    times,
                    measure,
                    arguments,
                    store=store,
                    progress=progress,
                )
            if drift:
                console.print(drift, style="yellow")
        if output is not None:
            write_text(output, plan.to_json())
        if explain:
            with progress_bar("Explain") as progress:
                decisions = solver.explain(
                    plan, found.problem, network, progress=progress
                )
    if plot is not None:
        from dpcompress.report import plot_frontier

        chosen = None
        if plan and plan.predicted_ms is not None and plan.importance is not None:
            chosen = plan.measured_ms or plan.predicted_ms, plan.importance
        picture = plot_frontier(
            found.latency_ms.tolist(),
            found.importance.tolist(),
            chosen=chosen,
            budget_ms=budget_ms,
            original_ms=times.original_ms,
            measured=loop is not None,
        )
        write_bytes(plot, picture)
    if json:
        facts = _facts(found, times.original_ms, plan, decisions)
        emit(facts if loop is None else facts | {"loop": loop.model_dump(mode="json")})
    else:
        _print(found, times.original_ms, plan, decisions)
        if loop is not None:
            print(loop.sentence)


def ranges(text: str) -> list[tuple[int, int]]:
    """'3,5-7' → [(3, 3), (5, 7)].

    Raises:
        UsageError: not numbers and ranges separated by commas.
    """
    found = []
    for part in filter(None, text.replace(" ", "").split(",")):
        first, dash, last = part.partition("-")
        numeric = first.isascii() and first.isdigit()
        if dash:
            numeric = numeric and last.isascii() and last.isdigit()
        if not numeric or len(part) > 12 or int(last or first) < int(first):
            raise UsageError(f"{part!r} is no number or range.", "Write 3 or 3,5-7.")
        found.append((int(first), int(last or first)))
    return found


def numbers(text: str) -> list[int]:
    """'3,5-7' → [3, 5, 6, 7]; a range is cut where no network is that deep."""
    return [
        number
        for first, last in ranges(text)
        for number in range(first, min(last, first + 100_000) + 1)
    ]


def _read(path: Path) -> Blueprint:
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
        raise UsageError(f"--also {text} is not FILE=BUDGET.", "Write T2.csv=20ms.")
    table = LatencyTable.read(path)
    budget_ms = parse_budget(budget, table.original_ms)
    return latency_limit(path, upper_bound(table) if pessimistic else table, budget_ms)


def _limits(
    network: Blueprint | None,
    digest: str,
    params: float | None,
    macs: float | None,
    activations: float | None,
) -> list[Limit]:
    from dpcompress.solver import mac_limit, memory_limit, parameter_limit

    asked = [
        (make, at_most)
        for make, at_most in (
            (parameter_limit, params),
            (mac_limit, macs),
            (memory_limit, activations),
        )
        if at_most is not None
    ]
    if not asked:
        return []
    if network is None:
        raise UsageError("These limits need the network.", "Add --blueprint FILE.")
    if digest not in ("", network.digest):
        raise UsageError(
            "--blueprint is another network than that of the tables.",
            "Take model, input and candidate limits that they were made with.",
        )
    return [make(network, at_most) for make, at_most in asked]


def _facts(
    found: Frontier, original_ms: float | None, plan: Plan | None, why: list[Decision]
) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "plans": len(found),
        "least_ms": float(found.latency_ms[0]),
        "most_ms": float(found.latency_ms[-1]),
        "original_ms": original_ms,
        "epsilon": found.epsilon,
        "limits": found.limits,
        "plan": plan and plan.model_dump(mode="json"),
    }
    if why:
        facts["decisions"] = [vars(decision) for decision in why]
    return facts


def _print(
    found: Frontier, original_ms: float | None, plan: Plan | None, why: list[Decision]
) -> None:
    columns = ("predicted ms", "of original", "importance", "convs", "activations")
    last = len(found) - 1
    rows = sorted({round(last * step / 9) for step in range(10)})
    print_table(
        columns,
        [_row(found[row], original_ms) for row in rows],
        title=f"{len(rows)} of {len(found)} best plans",
    )
    if plan is not None:
        print_table(columns, [_row(plan, original_ms)], title="The plan")
        merged = ", ".join(f"{start + 1}-{stop}" for start, stop in plan.merged)
        print(f"merged layers: {merged or 'none'}")
        print(f"activations:   {', '.join(map(str, plan.activations)) or 'none'}")
    for decision in why:
        print(decision)
    if found.epsilon:
        console.print(
            f"approximate: each plan is at most {found.epsilon:.3%} slower than the "
            "fastest one that is as important"
        )


def _row(plan: Plan, original_ms: float | None) -> list[object]:
    share = ""
    if original_ms and plan.predicted_ms:
        share = f"{plan.predicted_ms / original_ms:.0%}"
    return [
        plan.predicted_ms,
        share,
        plan.importance,
        len(plan.spans),
        len(plan.activations),
    ]
