"""REINFORCE (Williams 1992) with a moving average as baseline, as NAS-RL and ENAS train their controllers."""

from torch import Tensor

from lightning_nas.controllers.updates.base import ControllerUpdate


class Reinforce(ControllerUpdate):
    """REINFORCE: the gradient of a step is, in expectation, that of the expected reward.

    The loss is ``-mean(log p · (R' − b))``, ``R' = R + entropy_weight · entropy``; then b moves. Where the entropy is
    differentiated, R' is R and the entropy's mean is subtracted from the loss.

    Args:
        decay: the decay of b, the moving average of R', for each architecture (ENAS .99, the script of NAS-Bench-201
            .9).
        entropy_weight: the weight of the entropy, summed over an architecture's choices, in units of the reward per nat
            (released ENAS: 1e-3 for recurrent cells, 1e-4 else; paper 1e-4 and .1).
        baseline: the value from which b starts. ENAS starts at 0, so that at first all architectures drawn become more
            probable, the better ones more; a guess of the usual reward saves these steps. None: b has the correction
            for its start that Adam's averages have, and the first rewards are compared with their own mean.
        differentiate_entropy: whether the entropy is a term of the loss with a gradient of its own, instead of a
            constant that is added to the reward (ENAS).
    """

    def __init__(
        self,
        decay: float = 0.99,
        entropy_weight: float = 0.0,
        baseline: float | None = None,
        differentiate_entropy: bool = False,
    ) -> None:
        super().__init__(decay, entropy_weight, baseline, differentiate_entropy)

    def gain(self, log_prob: Tensor, drawn: Tensor, advantages: Tensor) -> Tensor:
        return log_prob * advantages
