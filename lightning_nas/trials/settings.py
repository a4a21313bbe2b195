"""The settings of a search of many trials: what is refused, and what makes a search another one."""

from typing import TYPE_CHECKING, Any

from lightning_nas.errors import SettingError
from lightning_nas.specs import class_path

if TYPE_CHECKING:  # data modules need Lightning, which a search on a table does without
    from lightning_nas.data import DataModule


def check_settings(
    n_trials: int | None,
    budget: float | None,
    deterministic: bool,
    round_size: int,
    n_workers: int,
    max_failures: float,
) -> None:
    """Refuses what is no search.

    Raises:
        SettingError: naming the setting and what is accepted.
    """
    if n_trials is None and budget is None:
        raise SettingError("n_trials: without it the search needs a budget to end")
    if n_trials is not None and n_trials < 1:
        raise SettingError(f"n_trials: at least 1, or null, got {n_trials}")
    if budget is not None and not budget > 0:
        raise SettingError(f"budget: seconds above 0, or null, got {budget}")
    if round_size != 1 and not deterministic:
        raise SettingError("round_size: there are no rounds unless deterministic is true")
    if deterministic and round_size < n_workers:
        raise SettingError(
            f"round_size: at least {n_workers}, the number of workers, got {round_size}; or set deterministic to false"
        )
    if not max_failures >= 0 or (0 < max_failures < 1 and n_trials is None):
        raise SettingError(f"max_failures: 0 or more, and no share unless n_trials is given, got {max_failures}")


def describe(loop: Any, data: "DataModule | None") -> dict[str, Any]:
    """What a search is: with anything else of this its trials could not be compared, or not be replayed.

    Args:
        loop: the loop that is the search.
        data: the data module; None: there is none.
    """
    search: dict[str, Any] = {name: _spec(getattr(loop, name)) for name in ("space", "strategy", "evaluator")}
    search["data"] = None if data is None else _spec(data)
    if data is not None:
        search["data"]["init_args"].pop("num_workers", None)  # changes no result
    return search | {name: getattr(loop, name) for name in ("seed", "deterministic", "round_size")}


def _spec(value: Any) -> dict[str, Any]:
    try:
        return value.spec
    except (TypeError, AttributeError):  # made from something that is not a plain value; its class will have to do
        return {"class_path": class_path(type(value)), "init_args": {}}
