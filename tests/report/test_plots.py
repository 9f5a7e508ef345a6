import io

import matplotlib.image
import numpy as np
import pytest
from torch import nn

from dpcompress.blueprint import Plan
from dpcompress.graph import trace
from dpcompress.report import plot_frontier, plot_structure
from dpcompress.report.figure import ADDED, CHOSEN, KEPT, REMOVED


def area(png, colour):
    """Share of the picture's pixels that have exactly this colour."""
    pixels = matplotlib.image.imread(io.BytesIO(png), format="png")[..., :3]
    wanted = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return float(np.all(np.abs(pixels - wanted) < 1e-3, axis=-1).mean())


def test_frontier_shows_the_chosen_plan():
    points = [1.0, 2.0, 3.0], [-3.0, -1.5, -1.0]
    without, chosen = plot_frontier(*points), plot_frontier(*points, chosen=(2.0, -1.5))
    assert area(without, KEPT) > 0 == area(without, CHOSEN)
    assert area(chosen, CHOSEN) > 0
    assert plot_frontier(*points) == without


@pytest.mark.slow
def test_structure_shows_the_fate_of_every_activation():
    layers = [nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 3, 1), nn.ReLU()]
    blueprint = trace(nn.Sequential(*layers, nn.Conv2d(3, 3, 3, padding=1)), (3, 8, 8))
    kept = plot_structure(blueprint, Plan.build((0, 1, 2, 3), (1, 2)))
    merged = plot_structure(blueprint, Plan.build((0, 2, 3), (2,)))
    added = Plan.build((0, 2, 3), (2, 3), added_activations=(3,))
    assert plot_structure(blueprint, added) == plot_structure(blueprint, added)
    # The legend has a swatch of every colour, so compare areas.
    assert area(merged, REMOVED) > 2 * area(kept, REMOVED)
    assert area(merged, KEPT) < area(kept, KEPT) * 1.05
    assert area(plot_structure(blueprint, added), ADDED) > 2 * area(merged, ADDED)
