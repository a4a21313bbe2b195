"""Estimates of how good an architecture is.

Those that train need Lightning, which takes seconds to import: they are imported when they are asked for, so that a
search on a table or with a function of its user's does without.
"""

from typing import TYPE_CHECKING

from lightning_nas.evaluators.base import Evaluation, Evaluator
from lightning_nas.evaluators.tabular_benchmark import TabularBenchmark
from lightning_nas.lazy import lazy_names

if TYPE_CHECKING:
    from lightning_nas.evaluators.from_scratch import FromScratch
    from lightning_nas.evaluators.shared_weights import SharedWeights
    from lightning_nas.evaluators.zero_cost import ZeroCost

__all__ = ["Evaluation", "Evaluator", "FromScratch", "SharedWeights", "TabularBenchmark", "ZeroCost"]

__getattr__ = lazy_names(
    __name__, {"FromScratch": "from_scratch", "SharedWeights": "shared_weights", "ZeroCost": "zero_cost"}
)
