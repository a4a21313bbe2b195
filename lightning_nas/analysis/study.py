"""Does a search beat random? Found and random architectures, retrained alike, over seeds (Yu et al. 2020)."""

import contextlib
import csv
import dataclasses
import os
import statistics
from pathlib import Path
from random import Random

from lightning_nas.architecture import Found, load_architecture
from lightning_nas.seeding import derive_seed

FIELDS = ("seed", "architecture", "test_score", "n_params", "flops")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Test scores of retrained networks, paired by seed.

    Attributes:
        found: of the architectures that the search found.
        drawn: of as many architectures drawn uniformly from the space.
        folder: with ``study.csv`` and all runs.
    """

    found: list[float]
    drawn: list[float]
    folder: Path

    @property
    def differences(self) -> list[float]:
        return [a - b for a, b in zip(self.found, self.drawn, strict=True)]

    def describe(self) -> str:
        """The table: mean ± standard deviation over seeds, the paired difference and its two-sided t-test."""
        from scipy.stats import ttest_rel

        rows = {"search": self.found, "random": self.drawn, "difference": self.differences}
        lines = [f"test score of retrained networks, {len(self.found)} seeds, mean ± standard deviation"]
        for name, scores in rows.items():
            each = " ".join(f"{score:.4f}" for score in scores)
            lines.append(f"  {name:10}  {statistics.fmean(scores):.4f} ± {statistics.stdev(scores):.4f}   ({each})")
        p = ttest_rel(self.found, self.drawn).pvalue if len(set(self.differences)) > 1 else float("nan")
        lines.append(f"  paired t-test, two-sided: p = {p:.3f}")
        lines.append(f"every run: {self.folder / 'study.csv'}")
        return "\n".join(lines)


def compare_with_random(search: str, retrain: str, seeds: int, folder: Path) -> Comparison:
    """Runs, for each seed, a search, two retrainings and two tests, each as the command line would.

    Finished rows of ``study.csv`` are kept. Everything the runs print goes to ``log.txt``.
    """
    from tqdm import tqdm

    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "study.csv"
    done = _read(table)
    for seed in tqdm(range(seeds), desc="Seeds", unit="seed"):
        if (seed, "search") in done and (seed, "random") in done:
            continue
        place = folder / f"seed-{seed}"
        runs = _Runs(place, folder / "log.txt")
        found = load_architecture(runs.search(search, seed))
        drawn = found.space.random(Random(derive_seed(seed, "study")))
        Found(found.space, drawn, method="random", seed=seed).save(place / "random.json")
        Found(found.space, found.architecture, found.metrics, found.method, seed).save(place / "search.json")
        for origin in ("search", "random"):
            if (seed, origin) not in done:
                figures = runs.retrain(retrain, place / f"{origin}.json", seed)
                done[seed, origin] = figures[0]
                _append(table, [seed, origin, *figures])
    return Comparison([done[s, "search"] for s in range(seeds)], [done[s, "random"] for s in range(seeds)], folder)


class _Runs:
    """Commands run in this process, each in a new folder, their output in a file."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder, self.log = folder, log

    def search(self, config: str, seed: int) -> Path:
        finished = sorted(self.folder.glob("*/architecture.json"))
        if finished:
            return finished[-1]
        return self._run("fit", "--config", config, f"--model.seed={seed}") / "architecture.json"

    def retrain(self, config: str, architecture: Path, seed: int) -> tuple[float, float, float]:
        """Test score, parameters and FLOPs."""
        own = ("--config", config, f"--model.architecture={architecture}", f"--model.seed={seed}")
        trained = self._run("fit", *own)
        tested = self._run("test", "--config", config, f"--ckpt_path={trained / 'checkpoints' / 'last.ckpt'}")
        with open(tested / "metrics.csv", newline="", encoding="utf-8") as file:
            (row,) = csv.DictReader(file)
        (score,) = [float(value) for name, value in row.items() if name.startswith("test/")]
        return score, float(row["n_params"]), float(row["flops"])

    def _run(self, *argv: str) -> Path:
        from lightning_nas.main import main

        before = set(self.folder.glob("*"))
        os.environ.setdefault("WANDB_MODE", "disabled")  # many short runs; the study's table is the result
        quiet = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false")
        with (
            open(self.log, "a", encoding="utf-8") as log,
            contextlib.redirect_stdout(log),
            contextlib.redirect_stderr(log),
        ):
            status = main([*argv, f"--trainer.default_root_dir={self.folder}", *quiet])
        if status:
            raise RuntimeError(f"{' '.join(argv)} failed; see {self.log}")
        (made,) = {path for path in self.folder.glob("*") if path.is_dir()} - before
        return made


def _read(table: Path) -> dict[tuple[int, str], float]:
    if not table.exists():
        return {}
    with open(table, newline="", encoding="utf-8") as file:
        return {(int(row["seed"]), row["architecture"]): float(row["test_score"]) for row in csv.DictReader(file)}


def _append(table: Path, row: list[object]) -> None:
    new = not table.exists()
    with open(table, "a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(FIELDS)
        writer.writerow(row)
