"""Search spaces: what there is to choose, and the networks in which the choices live."""

from lightning_nas.spaces.base import Architecture, Choice, Gate, Gates, Space
from lightning_nas.spaces.darts import DARTSCell
from lightning_nas.spaces.darts_rnn import DARTSRecurrentCell
from lightning_nas.spaces.enas_macro import ENASMacro
from lightning_nas.spaces.enas_micro import ENASMicro
from lightning_nas.spaces.enas_rnn import ENASRecurrentCell
from lightning_nas.spaces.nas_bench_201 import NASBench201
from lightning_nas.spaces.nasnet import NASNetCell
from lightning_nas.spaces.published import PUBLISHED

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
    "Space",
]
