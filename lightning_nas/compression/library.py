"""A block library: every replacement scored alone in a trained network, and the best combination under limits.

The idea is that of Puzzle (Bercovich et al. 2024): what an option of a choice does to the network is measured with
that option alone, and the best combination by the sum of what each does is found exactly. It differs: 1. the loss is
measured with labels, where the paper compares hidden states with those of the network; 2. parameters and FLOPs have a
term for every pair of replacements too, since what a convolution costs is a product of two widths; 3. replacements are
the options of choices, of which ``imitate`` trains those that have weights of their own.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from lightning_nas.compression.measurements import Measurements
from lightning_nas.compression.replacements import Replacements
from lightning_nas.compression.sums import Limit, Sum, best_sum
from lightning_nas.costs.profile import count_parameters, profile
from lightning_nas.data import AnyData
from lightning_nas.data.own import as_data
from lightning_nas.errors import SettingError
from lightning_nas.objectives import Objective
from lightning_nas.seeding import derive_seed
from lightning_nas.spaces.base import Architecture, Network
from lightning_nas.spaces.own.space import OwnSpace
from lightning_nas.supernets.scoring import Scorer, Statistics
from lightning_nas.tasks import Task

COSTS = ("n_params", "flops", "latency")
_RUNS = 30  # of a network whose latency is measured
_TRIES = 200  # of combinations whose costs are not their sums


class BlockLibrary:
    """A trained network and all that can be in the place of its parts, each scored alone.

    The reference is the network as it was trained: of each choice the largest number, or the first option. Scores are
    of the ``architecture`` part of the data, or of the loader that validates, and BatchNorm is treated as a
    :class:`Scorer` does.

    Args:
        network: a trained network with choices in it; or a network of a space, such as that of a search.
        task: the task whose loss decides.
        data: what a trainer's ``fit`` takes, loaders or sets to train and to validate on as a pair.
        costs: what is counted: ``n_params``, ``flops``, and ``latency`` as it is measured here, in milliseconds.
        reference: the architecture that was trained, or its options by name; None: as said above.
        file: where scores are kept, so that a library that was interrupted goes on; None: nowhere.
        n_batches: the number of batches, spread over the part; None: all of it.
        n_calibration: the number of training batches for BatchNorm's statistics.
        bn: how BatchNorm normalises: ``recalibrate``, or ``batch``, by the statistics of each batch.
        seed: the seed of the order of the training batches.
        progress: whether a bar is drawn.

    Raises:
        SettingError: if a setting is out of range, or the file is of another network, task or data.
    """

    def __init__(
        self,
        network: Network | nn.Module,
        task: Task,
        data: AnyData,
        costs: Sequence[str] = ("n_params",),
        reference: Architecture | Mapping[str, str] | None = None,
        file: str | Path | None = None,
        n_batches: int | None = None,
        n_calibration: int = 8,
        bn: Statistics = "recalibrate",
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        if not costs or set(costs) - set(COSTS):
            raise SettingError(f"costs: some of {', '.join(COSTS)}, got {list(costs)}")
        own = as_data(data)
        if not isinstance(network, Network):
            network = OwnSpace(network).network(task.network_inputs(own.inputs))
        self.network, self.space, self.costs, self.progress = network, network.space, tuple(costs), progress
        self.replacements = Replacements(self.space, reference)
        stream = own.stream("weights", seed, **task.reads)
        calibration = [stream.get(number) for number in islice(range(len(stream)), n_calibration)]
        validation = own.evaluation("architecture", n_batches, **task.reads)
        self.scorer = Scorer(self.space, network, task, validation, calibration, bn, progress=progress)
        settings = {"n_batches": n_batches, "n_calibration": n_calibration, "bn": bn, "seed": seed}
        about = {
            "network": type(getattr(network, "net", network)).__name__,
            "weights": _digest(network),
            "choices": {choice.name: choice.options for choice in self.space.choices},
            "reference": self.space.to_names(self.replacements.reference),
            "task": task.spec,
            "data": [own.spec, own.sizes()],
            "settings": settings,
        }
        self.measurements = Measurements(
            None if file is None else Path(file), json.loads(json.dumps(about, default=str))
        )
        self._sums: dict[str, Sum] = {}
        self._counted: dict[Architecture, dict[str, float]] = {}

    # -- what is measured ----------------------------------------------------------------------------------------------

    @property
    def score(self) -> str:
        """The name of the task's score, which is in the table beside the loss."""
        return self.scorer.task.score

    def fill(self) -> None:
        """Scores what has no score yet; each is on file at once, so that Ctrl-C loses one at most."""
        with self.measurements.writing(), self._bar(self.replacements.architectures(), "Replacements") as bar:
            for architecture in bar:
                self._measure(architecture)

    def figures(self, architecture: Architecture) -> dict[str, float]:
        """Loss, score and costs of an architecture, measured if they are not yet.

        Args:
            architecture: one of the space, as a whole.
        """
        with self.measurements.writing():
            return self._measure(architecture) | self._counts(architecture)

    def _measure(self, architecture: Architecture) -> dict[str, float]:
        names = self.space.to_names(architecture)
        known = self.measurements.of(names)
        if "loss" not in known:
            known = self.measurements.add(names, self.scorer.figures(architecture))
        if "latency" in self.costs and "latency" not in known:
            child = self._child(architecture)
            latency = profile(child, child.example(), _RUNS).latency
            assert latency is not None
            known = self.measurements.add(names, {"latency": latency})
        return known

    def _counts(self, architecture: Architecture) -> dict[str, float]:
        if architecture not in self._counted:
            child = self._child(architecture)
            counts = {"n_params": float(count_parameters(child))}
            if "flops" in self.costs:
                counts["flops"] = float(profile(child, child.example()).flops)
            self._counted[architecture] = counts
        return self._counted[architecture]

    def _child(self, architecture: Architecture) -> Network:
        with torch.random.fork_rng(devices=[]):
            child = self.space.restrict(architecture).network(self.network.inputs, **self.network.settings)
        return child.to(self.scorer.device)

    # -- sums ----------------------------------------------------------------------------------------------------------

    def sum(self, figure: str) -> Sum:
        """A figure as a sum over replacements.

        Args:
            figure: ``loss``, the task's score, or one of the costs.
        """
        if figure not in self._sums:
            alone = list(self.replacements.alone())
            if figure in ("n_params", "flops"):
                both = [*alone, *self.replacements.pairs()]
                with self._bar(list(map(self.replacements.at, both)), "Counting") as bar:
                    for architecture in filter(None, bar):
                        self._counts(architecture)
                self._sums[figure] = Sum.of(self.replacements, lambda a: self._counts(a)[figure], both)
            else:
                self.fill()
                self._sums[figure] = Sum.of(self.replacements, lambda a: self._measure(a)[figure], alone)
        return self._sums[figure]

    def best(self, *limits: str | Objective, by: str = "loss") -> Architecture:
        """The combination of replacements that has the best sum of a figure, among those that keep limits.

        Parameters and FLOPs are counted of the whole network in the end, and where a sum errs the next best is taken.
        Latency is kept by its sum.

        Args:
            limits: limits of costs, such as ``n_params <= 5e4``.
            by: the figure whose sum decides, ``loss`` or the task's score.

        Raises:
            SettingError: if a limit is of nothing that is counted, or no combination keeps it.
        """
        if by not in ("loss", self.score):
            raise SettingError(f"by: loss or {self.score}, got {by!r}")
        wanted = [Objective.parse(limit) if isinstance(limit, str) else limit for limit in limits]
        for objective in wanted:
            if objective.metric not in self.costs or objective.limit is None:
                raise SettingError(f"limits: of {', '.join(self.costs)}, got '{objective}'")
        found = self.sum(by)
        sign = -1.0 if by == self.score and self.scorer.task.mode == "max" else 1.0
        value = Sum(sign * found.reference, {each: sign * term for each, term in found.terms.items()})
        bounds = [_limit(self.sum(o.metric), o) for o in wanted]
        without: list[Architecture] = []
        for _ in range(_TRIES):
            architecture = best_sum(self.replacements, value, bounds, without)
            if architecture is None:
                break
            if not any(o.violation(self._counts(architecture)[o.metric]) for o in wanted if o.metric != "latency"):
                return architecture
            without.append(architecture)
        raise SettingError(f"limits: no combination keeps {' and '.join(map(str, wanted))}; {self._least(wanted)}")

    def _least(self, wanted: Sequence[Objective]) -> str:
        said = []
        for objective in wanted:
            cost = self.sum(objective.metric)
            alone = Sum(cost.reference, {each: t for each, t in cost.terms.items() if len(each) == 1})
            least = best_sum(self.replacements, alone)
            assert least is not None
            said.append(f"{objective.metric} can be {cost(self.replacements.changes(least)):g}")
        return ", ".join(said)

    # -- for people ----------------------------------------------------------------------------------------------------

    def errors(self, n: int = 5, seed: int = 0) -> dict[str, list[tuple[float, float]]]:
        """How far sums are from what whole networks are.

        Args:
            n: the number of random architectures that are measured as a whole.
            seed: the seed of these architectures.

        Returns:
            for each figure pairs of the sum and what was measured.
        """
        rng = Random(derive_seed(seed, "library"))
        drawn = [self.space.random(rng) for _ in range(n)]
        return {
            figure: [(self.sum(figure)(self.replacements.changes(a)), self.figures(a)[figure]) for a in drawn]
            for figure in ("loss", self.score, *self.costs)
        }

    def describe(self) -> str:
        """The table of all replacements: what each does alone to loss, score and costs."""
        sums = {figure: self.sum(figure) for figure in ("loss", self.score, *self.costs)}
        names = [(choice.name, choice.options) for choice in self.space.choices]
        rows = [("choice", "option", *sums)]
        rows.append(("as it was trained", "", *(f"{each.reference:,.4g}" for each in sums.values())))
        for change in self.replacements.alone():
            ((k, option),) = change
            each = (f"{found.terms[change]:+,.4g}" for found in sums.values())
            rows.append((names[k][0], names[k][1][option], *each))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join(line.rstrip() for line in lines)

    def _bar(self, each: Sequence[Any], what: str) -> Any:
        return tqdm(each, desc=what, leave=False, disable=not self.progress)


def _limit(cost: Sum, objective: Objective) -> Limit:
    assert objective.limit is not None
    return Limit(cost, high=objective.limit) if objective.mode == "min" else Limit(cost, low=objective.limit)


def _digest(network: nn.Module) -> str:
    """What tells weights from others."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
