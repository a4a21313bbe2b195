"""Does a search beat random? Found and random architectures, retrained alike, over seeds (Yu et al. 2020)."""

import contextlib
import csv
import dataclasses
import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from lightning_nas.errors import SettingError
from lightning_nas.files import config_name, write_table, write_whole
from lightning_nas.runs.folder import RunFolder
from lightning_nas.seeding import derive_seed
from lightning_nas.spaces.architecture_file import ArchitectureRecord, load_architecture
from lightning_nas.studies.folder import StudyFolder, read_config

FIELDS = ("seed", "origin", "test_score", "n_params", "flops")
SHARED = "random, shared weights"
RANDOM = "random"
RESULTS = ("study.csv", "seed-*")

Command = Callable[[Sequence[str]], int]
"""Runs a command line and returns its exit status."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Test scores of retrained networks, paired by seed.

    Attributes:
        scores: by origin. The first is the search in question, then come the best of random architectures under its
            shared weights, the other searches, and one architecture drawn uniformly from the space.
        folder: with ``study.csv`` and all runs.
    """

    scores: dict[str, list[float]]
    folder: Path

    def describe(self) -> str:
        """The table: mean ± standard deviation over seeds, paired differences and their two-sided t-tests."""
        from scipy.stats import ttest_rel

        (subject, found), *others = self.scores.items()
        width = max(map(len, self.scores)) + 6
        lines = [f"test score of retrained networks, {len(found)} seeds, mean ± standard deviation"]
        lines += [f"  {name:{width}}  {_spread(scores)}" for name, scores in self.scores.items()]
        lines.append(f"{subject} minus the others, paired by seed, two-sided t-test")
        for name, scores in others:
            differences = [a - b for a, b in zip(found, scores, strict=True)]
            p = ttest_rel(found, scores).pvalue if len(set(differences)) > 1 else float("nan")
            lines.append(f"  {'minus ' + name:{width}}  {_spread(differences)}   p = {p:.3f}")
        lines.append(f"every run: {self.folder / 'study.csv'}")
        return "\n".join(lines)


def _spread(scores: list[float]) -> str:
    each = " ".join(f"{score:.4f}" for score in scores)
    return f"{statistics.fmean(scores):.4f} ± {statistics.stdev(scores):.4f}   ({each})"


def compare_with_random(
    search: str, others: Sequence[str], retrain: str, seeds: int, folder: Path | None, run: Command
) -> Comparison:
    """For each seed: the searches, then for every architecture a retraining and a test, each as the command line would.

    Besides what the searches find there are, for the first, the best of the random architectures that were scored under
    its shared weights, if it has any, and one random architecture of its space. Everything the runs print goes to
    ``log.txt``.

    Finished rows of ``study.csv`` are kept, and more seeds add to them. So the folder is for these configurations, by
    what they say and not by their names alone, and one that is edited meanwhile ends the study.

    Args:
        search: the configuration of the search in question.
        others: the configurations of other searches in the same space.
        retrain: the configuration of the retraining, the same for all.
        seeds: the number of seeds; they are 0, 1, ….
        folder: where all runs and ``study.csv`` are written; None: in ``runs/``, by the configurations.
        run: runs a command line and returns its exit status.

    Raises:
        SettingError: if two configurations have the same name, by which the table tells them apart, one cannot be read,
            or the folder holds another study.
    """
    from tqdm import tqdm

    searches = {config_name(config): config for config in (search, *others)}
    if len(searches) <= len(others):
        raise SettingError("--others: configurations of different names, which are the names in the table")
    if taken := {SHARED, RANDOM} & searches.keys():
        raise SettingError(
            f"--search, --others: no configuration called {taken.pop()!r}, as a row of the table is anyway"
        )
    subject = config_name(search)
    origins = [subject, SHARED, *list(searches)[1:], RANDOM]
    place = StudyFolder.open(folder, "random", subject, _settings(searches, retrain), RESULTS)
    place.make()
    folder = place.path
    table = folder / "study.csv"
    done = _read(table)

    def unless_edited(argv: Sequence[str]) -> int:
        StudyFolder(place.path, place.settings | _settings(searches, retrain), RESULTS).check()
        return run(argv)

    for seed in tqdm(range(seeds), desc="Seeds", unit="seed"):
        runs = _Runs(folder / f"seed-{seed}", folder / "log.txt", unless_edited)
        for origin in origins:
            if (seed, origin) not in done:
                architecture = runs.architecture(origin, subject, searches, seed)
                if not architecture.exists():  # a search without shared weights, or one that compares with none
                    continue
                done[seed, origin] = runs.retrain(retrain, architecture, seed)
                write_table(table, FIELDS, ([*key, *figures] for key, figures in done.items()))
    there = [origin for origin in origins if (0, origin) in done]
    return Comparison({origin: [done[seed, origin][0] for seed in range(seeds)] for origin in there}, folder)


def _settings(searches: dict[str, str], retrain: str) -> dict[str, Any]:
    (subject, search), *others = searches.items()
    return {
        "search": {"name": subject, "config": read_config(search)},
        "others": {name: read_config(config) for name, config in others},
        "retrain": read_config(retrain),
    }


class _Runs:
    """Commands run in this process, each in a new folder, their output in a file."""

    def __init__(self, folder: Path, log: Path, command: Command) -> None:
        self.folder, self.log, self.command = folder, log, command

    def architecture(self, origin: str, subject: str, searches: dict[str, str], seed: int) -> Path:
        """The file of the architecture to retrain."""
        path = self.folder / f"{origin}.json"
        if origin in searches and not path.exists():
            run = self._run("fit", "--config", searches[origin], f"--model.seed={seed}")
            if origin == subject and run.random.exists():
                write_whole(self.folder / f"{SHARED}.json", run.random.read_bytes())
            write_whole(path, run.architecture.read_bytes())  # this one last: with it, the search is done
        elif origin == RANDOM:
            space = load_architecture(self.folder / f"{subject}.json").space
            ArchitectureRecord(space, space.random(Random(derive_seed(seed, "study"))), method=RANDOM, seed=seed).save(
                path
            )
        return path

    def retrain(self, config: str, architecture: Path, seed: int) -> tuple[float, float, float]:
        """Test score, parameters and FLOPs."""
        own = ("--config", config, f"--model.architecture={architecture}", f"--model.seed={seed}")
        trained = self._run("fit", *own)
        tested = self._run("test", "--config", config, f"--ckpt_path={trained.checkpoint}")
        with open(tested.metrics, newline="", encoding="utf-8") as file:
            (row,) = csv.DictReader(file)
        (score,) = [float(value) for name, value in row.items() if name.startswith("test/")]
        return score, float(row["n_params"]), float(row["flops"])

    def _run(self, *argv: str) -> RunFolder:
        before = set(self.folder.glob("*"))
        os.environ.setdefault("WANDB_MODE", "disabled")  # many short runs; the study's table is the result
        quiet = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false")
        with (
            open(self.log, "a", encoding="utf-8") as log,
            contextlib.redirect_stdout(log),
            contextlib.redirect_stderr(log),
        ):
            status = self.command([*argv, f"--trainer.default_root_dir={self.folder}", *quiet])
        if status:
            raise SettingError(f"{' '.join(argv)} failed; see {self.log}")
        (made,) = {path for path in self.folder.glob("*") if path.is_dir()} - before
        return RunFolder(made)


def _read(table: Path) -> dict[tuple[int, str], tuple[float, float, float]]:
    """The figures of the finished rows, by seed and origin; a last row without its end is not finished."""
    if not table.exists():
        return {}
    with open(table, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(line for line in file if line.endswith("\n"))
        return {
            (int(row["seed"]), row["origin"]): (float(row["test_score"]), float(row["n_params"]), float(row["flops"]))
            for row in rows
        }
