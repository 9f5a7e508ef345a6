"""DepthShrinker (Fu et al. 2022): masks and search, gradual decay, expand-then-shrink."""

from dpcompress.depthshrinker.contract import Contracted, contract
from dpcompress.depthshrinker.expand import Expansion, expand, refusals
from dpcompress.depthshrinker.finetune import finetune
from dpcompress.depthshrinker.groups import By, mask_groups
from dpcompress.depthshrinker.plans import Merger
from dpcompress.depthshrinker.retrain import Retrained, expand_then_shrink
from dpcompress.depthshrinker.search import Found, search

__all__ = [
    "By",
    "Contracted",
    "Expansion",
    "Found",
    "Merger",
    "Retrained",
    "contract",
    "expand",
    "expand_then_shrink",
    "finetune",
    "mask_groups",
    "refusals",
    "search",
]
