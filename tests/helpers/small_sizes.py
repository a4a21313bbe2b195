"""Sizes at which both implementations of a step take a fraction of a second."""

from benchmarks.rows import Sizes

SMALL = Sizes(
    channels=2,
    cells=3,
    nodes=2,
    layers=1,
    enas_channels=2,
    batch=2,
    image_size=32,  # the auxiliary heads read maps of 8×8
    hidden=5,
    enas_hidden=6,
    text_batch=3,
    window=4,
    vocabulary=11,
    samples=3,
    trials=50,
)
