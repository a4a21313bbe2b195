"""What a search and a retraining share.

The modules need Lightning, which takes seconds to import, and are imported when they are asked for; optimisers and
schedules do without.
"""

from typing import TYPE_CHECKING

from lightning_nas.lazy import lazy_names
from lightning_nas.training.lr_schedules import Cosine, CosineRestarts, Exponential, Linear, LRSchedule
from lightning_nas.training.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop

if TYPE_CHECKING:
    from lightning_nas.training.module import Module, NetworkModule
    from lightning_nas.training.retrain import Retrain
    from lightning_nas.training.stages import Stage, Staged

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Cosine",
    "CosineRestarts",
    "Exponential",
    "LRSchedule",
    "Linear",
    "Module",
    "NetworkModule",
    "Optimizer",
    "RMSprop",
    "Retrain",
    "Stage",
    "Staged",
]

__getattr__ = lazy_names(
    __name__,
    {"Module": "module", "NetworkModule": "module", "Retrain": "retrain", "Stage": "stages", "Staged": "stages"},
)
