"""Networks by name, and their weights: torchvision, timm, or the user's own function."""

from dpcompress.models.library import ModelTransform, default_input, model_transform
from dpcompress.models.load_model import load_model
from dpcompress.models.origin import (
    Origin,
    read_metadata,
    read_origin,
    require_origin,
    weights_digest,
)
from dpcompress.models.weights import load_weights, read_state_dict, save_weights

__all__ = [
    "ModelTransform",
    "Origin",
    "default_input",
    "load_model",
    "load_weights",
    "model_transform",
    "read_metadata",
    "read_origin",
    "read_state_dict",
    "require_origin",
    "save_weights",
    "weights_digest",
]
