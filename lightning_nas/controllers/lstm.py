"""The LSTM controller of ENAS (Pham, Guan, Zoph, Le, Dean, ICML 2018), after NAS-RL (Zoph and Le, ICLR 2017)."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from lightning_nas.controllers.base import Controller
from lightning_nas.errors import SettingError

Memory = Sequence[tuple[Tensor, Tensor] | None]
"""Hidden and cell state of each layer, ``(n, width)`` each; None: zeros."""


class LSTMController(Controller):
    """Policies whose sequence model is an LSTM without biases.

    Args:
        hidden: units of a layer (released ENAS: 100 for recurrent cells, else 64).
        layers: NAS-RL has two of 35 units.
        others: settings of every controller by name; see :class:`Controller`.
    """

    def __init__(self, hidden: int = 64, layers: int = 1, **others: Any) -> None:
        super().__init__(**others)
        for name, value in (("hidden", hidden), ("layers", layers)):
            if value < 1:
                raise SettingError(f"{name}: at least 1, got {value}")
        self.width = hidden
        self.layers = layers

    def sequence(self, steps: int) -> nn.Module:
        return LSTM(self.width, self.layers)


class LSTM(nn.Module):
    """Layers of LSTM cells, one step at a time; see :meth:`Controller.sequence`."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.cells = nn.ModuleList(nn.LSTMCell(width, width, bias=False) for _ in range(layers))

    def forward(self, x: Tensor, memory: Memory | None = None) -> tuple[Tensor, Memory]:
        after = []
        for cell, before in zip(self.cells, memory or [None] * len(self.cells), strict=True):
            after.append(cell(x, before))
            x = after[-1][0]
        return x, after
