"""Data, the training loop, and what a network is worth on images."""

from dpcompress.settings import Recipe
from dpcompress.training.checkpoint import state_digest
from dpcompress.training.data import Data, load_data
from dpcompress.training.evaluate import (
    Metrics,
    check_above_chance,
    check_classes,
    evaluate,
    predict_logits,
)
from dpcompress.training.finetune import Epoch, finetune
from dpcompress.training.images import Split
from dpcompress.training.objective import Extension
from dpcompress.training.seeding import deterministic, seed_of, seeded

__all__ = [
    "Data",
    "Epoch",
    "Extension",
    "Metrics",
    "Recipe",
    "Split",
    "check_above_chance",
    "check_classes",
    "deterministic",
    "evaluate",
    "finetune",
    "load_data",
    "predict_logits",
    "seed_of",
    "seeded",
    "state_digest",
]
