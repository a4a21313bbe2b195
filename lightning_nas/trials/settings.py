"""The settings of a search of many trials: what is refused, and what makes a search another one."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lightning_nas.errors import SettingError, within
from lightning_nas.evaluators.base import Evaluator
from lightning_nas.objectives import Objective
from lightning_nas.specs import class_path
from lightning_nas.strategies.base import Strategy
from lightning_nas.trials.given import summary

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


def parse_objectives(given: Sequence[str | Objective] | None) -> list[Objective]:
    """The objectives of a setting; empty where there are none.

    Raises:
        SettingError: if one is none, or a metric is wanted twice.
    """
    with within("objectives"):
        objectives = [each if isinstance(each, Objective) else Objective.parse(each) for each in given or ()]
    wanted = [objective.metric for objective in objectives if objective.wanted]
    if len(set(wanted)) < len(wanted):
        raise SettingError(f"objectives: each metric wanted once, got {', '.join(map(str, objectives))}")
    return objectives


def usual_objective(evaluator: Evaluator) -> Objective:
    """What an evaluator says is wanted where the user does not.

    Raises:
        SettingError: if it says nothing.
    """
    try:
        return evaluator.objective
    except AttributeError:
        name = type(evaluator).__name__
        raise SettingError(f"objectives: {name} has no objective of its own; say one, such as 'max METRIC'") from None


def check_evaluator(
    evaluator: Evaluator,
    strategy: Strategy,
    objectives: Sequence[Objective],
    n_workers: int,
    data: "DataModule | None",
) -> None:
    """Refuses an evaluator that cannot give what is asked of it, as far as that is known before the first trial.

    Raises:
        SettingError: naming what it lacks, and what it has.
    """
    name = type(evaluator).__name__
    for fidelity in strategy.fidelities:
        check_fidelity(fidelity, evaluator, type(strategy).__name__)
    if evaluator.wants_machine_alone and n_workers > 1:
        raise SettingError(f"executor.n_workers: 1, since {name} measures latencies, which other trials would disturb")
    names = evaluator.metric_names(data)
    for objective in objectives:
        if names is not None and objective.metric not in names:
            there = ", ".join(names)
            raise SettingError(f"objectives: no metric is called {objective.metric!r}; an evaluation has {there}")


def check_fidelity(fidelity: int | None, evaluator: Evaluator, asked_by: str) -> int:
    """The fidelity that an evaluator has where this one is asked for; None: its usual one.

    Raises:
        SettingError: if it has not this one, naming those that it has.
    """
    has = evaluator.fidelities
    if has is None:
        raise SettingError(f"evaluator: {type(evaluator).__name__} has one fidelity; {asked_by} asks for several")
    if fidelity is None:
        return has[-1]
    if fidelity not in has:
        there = f"{has[0]} to {has[-1]}" if isinstance(has, range) else ", ".join(map(str, has))
        raise SettingError(
            f"evaluator: {type(evaluator).__name__} has the fidelities {there}, and not {fidelity}, for which "
            f"{asked_by} asks"
        )
    return fidelity


def describe(loop: Any, data: "DataModule | None") -> dict[str, Any]:
    """What a search is: with anything else of this its trials could not be compared, or not be replayed.

    Args:
        loop: the loop that is the search.
        data: the data module; None: there is none.
    """
    search: dict[str, Any] = {name: _spec(getattr(loop, name)) for name in ("space", "strategy", "evaluator")}
    search["data"] = None if data is None else _spec(data)
    if data is not None and not data.rebuilds:  # the spec does not tell which data they are
        search["data"]["sizes"] = data.sizes()
    if data is not None:
        search["data"]["init_args"].pop("num_workers", None)  # changes no result
    search["objectives"] = [str(objective) for objective in loop.objectives]
    search["try_first"] = [loop.space.to_names(architecture) for architecture in loop.try_first]
    search["known"] = summary(loop.known, loop.space)
    return search | {name: getattr(loop, name) for name in ("seed", "deterministic", "round_size")}


def _spec(value: Any) -> dict[str, Any]:
    try:
        return value.spec
    except (TypeError, AttributeError):  # made from something that is not a plain value; its class will have to do
        return {"class_path": class_path(type(value)), "init_args": {}}
