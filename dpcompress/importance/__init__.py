"""The importance of each span's activations: estimators, and the table that they fill."""

from dpcompress.importance.entries import entries, plan_of, worth_scoring
from dpcompress.importance.finetune import Finetune
from dpcompress.importance.fit import Fit, calibration_images
from dpcompress.importance.protocol import Chunk, Estimator, Scores
from dpcompress.importance.score import estimator_of, score
from dpcompress.importance.values import extend, normalise

__all__ = [
    "Chunk",
    "Estimator",
    "Finetune",
    "Fit",
    "Scores",
    "calibration_images",
    "entries",
    "estimator_of",
    "extend",
    "normalise",
    "plan_of",
    "score",
    "worth_scoring",
]
