"""Architectures from papers, by name, as data. They are accepted wherever an ``architecture.json`` is."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from lightning_nas.spaces.base import Architecture, Space
from lightning_nas.spaces.image_cells.darts import DARTSCell
from lightning_nas.spaces.image_cells.enas_micro import ENASMicro
from lightning_nas.spaces.image_cells.nas_bench_201 import NASBench201
from lightning_nas.spaces.image_cells.nasnet import NASNetCell
from lightning_nas.spaces.image_layers.enas_macro import RELEASED_24_LAYERS, ENASMacro
from lightning_nas.spaces.image_layers.mobile import ProxylessMobile
from lightning_nas.spaces.image_layers.spos import ShuffleBlocks
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


@dataclasses.dataclass(frozen=True)
class PublishedArchitecture:
    """An architecture from a paper and what the paper says of it.

    Attributes:
        citation: the method that found it and the paper, in a line.
        year: the year of the paper.
        space: makes the space that it is from.
        genotype: the texts from which the space reads it, in the paper's notation; cells have a normal and a reduction
            one.
        reported: the figure that the paper reports of it; None: there is none that we know.
        n_params: the exact number of parameters of the final network at ``size``, without an auxiliary head.
        size: the settings of that network.
        config: the packaged configuration that retrains it.
        multiply_adds: the exact number for one image in that network, at the space's usual size; None: it is not given.
    """

    citation: str
    year: int
    space: Callable[[], Space]
    genotype: tuple[str, ...]
    reported: str | None
    n_params: int
    size: Mapping[str, Any]
    config: str
    multiply_adds: int | None = None

    def build(self) -> tuple[Space, Architecture, str]:
        """The space, the architecture in it, and the citation."""
        space: Any = self.space()
        if isinstance(space, (DARTSCell, NASNetCell, ENASMicro)):
            cells = dict(zip(("normal", "reduce"), map(_long, self.genotype), strict=True))
            return space, space.from_genotype(**cells), self.citation
        read = space.from_string if isinstance(space, NASBench201) else space.from_genotype
        return space, read(*self.genotype), self.citation

    def describe(self) -> str:
        """A line that says where it is from, how good and how large it is, and how it is retrained."""
        size = ", ".join(f"{name} {value}" for name, value in self.size.items())
        reported = f"{self.reported}; " if self.reported else ""
        costs = f"{self.n_params:,} parameters"
        if self.multiply_adds:
            costs += f" and {self.multiply_adds:,} multiply-adds"
        return f"{self.citation}: {reported}{costs}{f' at {size}' if size else ''}; {self.config}"


def _long(genotype: str) -> str:
    for short, name in _SHORT.items():
        genotype = genotype.replace(f"{short}(", f"{name}(")
    return genotype


def _proxyless(
    target: str,
    widths: tuple[tuple[int, int], tuple[int, ...], int],
    genotype: str,
    accuracy: str,
    n_params: int,
    multiply_adds: int,
) -> PublishedArchitecture:
    first, stages, last = widths
    return PublishedArchitecture(
        citation=f"ProxylessNAS, {target} (Cai et al. 2019)",
        year=2019,
        space=lambda: ProxylessMobile(first=first, widths=stages, last=last),
        genotype=(genotype,),
        reported=f"{accuracy} % test accuracy, ImageNet",
        n_params=n_params,
        size={},
        config="proxylessnas/retrain.yaml",
        multiply_adds=multiply_adds,
    )


_MOBILE = "5/3 3/3 z z | 7/3 3/3 5/3 5/3 | 7/6 5/3 5/3 5/3 | 5/6 5/3 5/3 5/3 | 7/6 7/6 7/3 7/3 | 7/6"
"""The blocks of ProxylessNAS's mobile network, in two widths."""

PUBLISHED: dict[str, PublishedArchitecture] = {
    "darts_v1": PublishedArchitecture(
        citation="DARTS, first order (Liu et al. 2019)",
        year=2019,
        space=DARTSCell,
        genotype=(
            "sep3(1) sep3(0) | skip(0) sep3(1) | skip(0) sep3(1) | sep3(0) skip(2)",
            "max(0) max(1) | skip(2) max(0) | max(0) skip(2) | skip(2) avg(0)",
        ),
        reported="3.00 ± .14 % test error, CIFAR-10",
        n_params=3_169_414,
        size={"channels": 36, "cells": 20},
        config="darts/retrain.yaml",
    ),
    "darts_v2": PublishedArchitecture(
        citation="DARTS, second order (Liu et al. 2019)",
        year=2019,
        space=DARTSCell,
        genotype=(
            "sep3(0) sep3(1) | sep3(0) sep3(1) | sep3(1) skip(0) | skip(0) dil3(2)",
            "max(0) max(1) | skip(2) max(1) | max(0) skip(2) | skip(2) max(1)",
        ),
        reported="2.76 ± .09 % test error, CIFAR-10",
        n_params=3_349_342,
        size={"channels": 36, "cells": 20},
        config="darts/retrain.yaml",
    ),
    "pdarts": PublishedArchitecture(
        citation="P-DARTS (Chen et al. 2019)",
        year=2019,
        space=DARTSCell,
        genotype=(
            "skip(0) dil3(1) | skip(0) sep3(1) | sep3(1) sep3(3) | sep3(0) dil5(4)",
            "avg(0) sep5(1) | sep3(0) dil5(2) | max(0) dil3(1) | dil3(1) dil5(3)",
        ),
        reported="2.50 % test error, CIFAR-10",
        n_params=3_433_798,
        size={"channels": 36, "cells": 20},
        config="p_darts/retrain.yaml",
    ),
    "snas_mild": PublishedArchitecture(
        citation="SNAS, mild constraint, two edges per node (Xie et al. 2019)",
        year=2019,
        space=DARTSCell,
        genotype=(
            "sep3(0) sep3(1) | skip(0) dil3(1) | skip(0) skip(1) | skip(0) sep3(1)",
            "max(0) max(1) | max(1) skip(2) | max(1) skip(2) | max(0) dil5(2)",
        ),
        reported="2.98 % test error, CIFAR-10",
        n_params=2_661_382,
        size={"channels": 36, "cells": 20},
        config="darts/retrain.yaml",
    ),
    "snas_moderate": PublishedArchitecture(
        citation="SNAS, moderate constraint (Xie et al. 2019)",
        year=2019,
        space=partial(DARTSCell, kept=None),
        genotype=(
            "dil5(0) skip(1) | sep3(0) skip(1) | skip(0) skip(1) | sep3(0) dil5(1)",
            "max(0) max(1) | sep5(0) dil5(1) | sep5(0) sep5(1) | sep5(0) sep5(1)",
        ),
        reported="2.85 ± .02 % test error, CIFAR-10",
        n_params=2_848_222,
        size={"channels": 36, "cells": 20, "pool_norm": True},
        config="snas/retrain.yaml",
    ),
    "snas_aggressive": PublishedArchitecture(
        citation="SNAS, aggressive constraint, two nodes without input (Xie et al. 2019)",
        year=2019,
        space=partial(DARTSCell, kept=None),
        genotype=(
            "sep5(0) skip(1) | skip(0) skip(1) | skip(0) dil5(1) | skip(0) dil5(1)",
            "sep5(0) | sep5(0) | |",
        ),
        reported="3.10 % test error, CIFAR-10",
        n_params=2_313_622,
        size={"channels": 36, "cells": 20, "pool_norm": True},
        config="snas/retrain.yaml",
    ),
    "gdas_v1": PublishedArchitecture(
        citation="GDAS (Dong and Yang 2019), cell of the released code",
        year=2019,
        space=DARTSCell,
        genotype=(
            "skip(0) skip(1) | skip(0) sep5(2) | sep3(3) skip(0) | sep5(4) sep3(3)",
            "sep5(0) sep3(1) | sep5(2) sep5(1) | dil5(2) sep3(1) | sep5(0) sep5(1)",
        ),
        reported=None,
        n_params=3_368_782,
        size={"channels": 36, "cells": 20},
        config="darts/retrain.yaml",
    ),
    "nas_bench_201_best": PublishedArchitecture(
        citation="the best of NAS-Bench-201 on CIFAR-10 (Dong and Yang 2020)",
        year=2020,
        space=NASBench201,
        genotype=("|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|",),
        reported="5.63 % test error, CIFAR-10, 200 epochs",
        n_params=1_073_466,
        size={"channels": 16, "cells": 5},
        config="nas_bench_201/retrain.yaml",
    ),
    "nasnet_a_darts": PublishedArchitecture(
        citation="NASNet-A (Zoph et al. 2018) as in DARTS's comparison",
        year=2018,
        space=NASNetCell,
        genotype=(
            "sep5(1) sep3(0) | sep5(0) sep3(0) | avg(1) skip(0) | avg(0) avg(0) | sep3(1) skip(1)",
            "sep5(1) sep7(0) | max(1) sep7(0) | avg(1) sep5(0) | skip(3) avg(2) | sep3(2) max(1)",
        ),
        reported="2.65 % test error, CIFAR-10, with cutout",
        n_params=3_830_950,
        size={"channels": 36, "cells": 20},
        config="darts/retrain.yaml",
    ),
    "enas_micro": PublishedArchitecture(
        citation="ENAS, micro search (Pham et al. 2018)",
        year=2018,
        space=ENASMicro,
        genotype=(
            "avg(0) sep3(0) | skip(0) sep5(0) | skip(0) sep5(1) | sep3(1) sep5(0) | avg(0) sep5(1)",
            "sep3(1) sep3(1) | max(0) avg(0) | sep5(1) sep5(3) | sep3(1) skip(0) | max(0) sep5(1)",
        ),
        reported="2.89 % test error, CIFAR-10, with cutout",
        n_params=3_894_372,
        size={"channels": 36, "layers": 15},
        config="enas/retrain.yaml",
    ),
    "amoebanet_a_darts": PublishedArchitecture(
        citation="AmoebaNet-A (Real et al. 2019) as in DARTS's comparison",
        year=2019,
        space=NASNetCell,
        genotype=(
            "avg(0) max(1) | sep3(0) sep5(2) | sep3(0) avg(3) | sep3(1) skip(1) | skip(0) avg(1)",
            "avg(0) sep3(1) | max(0) sep7(2) | sep7(0) avg(1) | max(0) max(1) | conv_7x1_1x7(0) sep3(5)",
        ),
        reported="3.34 ± .06 % test error, CIFAR-10",
        n_params=3_145_078,
        size={"channels": 36, "cells": 20},
        config="darts/retrain.yaml",
    ),
    "enas_macro": PublishedArchitecture(
        citation="ENAS, macro search, 24 layers (Pham et al. 2018)",
        year=2018,
        space=lambda: ENASMacro(layers=24),
        genotype=(RELEASED_24_LAYERS,),
        reported="3.87 % test error, CIFAR-10, at 38.0 million parameters",
        n_params=30_947_424,
        size={"channels": 96},
        config="enas_macro/retrain.yaml",
    ),
    "proxyless_cpu": _proxyless(
        "CPU",
        ((40, 24), (32, 48, 88, 104, 216, 360), 1432),
        "3/6 3/3 3/3 3/3 | 3/6 3/3 3/3 5/3 | 3/6 z z 3/3 | 5/6 3/3 3/3 3/3 | 5/6 5/3 5/3 3/3 | 5/6",
        "75.29",
        n_params=4_361_648,
        multiply_adds=439_243_864,
    ),
    "proxyless_gpu": _proxyless(
        "GPU",
        ((40, 24), (32, 56, 112, 128, 256, 432), 1728),
        "5/3 z z z | 7/3 z z 3/3 | 7/6 z z 5/3 | 5/6 z 3/3 5/3 | 7/6 7/6 7/6 5/6 | 7/6",
        "75.08",
        n_params=7_119_848,
        multiply_adds=465_260_160,
    ),
    "proxyless_mobile": _proxyless(
        "mobile",
        ((32, 16), (32, 40, 80, 96, 192, 320), 1280),
        _MOBILE,
        "74.59",
        n_params=4_080_512,
        multiply_adds=320_427_584,
    ),
    "proxyless_mobile_14": _proxyless(
        "mobile, 1.4 times as wide",
        ((48, 24), (40, 56, 112, 136, 256, 448), 1792),
        _MOBILE,
        "76.7",
        n_params=6_857_568,
        multiply_adds=580_883_408,
    ),
    "spos_blocks": PublishedArchitecture(
        citation="SPOS, blocks alone (Guo et al. 2020)",
        year=2020,
        space=ShuffleBlocks,
        genotype=("2 1 0 1 | 2 0 2 0 | 2 0 2 3 0 0 0 0 | 3 2 3 3",),
        reported="25.6 % test error, ImageNet",
        n_params=3_558_464,
        size={},
        config="spos/retrain.yaml",
        multiply_adds=322_918_720,
    ),
    "spos_channels": PublishedArchitecture(
        citation="SPOS, blocks and channels (Guo et al. 2020)",
        year=2020,
        space=lambda: ShuffleBlocks(scales=(0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6)),
        genotype=(
            "0:140% 0:120% 3:80% 1:120% | 1:60% 1:140% 0:80% 0:100% | 2:60% 0:120% 2:160% 1:120% 1:100% 0:140% 2:160% "
            "0:100% | 2:100% 1:120% 3:100% 2:80%",
        ),
        reported="25.4 % test error, ImageNet",
        n_params=3_432_579,
        size={},
        config="spos/retrain.yaml",
        multiply_adds=327_857_920,
    ),
    "darts_ptb_v1": PublishedArchitecture(
        citation="DARTS, recurrent cell, first order (Liu et al. 2019)",
        year=2019,
        space=DARTSRecurrentCell,
        genotype=("relu(0) relu(1) tanh(2) relu(3) relu(4) identity(1) relu(5) relu(1)",),
        reported=None,
        n_params=22_960_000,
        size={"hidden": 850},
        config="darts_rnn/retrain.yaml",
    ),
    "darts_ptb_v2": PublishedArchitecture(
        citation="DARTS, recurrent cell, second order (Liu et al. 2019)",
        year=2019,
        space=DARTSRecurrentCell,
        genotype=("sigmoid(0) relu(1) relu(1) identity(1) tanh(2) sigmoid(5) tanh(3) relu(5)",),
        reported="55.7 test perplexity, Penn Treebank",
        n_params=22_960_000,
        size={"hidden": 850},
        config="darts_rnn/retrain.yaml",
    ),
    "enas_ptb": PublishedArchitecture(
        citation="ENAS, recurrent cell (Pham et al. 2018)",
        year=2018,
        space=ENASRecurrentCell,
        genotype=("tanh tanh(0) relu(1) relu(2) tanh(2) tanh(2) relu(5) tanh(1) relu(6) relu(8) relu(8) relu(8)",),
        reported="55.8 test perplexity, Penn Treebank",
        n_params=22_027_104,
        size={"hidden": 748},
        config="enas_rnn/retrain.yaml",
    ),
}
"""Published architectures by their names."""
