"""Estimates of how good an architecture is.

Those that train need Lightning, which takes seconds to import: they are imported when they are asked for, so that a
search with a table or with a function of its user's does without.
"""

import importlib
from typing import TYPE_CHECKING, Any

from lightning_nas.evaluators.base import Evaluation, Evaluator
from lightning_nas.evaluators.table import Table

if TYPE_CHECKING:
    from lightning_nas.evaluators.from_scratch import FromScratch
    from lightning_nas.evaluators.shared_weights import Scorer, SharedWeights

__all__ = ["Evaluation", "Evaluator", "FromScratch", "Scorer", "SharedWeights", "Table"]

_LATER = {"FromScratch": "from_scratch", "Scorer": "shared_weights", "SharedWeights": "shared_weights"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
