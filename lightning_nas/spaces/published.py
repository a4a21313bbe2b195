"""Architectures from papers, by name. They are accepted wherever an ``architecture.json`` is."""

from collections.abc import Callable

from lightning_nas.spaces.base import Architecture, Space
from lightning_nas.spaces.image_cells.darts import DARTSCell
from lightning_nas.spaces.image_cells.enas_micro import ENASMicro
from lightning_nas.spaces.image_cells.nas_bench_201 import NASBench201
from lightning_nas.spaces.image_cells.nasnet import NASNetCell
from lightning_nas.spaces.image_layers.enas_macro import RELEASED_24_LAYERS, ENASMacro
from lightning_nas.spaces.recurrent.darts import DARTSRecurrentCell
from lightning_nas.spaces.recurrent.enas import ENASRecurrentCell

_SHORT = {
    "skip": "skip_connect",
    "max": "max_pool_3x3",
    "avg": "avg_pool_3x3",
    "sep3": "sep_conv_3x3",
    "sep5": "sep_conv_5x5",
    "dil3": "dil_conv_3x3",
    "dil5": "dil_conv_5x5",
    "sep7": "sep_conv_7x7",
}

Published = Callable[[], tuple[Space, Architecture, str]]


def _cells(
    family: type[DARTSCell] | type[NASNetCell] | type[ENASMicro], citation: str, normal: str, reduce: str
) -> Published:
    def build() -> tuple[Space, Architecture, str]:
        cells = {"normal": normal, "reduce": reduce}
        for short, name in _SHORT.items():
            cells = {kind: genotype.replace(f"{short}(", f"{name}(") for kind, genotype in cells.items()}
        space = family()
        return space, space.from_genotype(**cells), citation

    return build


def _enas_macro() -> tuple[Space, Architecture, str]:
    space = ENASMacro(layers=24)
    return space, space.from_genotype(RELEASED_24_LAYERS), "ENAS, macro search, 24 layers (Pham et al. 2018)"


def _nas_bench_201(citation: str, text: str) -> Published:
    def build() -> tuple[Space, Architecture, str]:
        space = NASBench201()
        return space, space.from_string(text), citation

    return build


def _recurrent(family: type[DARTSRecurrentCell] | type[ENASRecurrentCell], citation: str, genotype: str) -> Published:
    def build() -> tuple[Space, Architecture, str]:
        space = family()
        return space, space.from_genotype(genotype), citation

    return build


PUBLISHED: dict[str, Published] = {
    "darts_v1": _cells(
        DARTSCell,
        "DARTS, first order (Liu et al. 2019)",
        "sep3(1) sep3(0) | skip(0) sep3(1) | skip(0) sep3(1) | sep3(0) skip(2)",
        "max(0) max(1) | skip(2) max(0) | max(0) skip(2) | skip(2) avg(0)",
    ),
    "darts_v2": _cells(
        DARTSCell,
        "DARTS, second order (Liu et al. 2019)",
        "sep3(0) sep3(1) | sep3(0) sep3(1) | sep3(1) skip(0) | skip(0) dil3(2)",
        "max(0) max(1) | skip(2) max(1) | max(0) skip(2) | skip(2) max(1)",
    ),
    "pdarts": _cells(
        DARTSCell,
        "P-DARTS (Chen et al. 2019)",
        "skip(0) dil3(1) | skip(0) sep3(1) | sep3(1) sep3(3) | sep3(0) dil5(4)",
        "avg(0) sep5(1) | sep3(0) dil5(2) | max(0) dil3(1) | dil3(1) dil5(3)",
    ),
    "snas_mild": _cells(
        DARTSCell,
        "SNAS, mild constraint, two edges per node (Xie et al. 2019)",
        "sep3(0) sep3(1) | skip(0) dil3(1) | skip(0) skip(1) | skip(0) sep3(1)",
        "max(0) max(1) | max(1) skip(2) | max(1) skip(2) | max(0) dil5(2)",
    ),
    "nas_bench_201_best": _nas_bench_201(
        "the best of NAS-Bench-201 on CIFAR-10 (Dong and Yang 2020)",
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|",
    ),
    "nasnet_a_darts": _cells(
        NASNetCell,
        "NASNet-A (Zoph et al. 2018) as in DARTS's comparison",
        "sep5(1) sep3(0) | sep5(0) sep3(0) | avg(1) skip(0) | avg(0) avg(0) | sep3(1) skip(1)",
        "sep5(1) sep7(0) | max(1) sep7(0) | avg(1) sep5(0) | skip(3) avg(2) | sep3(2) max(1)",
    ),
    "enas_micro": _cells(
        ENASMicro,
        "ENAS, micro search (Pham et al. 2018)",
        "avg(0) sep3(0) | skip(0) sep5(0) | skip(0) sep5(1) | sep3(1) sep5(0) | avg(0) sep5(1)",
        "sep3(1) sep3(1) | max(0) avg(0) | sep5(1) sep5(3) | sep3(1) skip(0) | max(0) sep5(1)",
    ),
    "amoebanet_a_darts": _cells(
        NASNetCell,
        "AmoebaNet-A (Real et al. 2019) as in DARTS's comparison",
        "avg(0) max(1) | sep3(0) sep5(2) | sep3(0) avg(3) | sep3(1) skip(1) | skip(0) avg(1)",
        "avg(0) sep3(1) | max(0) sep7(2) | sep7(0) avg(1) | max(0) max(1) | conv_7x1_1x7(0) sep3(5)",
    ),
    "enas_macro": _enas_macro,
    "darts_ptb_v1": _recurrent(
        DARTSRecurrentCell,
        "DARTS, recurrent cell, first order (Liu et al. 2019)",
        "relu(0) relu(1) tanh(2) relu(3) relu(4) identity(1) relu(5) relu(1)",
    ),
    "darts_ptb_v2": _recurrent(
        DARTSRecurrentCell,
        "DARTS, recurrent cell, second order (Liu et al. 2019)",
        "sigmoid(0) relu(1) relu(1) identity(1) tanh(2) sigmoid(5) tanh(3) relu(5)",
    ),
    "enas_ptb": _recurrent(
        ENASRecurrentCell,
        "ENAS, recurrent cell (Pham et al. 2018)",
        "tanh tanh(0) relu(1) relu(2) tanh(2) tanh(2) relu(5) tanh(1) relu(6) relu(8) relu(8) relu(8)",
    ),
}
"""Name to a function that builds (space, architecture, citation)."""
