"""Scoring a network: any number of processes, resumable, one table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from dpcompress.blueprint import Blueprint, Span
from dpcompress.errors import UsageError
from dpcompress.files import canonical_json, digest
from dpcompress.importance.entries import entries
from dpcompress.importance.finetune import Finetune
from dpcompress.importance.fit import Fit
from dpcompress.importance.journal import ScoreJournal
from dpcompress.importance.protocol import Estimator, Scores
from dpcompress.importance.values import extend, normalise
from dpcompress.importance.workers import Scorer, run
from dpcompress.models import weights_digest
from dpcompress.progress import Progress, silent
from dpcompress.settings import Executor, Metric, Scoring
from dpcompress.tables import MERGE, ImportanceTable, ScoreKey
from dpcompress.training import Data, state_digest


def score(
    model: nn.Module,
    blueprint: Blueprint,
    data: Data,
    *,
    estimator: Estimator | None = None,
    spans: Iterable[Span] | None = None,
    metric: Metric = "loss",
    alpha: float | None = None,
    executor: Executor = "local",
    workers: int | None = None,
    journal: Path | None = None,
    progress: Progress = silent,
) -> ImportanceTable:
    """Score a trained network; the importances are normalised and extended.

    The scores of an entry are deterministic in (weights, blueprint, data, estimator,
    entry), and computed on one thread. So the table does not depend on `executor` and
    `workers`, on order, or on how often the run was killed and called again with the
    same journal.

    Args:
        model: the trained original.
        estimator: default `Finetune()`.
        spans: the spans to score (default: all candidates; see `worth_scoring`).
        metric: the score whose change is the importance: "accuracy" as published, "loss",
            the fall in held-out cross-entropy, which is finer on few images, or "logits",
            how far the outputs move from the original's, where the estimator has it.
        alpha: the shift of `normalise` (default: the estimator's own).
        executor: "local" runs processes on this machine, "ray" a Ray cluster's (or one
            that is started here), with one GPU each where it has some.
        workers: processes (default: one per core, or one where there is a GPU; with
            "ray" one per GPU).
        journal: a file of finished entries, which are found again by digest.
        progress: called after every chunk of entries.

    Raises:
        UsageError: a metric that the estimator does not have.
        MissingPackage: Ray is asked for but not installed.
        BadInput: classes that do not match, unreadable images or journal.
    """
    scorer = Scorer(estimator or Finetune(), model, blueprint, data)
    _require_metric(scorer.estimator, metric)
    wanted = entries(blueprint, spans, free=scorer.estimator.free_activations)
    scores = _scores(scorer, wanted, executor, workers, journal, progress)
    alpha = scorer.estimator.alpha if alpha is None else alpha
    return _table(scorer, scores, metric, alpha)


def estimator_of(scoring: Scoring, trains: bool = True) -> Estimator:
    """Return the estimator that these settings describe.

    Args:
        trains: whether anything may be trained, where the settings leave it open.
    """
    name = scoring.estimator or ("finetune" if trains else "fit")
    if name == "fit":
        return Fit(images=scoring.images, seed=scoring.recipe.seed)
    return Finetune(scoring.recipe, scoring.renew)


def _require_metric(estimator: Estimator, metric: Metric) -> None:
    if metric not in estimator.metrics:
        name = type(estimator).__name__.lower()
        raise UsageError(
            f"The estimator {name} has no metric {metric}.",
            f"Choose {' or '.join(estimator.metrics)}.",
        )


def _scores(
    scorer: Scorer,
    entries: list[ScoreKey],
    executor: Executor,
    workers: int | None,
    journal: Path | None,
    progress: Progress,
) -> dict[ScoreKey | None, Scores]:
    """Return the scores of the original, as None, and of all entries."""
    wanted = [None, *entries]
    context = _context(scorer)
    keys = {entry: digest([context, _place(entry)]) for entry in wanted}
    book = ScoreJournal(journal)
    missing = [entry for entry in wanted if keys[entry] not in book.results]
    done = len(wanted) - len(missing)
    progress(done, len(wanted))
    for chunk, found in run(scorer, scorer.estimator.chunks(missing), executor, workers):
        for entry, scores in zip(chunk, found, strict=True):
            book.add(keys[entry], scores, entry=_place(entry))
        done += len(chunk)
        progress(done, len(wanted), _name(chunk[-1]))
    book.settle()
    return {entry: book.results[keys[entry]] for entry in wanted}


def _context(scorer: Scorer) -> dict[str, Any]:
    """Return what the scores of every entry depend on, besides the entry."""
    return {
        "blueprint": scorer.blueprint.digest,
        "model": state_digest(scorer.model),
        "data": scorer.data.digest,
        "estimator": scorer.estimator.settings,
    }


def _table(
    scorer: Scorer,
    scores: Mapping[ScoreKey | None, Scores],
    metric: Metric,
    alpha: float,
) -> ImportanceTable:
    """Make the table: importances normalised and extended, and what they come from."""
    frame, mean = normalise(_importances(scores, metric), alpha)
    header = {
        **_context(scorer),
        "estimator": canonical_json(scorer.estimator.settings),
        "input": "x".join(map(str, scorer.blueprint.input)),
        "original": weights_digest(scorer.model.state_dict()),
        "heldout_images": len(scorer.data.heldout),
        "metric": metric,
        "alpha": alpha,
        "mean": mean,
        **{f"original_{name}": value for name, value in scores[None].items()},
    }
    return ImportanceTable(extend(frame), {k: str(v) for k, v in header.items()})


def _place(entry: ScoreKey | None) -> list[Any] | None:
    """Write an entry as journals have it."""
    if entry is None:
        return None
    place = [entry.start, entry.stop, int(entry.act_start), int(entry.act_stop)]
    return place if entry.way == MERGE else [*place, entry.way]


def _importances(
    results: Mapping[ScoreKey | None, Scores], metric: Metric
) -> pd.DataFrame:
    """Return a row for each entry: what it changes in `metric`, and its scores."""
    original = results[None]
    sign = 1.0 if metric == "accuracy" else -1.0
    return pd.DataFrame(
        [
            {
                "start": entry.start,
                "stop": entry.stop,
                "act_start": int(entry.act_start),
                "act_stop": int(entry.act_stop),
                "importance": sign * (scores[metric] - original[metric]),
                **scores,
            }
            for entry, scores in results.items()
            if entry is not None
        ]
    )


def _name(entry: ScoreKey | None) -> str:
    return "original" if entry is None else f"layers {entry.start + 1}..{entry.stop}"
