"""DepthShrinker (Fu et al. 2022): masks and search, gradual decay, expand-then-shrink."""

from dpcompress.depthshrinker.groups import By, mask_groups
from dpcompress.depthshrinker.plans import Merger
from dpcompress.depthshrinker.search import Found, search

__all__ = ["By", "Found", "Merger", "mask_groups", "search"]
