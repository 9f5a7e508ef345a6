"""``dpcompress solve``: the best plan for a budget, and the frontier of all plans."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpcompress.cli.constraints import constraints_of, read_blueprint
from dpcompress.cli.files import OUTPUT, Json
from dpcompress.cli.output import console, emit, progress_bar
from dpcompress.cli.solution import print_solution, solution_facts
from dpcompress.errors import UsageError

if TYPE_CHECKING:
    from pydantic import Field, JsonValue

    from dpcompress.blueprint import Plan
    from dpcompress.pipeline.closed_loop import Loop
    from dpcompress.settings import (
        BUDGET_FIELD,
        MODEL_ARGS_FIELD,
        Caps,
        Decisions,
        ModelArgs,
        Panel,
        Shown,
    )
    from dpcompress.solver import Frontier
    from dpcompress.tables import LatencyTable


def solve(
    latency: Annotated[
        Path,
        typer.Option("--latency", metavar="T.csv", help="Latency table, from profile."),
    ],
    importance: Annotated[
        Path,
        typer.Option("--importance", metavar="I.csv", help="Importance, from score."),
    ],
    decisions: Decisions,
    caps: Caps,
    budget: Annotated[str | None, Shown("TIME|%|x", Panel.BUDGET), BUDGET_FIELD] = None,
    speedup: Annotated[
        float | None,
        Shown(panel=Panel.BUDGET),
        Field(description="Instead of a budget: times faster, as in 1.5."),
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
            rich_help_panel=Panel.BUDGET,
        ),
    ] = None,
    model_args: Annotated[
        ModelArgs | None, Shown("NAME=VALUE", Panel.BUDGET), MODEL_ARGS_FIELD
    ] = None,
    pessimistic: Annotated[
        bool,
        typer.Option(
            "--pessimistic",
            help="Take each latency at the upper end of its spread (95 %), so that noise "
            "in the measurements rarely breaks the budget.",
            rich_help_panel=Panel.BUDGET,
        ),
    ] = False,
    also: Annotated[
        list[str] | None,
        typer.Option(
            "--also",
            metavar="T2.csv=BUDGET",
            rich_help_panel=Panel.LIMITS,
            help="Keep within a budget on a second engine, device or batch too, given "
            "its latency table. Repeatable.",
        ),
    ] = None,
    blueprint: Annotated[
        Path | None,
        typer.Option(
            "--blueprint",
            metavar="FILE",
            rich_help_panel=Panel.LIMITS,
            help="The traced network (blueprint.json of a run): for the limits above, "
            "and for the reasons in --explain.",
        ),
    ] = None,
    epsilon: Annotated[
        float,
        Field(
            description="0 is exact. Otherwise a plan may be this share slower than "
            "another that is as important. For networks of very many layers.",
        ),
    ] = 0.0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="plan.json",
            help="Write the plan here.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    frontier: Annotated[
        Path | None,
        typer.Option(
            "--frontier",
            metavar="F.csv",
            help="Write all best plans here.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            metavar="F.png",
            help="Draw the frontier here.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="For each activation and layer: what deciding otherwise would cost.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Choose which activations stay and which layers merge, within a latency budget.

    The plan is exactly the most important one that fits: latencies are not rounded, and
    no plan exceeds its budget. One solve finds the best plan for every budget.

    Budgets are about predicted latency, with --measure about measured latency. A
    machine's speed changes, so --measure takes the ratio to the original, timed side by
    side; ms are those of the machine as it was when the table was made.

    \b
    Examples:
      dpcompress solve --latency T.csv --importance I.csv --budget 70% -o plan.json
      dpcompress solve --latency T.csv --importance I.csv --frontier F.csv --plot F.png
      dpcompress solve --latency T.csv --importance I.csv --budget 70% -o plan.json \\
          --measure torchvision:mobilenet_v2
    """
    from dpcompress import solver
    from dpcompress.files import write_text
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
    network = None if blueprint is None else read_blueprint(blueprint)
    asked = constraints_of(decisions, caps, also or [], pessimistic, network, times)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", solver.ApproximateFrontier)
        found = solver.solve(times, scores, epsilon=epsilon, **asked)
    if frontier is not None:
        found.write(frontier)
    plan, loop, why, budget_ms = None, None, [], None
    text = budget if speedup is None else f"{speedup!r}x"
    if text is not None:
        budget_ms = solver.parse_budget(text, times.original_ms)
        if measure is None:
            plan = found.at(budget_ms)
        else:
            arguments = model_args or {}
            plan, loop = _measured(found, budget_ms, times, measure, arguments)
        if output is not None:
            write_text(output, plan.to_json())
        if explain:
            with progress_bar("Explain") as bar:
                why = solver.explain(plan, found.problem, network, progress=bar)
    if plot is not None:
        _plot(plot, found, times, plan, budget_ms)
    if json:
        facts = solution_facts(found, times.original_ms, plan, why)
        emit(facts if loop is None else facts | {"loop": loop.model_dump(mode="json")})
    else:
        print_solution(found, times.original_ms, plan, why)
        if loop is not None:
            print(loop.sentence)


def _measured(
    found: Frontier,
    budget_ms: float,
    times: LatencyTable,
    model: str,
    arguments: dict[str, JsonValue],
) -> tuple[Plan, Loop]:
    """The plan that is measured to fit; says so if the machine's speed has changed."""
    from dpcompress.latency import Store
    from dpcompress.latency.store import default_path
    from dpcompress.pipeline.trials import measured_plan

    with Store(default_path()) as store, progress_bar("Measure") as progress:
        plan, loop, drift = measured_plan(
            found, budget_ms, times, model, arguments, store=store, progress=progress
        )
    if drift:
        console.print(drift, style="yellow")
    return plan, loop


def _plot(
    path: Path,
    found: Frontier,
    times: LatencyTable,
    plan: Plan | None,
    budget_ms: float | None,
) -> None:
    from dpcompress.files import write_bytes
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
        measured=plan is not None and plan.measured_ms is not None,
    )
    write_bytes(path, picture)
