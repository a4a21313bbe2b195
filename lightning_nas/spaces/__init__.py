"""Search spaces: what there is to choose, and the networks in which the choices live."""

from lightning_nas.spaces.base import Architecture, Choice, Gate, Gates, Space
from lightning_nas.spaces.image_cells.darts import DARTSCell
from lightning_nas.spaces.image_cells.enas_micro import ENASMicro
from lightning_nas.spaces.image_cells.nas_bench_201 import NASBench201
from lightning_nas.spaces.image_cells.nasnet import NASNetCell
from lightning_nas.spaces.image_layers.enas_macro import ENASMacro
from lightning_nas.spaces.image_layers.mobile import ProxylessMobile
from lightning_nas.spaces.image_layers.spos import ShuffleBlocks
from lightning_nas.spaces.own.space import OwnSpace
from lightning_nas.spaces.published import PUBLISHED
from lightning_nas.spaces.recurrent.darts import DARTSRecurrentCell
from lightning_nas.spaces.recurrent.enas import ENASRecurrentCell

__all__ = [
    "PUBLISHED",
    "Architecture",
    "Choice",
    "DARTSCell",
    "DARTSRecurrentCell",
    "ENASMacro",
    "ENASMicro",
    "ENASRecurrentCell",
    "Gate",
    "Gates",
    "NASBench201",
    "NASNetCell",
    "OwnSpace",
    "ProxylessMobile",
    "ShuffleBlocks",
    "Space",
]
