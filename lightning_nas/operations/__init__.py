"""Candidate operations by the field's names, and the views of a state that several operations share."""

from lightning_nas.operations.convolutions import FactorizedReduce, Pointwise, ReLUConvBN, drop_path
from lightning_nas.operations.own import own_operations, register_operation
from lightning_nas.operations.registry import DARTS_OPERATIONS, NORMALIZED_POOLS, OPERATIONS, Operation, View

__all__ = [
    "DARTS_OPERATIONS",
    "NORMALIZED_POOLS",
    "OPERATIONS",
    "FactorizedReduce",
    "Operation",
    "Pointwise",
    "ReLUConvBN",
    "View",
    "drop_path",
    "own_operations",
    "register_operation",
]
