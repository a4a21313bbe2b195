"""Search spaces: what there is to choose, and the networks in which the choices live."""

from lightning_nas.spaces.base import Architecture, Choice, Gate, Gates, Space
from lightning_nas.spaces.darts import DARTSCell
from lightning_nas.spaces.published import PUBLISHED

__all__ = ["PUBLISHED", "Architecture", "Choice", "DARTSCell", "Gate", "Gates", "Space"]
