"""DepthShrinker (Fu et al. 2022): masks and search, gradual decay, expand-then-shrink."""

from dpcompress.depthshrinker.contract import Contracted, contract
from dpcompress.depthshrinker.expand import Expansion, expand, refusals
from dpcompress.depthshrinker.fading import finetune_fading
from dpcompress.depthshrinker.groups import mask_groups
from dpcompress.depthshrinker.plans import Merger
from dpcompress.depthshrinker.retrain import Retrained, expand_then_shrink
from dpcompress.depthshrinker.search import Found, search
from dpcompress.settings import By

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
    "finetune_fading",
    "mask_groups",
    "refusals",
    "search",
]
