"""What tests of pictures draw, and what they read off a drawing."""

import numpy as np
from own_cells import OWN_CELLS

from unrolled import cells
from unrolled.network import Network

CELLS = {**cells.catalogue(), **OWN_CELLS}


def traced(cell=cells.lstm, T=7, B=2, H=4, layers=1, bidirectional=False, **options):
    network = Network.init(cell, 4, H, layers, bidirectional, rng=0)
    x = np.random.default_rng(1).standard_normal((T, B, 4))
    return network.trace(x, **options)


def image(ax):
    """The array that axes show, blanks as NaN."""
    return np.ma.filled(ax.images[0].get_array().astype(float), np.nan)


def ticks(axis):
    """Place → what is written there, of the labels that are seen."""
    low, high = sorted(axis.get_view_interval())
    labels = axis.get_ticklabels()  # none of an axis that hides them
    found = zip(axis.get_majorticklocs(), labels, strict=bool(labels))
    return {float(at): label.get_text() for at, label in found if low <= at <= high}


def assert_whole(figure):
    """Nothing that was drawn is cut off at the figure's edge."""
    drawn, page = figure.get_tightbbox(), figure.bbox_inches
    assert page.x0 <= drawn.x0 < drawn.x1 <= page.x1
    assert page.y0 <= drawn.y0 < drawn.y1 <= page.y1
