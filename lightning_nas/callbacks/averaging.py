"""Averaged SGD, begun when plain SGD gets no further."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging

from lightning_nas.errors import SettingError


class NonMonotoneAveraging(WeightAveraging):
    """Averages the weights over all steps since the validation loss stopped falling (NT-ASGD; Merity, Keskar, Socher
    2018, algorithm 1). Training continues as before; validation, tests and checkpoints have the average.

    Args:
        interval: averaging begins when a validation loss is higher than the lowest of those before the last
            ``interval`` ones (paper 5).
    """

    def __init__(self, interval: int = 5) -> None:
        super().__init__(use_buffers=False)
        if interval < 1:
            raise SettingError(f"interval: at least 1, got {interval}")
        self.interval = interval
        self.losses: list[float] = []
        self.averaging = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and not getattr(pl_module, "validates", False):
            remedy = "set model.train_on to weights, and trainer.limit_val_batches not to 0"
            raise SettingError(f"trainer.callbacks: NonMonotoneAveraging follows the validation loss; {remedy}")
        super().setup(trainer, pl_module, stage)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        if step_idx is None:
            return False
        if not self.averaging:
            assert self._average_model is not None
            self._average_model.n_averaged.zero_()  # the next update copies: so far the average is the weights
        return True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit" or self.averaging:
            return
        loss = float(trainer.callback_metrics["val/loss"])
        self.averaging = len(self.losses) > self.interval and loss > min(self.losses[: -self.interval])
        if self.averaging:
            assert self._average_model is not None
            self._average_model.n_averaged.zero_()  # from the next step on
        self.losses.append(loss)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"losses": self.losses, "averaging": self.averaging}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.losses, self.averaging = state_dict["losses"], state_dict["averaging"]
