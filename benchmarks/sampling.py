"""Drawing architectures from ENAS's controller: many in one pass, against one after the other."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.counterparts import Counterparts, matched
from benchmarks.measure import Side
from benchmarks.rows import CallRow
from benchmarks.textbook.controller import RecurrentController
from lightning_nas.controllers import LSTMController
from lightning_nas.spaces import ENASRecurrentCell

CONTROLLER = {"hidden": 100, "temperature": 5.0, "tanh_constant": 2.5}
"""That of recurrent cells, as released."""

POLICY = [
    ("start", "start"),
    ("sequence", "lstm"),
    ("heads.0.embedding", "embedding"),
    ("heads.0.output", "operation"),
    ("pointers.input.key", "key"),
    ("pointers.input.query", "query"),
    ("pointers.input.output", "attention"),
]
"""The names of a controller's modules in both implementations."""


def recurrent_controller() -> RecurrentController:
    return RecurrentController(operation_tanh_reduce=1.0, operation_bias=False, **CONTROLLER)


class Sampling(CallRow):
    """Architectures with their log-probabilities, and the graph to differentiate these."""

    name, title = "enas-sampling", "ENAS controller, sampling"

    def controllers(self) -> Counterparts:
        policy, textbook = LSTMController(**CONTROLLER).policy(ENASRecurrentCell()), recurrent_controller()
        return Counterparts(policy, textbook, matched(policy, textbook, POLICY))

    def calls(self) -> dict[Side, Callable[[], Any]]:
        both, n = self.controllers(), self.sizes.samples
        policy, textbook = both.ours.to(self.device), both.textbook.to(self.device)
        return {
            "textbook": lambda: torch.stack([textbook.sample().log_prob for _ in range(n)]),
            "ours": lambda: policy.sample(n).log_prob,
        }

    def gradients(self, dtype: torch.dtype) -> dict[Side, dict[str, Tensor]]:
        """Of the mean log-probability of architectures that ours has drawn."""
        both = self.controllers()
        both.copy_weights()
        drawn = both.ours.sample(self.sizes.samples, torch.Generator().manual_seed(0)).architectures
        policy, textbook = both.ours.to(dtype), both.textbook.to(dtype)
        log_probs = {
            "textbook": torch.stack([textbook.sample(row).log_prob for row in drawn.tolist()]),
            "ours": policy.evaluate(drawn).log_prob,
        }
        found: dict[Side, dict[str, Tensor]] = {}
        for side, module in (("textbook", textbook), ("ours", policy)):
            names, parameters = zip(*module.named_parameters(), strict=True)
            gradients = torch.autograd.grad(log_probs[side].mean(), parameters)
            found[side] = dict(zip(names, gradients, strict=True))
        found["ours"] = both.in_textbook_names(found["ours"])
        return {side: gradients | {"log_probs": log_probs[side].detach()} for side, gradients in found.items()}
