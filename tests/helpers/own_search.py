"""A search that its user wrote without Lightning: space, strategy, evaluator. Worker processes import it."""

import math
import multiprocessing
import os
import signal
import time
import uuid
from pathlib import Path
from random import Random

import torch

from lightning_nas.errors import SettingError
from lightning_nas.evaluators.base import Evaluation, Evaluator
from lightning_nas.objectives import Objective
from lightning_nas.seeding import derive_seed
from lightning_nas.spaces.base import Choice, Space
from lightning_nas.strategies.base import Strategy


class Switches(Space):
    """``n`` choices of three operations."""

    def __init__(self, n=4):
        super().__init__(Choice(f"switch_{k}", ("off", "on", "auto"), str(k)) for k in range(n))


class Sensitive(Strategy):
    """What it proposes depends on every trial told, and on their order."""

    def begin(self, space, seed=0):
        self.told = []
        return super().begin(space, seed)

    def propose(self, number):
        return self.space.random(Random(derive_seed(self.seed, number, *self.told)))

    def tell(self, trials):
        super().tell(trials)
        self.told += [f"{trial.number}: {trial.score}" for trial in trials]


class Scripted(Evaluator):
    """The share of switches that are on, and a little noise; with accidents in the trials that ``script`` names.

    It leaves a file in ``folder`` for each evaluation that it begins.
    """

    objective = Objective("score")

    def __init__(self, folder, script=None, seconds=0.0, refuses=False):
        self.folder, self.script, self.seconds, self.refuses = Path(folder), script or {}, seconds, refuses
        self._init_args["folder"] = str(folder)

    def open(self, space, data, seed=0, folder=None):
        if self.refuses:
            raise SettingError("evaluator: not this space")
        self.space, self.seed = space, seed

    def __call__(self, proposal, number):
        accident = self.script.get(str(number), "")
        first = not list(self.folder.glob(f"{number}-*"))
        self.note(f"{number}-{uuid.uuid4()}", os.getpid(), torch.get_num_threads(), multiprocessing.get_start_method())
        time.sleep(self.seconds * (1 + number % 2))  # so that trials do not end in the order of their numbers
        if accident == "kill" or (accident == "kill once" and first):
            os.kill(os.getpid(), signal.SIGKILL)
        if accident == "wrong":
            raise ValueError("a wrong\n network")
        if accident == "memory":
            raise MemoryError
        if accident == "gpu memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        if accident == "cpu memory":
            torch.empty(1 << 60, dtype=torch.uint8)
        if accident == "nan":
            return Evaluation({"score": math.nan, "val/loss": math.nan}, 2.0)
        on = sum(option == "on" for option in self.space.to_names(proposal.architecture).values())
        score = on / len(proposal.architecture) + Random(derive_seed(self.seed, number)).random() / 100
        return Evaluation({"score": torch.tensor(score, dtype=torch.float64), "n_on": torch.tensor(on)}, 2.0)

    def note(self, name, *values):
        (self.folder / name).write_text(" ".join(map(str, values)))


def evaluations(folder):
    """How often each trial was begun."""
    numbers = [int(path.name.partition("-")[0]) for path in Path(folder).glob("*-*")]
    return {number: numbers.count(number) for number in sorted(set(numbers))}


def results(trials):
    """What must not depend on where trials run."""
    return [(t.number, t.architecture, t.score, t.metrics, t.status) for t in trials]
