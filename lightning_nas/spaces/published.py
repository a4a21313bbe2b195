"""Architectures from papers, by name. They are accepted wherever an ``architecture.json`` is."""

from collections.abc import Callable

from lightning_nas.spaces.base import Architecture, Space
from lightning_nas.spaces.darts import DARTSCell

_SHORT = {
    "skip": "skip_connect",
    "max": "max_pool_3x3",
    "avg": "avg_pool_3x3",
    "sep3": "sep_conv_3x3",
    "sep5": "sep_conv_5x5",
    "dil3": "dil_conv_3x3",
    "dil5": "dil_conv_5x5",
}

Published = Callable[[], tuple[Space, Architecture, str]]


def _darts(citation: str, normal: str, reduce: str) -> Published:
    def build() -> tuple[Space, Architecture, str]:
        cells = {"normal": normal, "reduce": reduce}
        for short, name in _SHORT.items():
            cells = {kind: genotype.replace(f"{short}(", f"{name}(") for kind, genotype in cells.items()}
        space = DARTSCell()
        return space, space.from_genotype(**cells), citation

    return build


PUBLISHED: dict[str, Published] = {
    "darts_v1": _darts(
        "DARTS, first order (Liu et al. 2019)",
        "sep3(1) sep3(0) | skip(0) sep3(1) | skip(0) sep3(1) | sep3(0) skip(2)",
        "max(0) max(1) | skip(2) max(0) | max(0) skip(2) | skip(2) avg(0)",
    ),
    "darts_v2": _darts(
        "DARTS, second order (Liu et al. 2019)",
        "sep3(0) sep3(1) | sep3(0) sep3(1) | sep3(1) skip(0) | skip(0) dil3(2)",
        "max(0) max(1) | skip(2) max(1) | max(0) skip(2) | skip(2) max(1)",
    ),
    "pdarts": _darts(
        "P-DARTS (Chen et al. 2019)",
        "skip(0) dil3(1) | skip(0) sep3(1) | sep3(1) sep3(3) | sep3(0) dil5(4)",
        "avg(0) sep5(1) | sep3(0) dil5(2) | max(0) dil3(1) | dil3(1) dil5(3)",
    ),
    "snas_mild": _darts(
        "SNAS, mild constraint, two edges per node (Xie et al. 2019)",
        "sep3(0) sep3(1) | skip(0) dil3(1) | skip(0) skip(1) | skip(0) sep3(1)",
        "max(0) max(1) | max(1) skip(2) | max(1) skip(2) | max(0) dil5(2)",
    ),
}
"""Name to a function that builds (space, architecture, citation)."""
