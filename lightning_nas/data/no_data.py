"""A data module for searches that need no data."""

from typing import Any

from lightning_nas.data.base import DataModule
from lightning_nas.errors import SettingError


class NoData(DataModule):
    """Holds no data, for a search whose evaluator reads results from a file."""

    is_empty = True
    adjustable = frozenset()  # it has no arguments

    def __init__(self) -> None:
        super().__init__(batch_size=1, num_workers=0)

    def stream(self, *args: Any, **kwargs: Any) -> Any:
        raise SettingError("data: this needs data, NoData has none; choose another, such as --data Digits")

    @property
    def has_test(self) -> bool:
        return False

    evaluation = plain_batches = stream

    @property
    def inputs(self) -> dict[str, int]:  # type: ignore[override]
        return self.stream()
