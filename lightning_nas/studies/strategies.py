"""Which strategy finds the better architectures? Strategies on one evaluator, each from many seeds.

A study as a file, for ``study search --config``::

    space: NASBench201
    evaluator:
      class_path: TabularBenchmark
      init_args:
        path: nasbench201.csv.gz
        digits: arch
        guide: c10v_val_12
        report: [c10_test_200]
        cost: c10v_train_s_per_epoch
        cost_factor: 12
    strategies:
      random: RandomSearch
      evolution: {class_path: AgingEvolution, init_args: {population: 10, sample: 3}}
      REINFORCE: {class_path: PolicyGradient, init_args: {optimizer: {class_path: Adam, init_args: {lr: 0.01}}}}
    report: c10_test_200
    budget: 12000
    seeds: 500
"""

import dataclasses
import itertools
import statistics
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_nas.errors import SettingError
from lightning_nas.evaluators.base import Evaluator
from lightning_nas.executors.jobs import in_processes
from lightning_nas.files import write_table
from lightning_nas.operations import own_operations, register_operation
from lightning_nas.operations.own import Builder
from lightning_nas.pictures.curves import Curve, draw_curves
from lightning_nas.spaces.base import Space
from lightning_nas.specs import class_path
from lightning_nas.strategies.base import Strategy
from lightning_nas.studies.folder import StudyFolder
from lightning_nas.trials.anytime import Limit, Run, run_search
from lightning_nas.trials.searches_file import Job, SearchesFile
from lightning_nas.trials.settings import usual_objective

if TYPE_CHECKING:  # data modules need Lightning, which a search on a table does without
    from lightning_nas.data import DataModule

N_PLACES = 200
"""Of a curve over seconds."""

SEARCHES = "searches.jsonl"
"""The name of the file of the searches that have ended."""


@dataclasses.dataclass(frozen=True)
class SearchStudy:
    """What strategies found.

    Attributes:
        runs: by strategy, for each seed from 0 on.
        limit: the limit at which every run ended.
        report: the metric that is shown of what was found; None: the score, which decides.
        folder: with ``search.csv`` and ``search.svg``.
    """

    runs: dict[str, list[Run]]
    limit: Limit
    report: str | None
    folder: Path

    @property
    def found(self) -> dict[str, list[float]]:
        """What is shown of the architecture found, by strategy, for each seed."""
        return {name: [run.incumbents[-1].value(self.report) for run in runs] for name, runs in self.runs.items()}

    def curves(self) -> dict[str, Curve]:
        """What is shown of the best so far: against seconds if there is a budget, else against trials."""
        budget = self.limit.budget
        curves = {}
        for name, runs in self.runs.items():
            if budget is None:
                steps = [[(float(i.n_trials), i.value(self.report)) for i in run.incumbents] for run in runs]
                places: list[float] = list(range(1, max(run.n_trials for run in runs) + 1))
            else:  # what ends beyond the budget counts at its end
                steps = [[(min(i.seconds, budget), i.value(self.report)) for i in run.incumbents] for run in runs]
                places = [budget * k / N_PLACES for k in range(N_PLACES + 1)]
            curves[name] = Curve.of(steps, places)
        return curves

    def describe(self) -> str:
        """The table: mean ± standard deviation over seeds, and paired differences from the first strategy."""
        from scipy.stats import ttest_rel

        (first, reference), *others = self.found.items()
        shown = "score" if self.report is None else self.report
        lines = [
            f"{shown} of the architecture with the best score, {len(reference)} seeds, {self.limit} each, "
            "mean ± standard deviation",
            _row("", [shown, "score", "trials"]),
        ]
        for name, runs in self.runs.items():
            scores = [run.incumbents[-1].trial.score for run in runs]
            n_trials = statistics.fmean(run.n_trials for run in runs)
            lines.append(_row(name, [_spread(self.found[name]), _spread(scores), f"{n_trials:.1f}"]))
        if others:
            lines.append(f"{shown} minus that of {first}, paired by seed, two-sided t-test")
        for name, found in others:
            differences = [a - b for a, b in zip(found, reference, strict=True)]
            p = ttest_rel(found, reference).pvalue if len(set(differences)) > 1 else float("nan")
            higher = statistics.fmean(difference > 0 for difference in differences)
            lines.append(_row(name, [_spread(differences), f"higher in {higher:.0%}", f"p = {p:.2g}"]))
        lines += [
            f"every best so far  {self.folder / 'search.csv'}",
            f"anytime curves     {self.folder / 'search.svg'}",
        ]
        return "\n".join(lines)

    def write(self, space: Space) -> None:
        """Writes ``search.csv``, a line for every incumbent, and ``search.svg``, the anytime curves."""
        metrics = list(self.runs[next(iter(self.runs))][0].incumbents[0].trial.metrics)
        header = [
            "strategy",
            "seed",
            "trials",
            "seconds",
            "score",
            *metrics,
            *(choice.name for choice in space.choices),
        ]
        rows: list[list[Any]] = []
        for name, runs in self.runs.items():
            for seed, run in enumerate(runs):
                for i in run.incumbents:
                    figures = [i.trial.score, *(i.trial.metrics[metric] for metric in metrics)]
                    options = space.to_names(i.trial.architecture).values()
                    rows.append([name, seed, i.n_trials, i.seconds, *figures, *options])
        self.folder.mkdir(parents=True, exist_ok=True)
        write_table(self.folder / "search.csv", header, rows)
        spent = "trials" if self.limit.budget is None else "cost of the trials in seconds"
        shown = "score" if self.report is None else self.report
        n_seeds = len(next(iter(self.runs.values())))
        spent += f"\nmedian and middle half of {n_seeds} seeds"
        draw_curves(self.curves(), self.folder / "search.svg", spent, f"{shown} of the best so far")


def _row(name: str, cells: list[str]) -> str:
    return f"  {name:24}" + "".join(f"{cell:>24}" for cell in cells)


def _spread(values: list[float]) -> str:
    return f"{statistics.fmean(values):.4f} ± {statistics.stdev(values):.4f}"


# -- the study -------------------------------------------------------------------------------------------------------


def study_search(
    space: Space,
    evaluator: Evaluator,
    strategies: Mapping[str, Strategy],
    limit: Limit,
    seeds: int,
    folder: Path | None,
    report: str | None = None,
    data: "DataModule | None" = None,
    processes: int = 1,
) -> SearchStudy:
    """Runs each strategy from each seed and writes ``search.csv`` and ``search.svg``.

    The seeds are 0, 1, …; with several processes the results are the same. Every search that has ended is a line of
    ``searches.jsonl``, and is not run again where the study continues in its folder. A folder is for one number of
    seeds, too: fewer would write their tables over those of more.

    Args:
        space: the space in which all strategies search.
        evaluator: what decides, the same for all.
        strategies: by the name that they have in table and picture; the others are compared with the first.
        limit: the limit at which each search ends.
        seeds: the number of seeds, which are 0, 1, ….
        folder: where the files are written; None: in ``runs/``, by all other settings but the processes.
        report: the metric of the evaluator that is shown; None: the score.
        data: a data module for the evaluator, if it needs one.
        processes: how many run searches at the same time; 1: this one.

    Raises:
        SettingError: naming the setting that is wrong, or that the folder was begun with another.
    """
    from tqdm import tqdm

    if not strategies:
        raise SettingError("strategies: at least one")
    if seeds < 2:
        raise SettingError(f"seeds: at least 2 are needed for a spread, got {seeds}")
    if processes < 1:
        raise SettingError(f"processes: at least 1, got {processes}")
    settings = {
        "space": _noted(space),
        "evaluator": evaluator.spec,
        "strategies": {name: strategy.spec for name, strategy in strategies.items()},
        "reference": next(iter(strategies)),
        **dataclasses.asdict(limit),
        "seeds": seeds,
        "report": report,
        "data": None if data is None else data.spec,
    }
    place = StudyFolder.open(folder, "search", "", settings, ("search.csv", "search.svg", SEARCHES))
    jobs = list(itertools.product(range(seeds), strategies))
    operations = own_operations([choice.options for choice in space.choices])
    bench = Bench(space, evaluator, dict(strategies), limit, report, data, operations)
    with SearchesFile(place.path / SEARCHES, space, jobs, [usual_objective(evaluator)]) as ended:
        left = [job for job in jobs if job not in ended.runs]
        try:
            with tqdm(desc="Searches", total=len(jobs), initial=len(ended.runs), unit="search") as bar:
                for job, run in _runs(bench, left, processes):
                    if not ended.has_begun:  # before there is something to keep, the settings may turn out wrong
                        place.make()
                    ended.add(job, run)
                    bar.update()
        except KeyboardInterrupt:
            kept = f"{len(ended.runs)} of {len(jobs)} searches have ended and are kept in {place.path}"
            print(f"Interrupted. {kept}; the same command continues.", file=sys.stderr)
            raise SystemExit(130) from None
    runs = {name: [ended.runs[seed, name] for seed in range(seeds)] for name in strategies}
    study = SearchStudy(runs, limit, report, place.path)
    study.write(space)
    return study


def _noted(space: Space) -> dict[str, Any]:
    try:
        return space.spec
    except TypeError:  # its choices are given as such, by a program
        return {"class_path": class_path(type(space)), "choices": {c.name: list(c.options) for c in space.choices}}


@dataclasses.dataclass(frozen=True)
class Bench:
    """All that a search of the study needs; called with a seed and the name of a strategy, it runs it."""

    space: Space
    evaluator: Evaluator
    strategies: dict[str, Strategy]
    limit: Limit
    report: str | None
    data: Any
    operations: Mapping[str, Builder]

    def __call__(self, job: Job) -> Run:
        for operation, build in self.operations.items():  # a worker may not have imported what registers them
            register_operation(operation, build)
        seed, name = job
        run = run_search(self.strategies[name], self.evaluator, self.space, self.limit, seed, self.data)
        metrics = run.incumbents[-1].trial.metrics
        if self.report is not None and self.report not in metrics:
            raise SettingError(f"report: one of {', '.join(metrics) or 'no metrics'}, or null, got {self.report!r}")
        return run


def _runs(bench: Bench, jobs: list[Job], processes: int) -> Iterator[tuple[Job, Run]]:
    if processes == 1:
        yield from ((job, bench(job)) for job in jobs)
    else:
        yield from ((jobs[number], run) for number, run in in_processes(bench, jobs, processes))
