"""Pictures of what was chosen and why."""

from dpcompress.report.fidelity import plot_predictions
from dpcompress.report.frontier import plot_frontier
from dpcompress.report.masks import plot_masks
from dpcompress.report.structure import plot_structure

__all__ = ["plot_frontier", "plot_masks", "plot_predictions", "plot_structure"]
