"""How far both implementations are from float64, and from each other in it."""

import dataclasses
from typing import Self

import torch
from torch import Tensor

from benchmarks.measure import SIDES, Side
from benchmarks.rows import Row

SAME = 1e-9
"""The largest difference in float64, by the norm, between two implementations of the same mathematics."""


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Norms of differences, divided by the norm of what the textbook has in float64.

    Attributes:
        exact: the largest difference between the sides in float64, over all losses and gradients, and where it is.
        errors: by group, that of each side in float32: of every loss, every gradient of alphas, and all gradients of
            weights together.
    """

    exact: tuple[float, str]
    errors: dict[str, dict[Side, float]]

    @classmethod
    def of(cls, row: Row) -> Self | None:
        """None where there is nothing to differentiate.

        Raises:
            AssertionError: if the sides do not compute the same.
        """
        double, single = row.gradients(torch.float64), row.gradients(torch.float32)
        if not double:
            return None
        reference, ours = double["textbook"], double["ours"]
        whole = torch.linalg.vector_norm(_together(reference))
        # what is zero but for rounding is compared with the whole
        floors = {name: 1e-6 * whole * (not name.startswith("train/")) for name in reference}
        exact = max((error(ours[name], value, floors[name]), name) for name, value in reference.items())
        if not exact[0] < SAME:
            raise AssertionError(f"{row.title}: {exact[1]} differs by {exact[0]:.1e} in float64")
        groups: dict[str, list[str]] = {}
        for name in reference:
            apart = "/" in name or name.startswith("alphas") or name == "log_probs"
            groups.setdefault(name if apart else "weights", []).append(name)
        errors: dict[str, dict[Side, float]] = {}
        for group, names in groups.items():
            wanted = _together({name: reference[name] for name in names})
            found = {side: _together({name: single[side][name] for name in names}) for side in SIDES}
            errors[group] = {side: error(found[side], wanted) for side in SIDES}
        return cls(exact, errors)

    def describe(self) -> str:
        parts = [f"{group} {each['textbook']:.0e} / {each['ours']:.0e}" for group, each in self.errors.items()]
        return f"float64: {self.exact[0]:.0e}; float32: " + ", ".join(parts)


def error(found: Tensor, reference: Tensor, floor: float | Tensor = 0.0) -> float:
    """The norm of the difference, divided by the reference's, or by ``floor`` if that is more."""
    difference = torch.linalg.vector_norm(found.double() - reference.double())
    size = torch.linalg.vector_norm(reference.double())
    return float(difference / size.clamp_min(max(float(floor), 1e-300)))


def _together(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.double().reshape(-1) for tensor in tensors.values()])
