"""Results that are known already: a tabular benchmark, such as NAS-Bench-201 (Dong and Yang, ICLR 2020)."""

import csv
import gzip
import math
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_nas.errors import SettingError
from lightning_nas.evaluators.base import Evaluation, Evaluator
from lightning_nas.objectives import Mode, Objective
from lightning_nas.spaces.base import Architecture, Choice, Space
from lightning_nas.strategies.base import Proposal

if TYPE_CHECKING:  # data modules need Lightning, which a search on a table does without
    from lightning_nas.data import DataModule


class TabularBenchmark(Evaluator):
    """Looks architectures up in a file of comma-separated values: a header, then a line for each architecture.

    A line names its architecture in a column for each choice, called as the choice, by the options' names; or, with
    ``digits``, in one column that has a digit for each choice. The metrics of an evaluation are the guide and what is
    reported, called as their columns. Where training diverged, a figure is ``nan``.

    A table of results after several numbers of epochs has ``fidelities``, which say the columns of each. Nothing is
    interpolated: another number of epochs is refused::

        guide: accuracy
        fidelities: {12: {accuracy: c10v_val_12}, 200: {accuracy: c10v_val_200}}
        cost: c10v_train_s_per_epoch

    Args:
        path: the file; one whose name ends in ``.gz`` is unpacked. It is looked for here, then in
            ``$LIGHTNING_NAS_DATA``.
        guide: the column that decides between architectures, unless the search is given objectives.
        report: further columns to be in the metrics.
        mode: whether a higher guide is better (``max``) or a lower one (``min``).
        cost: the column of the seconds that an evaluation would have taken; None: it costs nothing.
        cost_factor: the cost is multiplied by it, as by a number of epochs where the column has seconds per epoch. It
            is multiplied by the fidelity too, if there are several.
        digits: the column that has whole architectures; None: there is a column for each choice.
        choices: which choice each of the digits is of; None: those of the space in their order.
        options: what the digits stand for, from 0 on; None: the options of each choice in their order.
        fidelities: by number of epochs, the columns of metrics that depend on it, by the names of the metrics. None: no
            metric does.
    """

    def __init__(
        self,
        path: str,
        guide: str,
        report: Sequence[str] = (),
        mode: Mode = "max",
        cost: str | None = None,
        cost_factor: float = 1.0,
        digits: str | None = None,
        choices: Sequence[str] | None = None,
        options: Sequence[str] | None = None,
        fidelities: dict[int, dict[str, str]] | None = None,
    ) -> None:
        if not 0 < cost_factor < math.inf:
            raise SettingError(f"cost_factor: above 0, got {cost_factor}")
        for name, given in {"choices": choices, "options": options}.items():
            if given is not None and digits is None:
                raise SettingError(f"{name}: says what digits mean, so digits has to name a column")
        self.path = Path(path)
        self.guide, self.objective, self.report = guide, Objective(guide, mode), tuple(report)
        self.cost, self.cost_factor = cost, cost_factor
        self.digits, self.choices, self.options = digits, choices, options
        self._columns: dict[int | None, dict[str, str]] = {None: {}}
        if fidelities is not None:
            self._columns = {int(fidelity): dict(fidelities[fidelity]) for fidelity in sorted(fidelities, key=int)}
            self.fidelities = [fidelity for fidelity in self._columns if fidelity is not None]
            self._init_args["fidelities"] = {str(fidelity): names for fidelity, names in self._columns.items()}
            self._check_fidelities()
        self._space: Space | None = None

    def _check_fidelities(self) -> None:
        if not self.fidelities or self.fidelities[0] < 1:
            raise SettingError(f"fidelities: columns by numbers of epochs from 1, got {self.fidelities}")
        names = {frozenset(columns) for columns in self._columns.values()}
        if len(names) > 1 or not next(iter(names)) <= {self.guide, *self.report}:
            raise SettingError(
                f"fidelities: for each the columns of the same metrics, which are the guide or reported, got "
                f"{self._init_args['fidelities']}"
            )

    def metric_names(self, data: "DataModule | None") -> Sequence[str]:
        return list(dict.fromkeys((self.guide, *self.report)))

    def open(self, space: Space, data: "DataModule | None" = None, seed: int = 0, folder: Path | None = None) -> None:
        """Reads the file, if it has not been read for this space. Nothing depends on the data or the seed.

        Raises:
            SettingError: naming the file, line and column of what is wrong.
        """
        if space is self._space:
            return
        elsewhere = Path(os.environ.get("LIGHTNING_NAS_DATA", "data")) / self.path
        if not self.path.exists() and elsewhere.exists():
            self.path = elsewhere
        try:
            with (gzip.open if self.path.suffix == ".gz" else open)(self.path, "rt", newline="", encoding="utf-8") as f:
                self._read(space, csv.reader(f))
        except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise SettingError(f"{self.path}: cannot be read as a table ({reason})") from error
        self._space = space

    def __call__(self, proposal: Proposal, number: int = 0) -> Evaluation:
        """The line of an architecture.

        Raises:
            LookupError: if there is none.
        """
        fidelity = proposal.fidelity or self._full
        try:
            evaluation: Evaluation = self._evaluations[fidelity][proposal.architecture]
        except KeyError:
            raise LookupError(f"{self.path} has no line of the architecture {proposal.architecture}") from None
        if fidelity is None or not proposal.reached:
            return evaluation
        return Evaluation(evaluation.metrics, evaluation.cost * (1 - proposal.reached / fidelity))

    # -- the file ----------------------------------------------------------------------------------------------------

    def _read(self, space: Space, lines: Any) -> None:
        """Takes all evaluations. ``lines`` is a reader of :mod:`csv`."""
        header: list[str] = next(lines, [])
        whole = None if self.digits is None else _column(header, self.digits, self.path)
        places = self._places(space, header)
        names = dict.fromkeys((self.guide, *self.report))
        columns = {
            fidelity: [(name, _column(header, own.get(name, name), self.path)) for name in names]
            for fidelity, own in self._columns.items()
        }
        cost = None if self.cost is None else _column(header, self.cost, self.path)
        self._full = list(self._columns)[-1]
        self._evaluations: dict[int | None, dict[Architecture, Evaluation]] = {fidelity: {} for fidelity in columns}
        for architecture, line, where in self._lines(space, lines, header, whole, places):
            seconds = 0.0 if cost is None else self._seconds(line[cost], f"{where}, column {header[cost]}")
            for fidelity, own in columns.items():
                metrics = {name: _number(line[place], f"{where}, column {header[place]}") for name, place in own}
                self._evaluations[fidelity][architecture] = Evaluation(metrics, seconds * (fidelity or 1))

    def _lines(
        self, space: Space, lines: Any, header: list[str], whole: int | None, places: list[tuple[int, dict[str, int]]]
    ) -> Iterator[tuple[Architecture, list[str], str]]:
        """The architecture of each line, the line, and where it is."""
        line_of: dict[Architecture, int] = {}
        for line in lines:
            if not line:
                continue
            where = f"{self.path}, line {lines.line_num}"
            if len(line) != len(header):
                raise SettingError(f"{where}: {len(header)} columns expected, got {len(line)}")
            cells = line if whole is None else line[whole]
            if whole is not None and len(cells) != len(places):
                raise SettingError(f"{where}, column {self.digits}: {len(places)} digits expected, got {cells[:80]!r}")
            try:
                architecture = tuple([option_of[cells[place]] for place, option_of in places])
            except KeyError:
                place, known = next((place, known) for place, known in places if cells[place] not in known)
                where += f", column {self.digits or header[place]}"
                raise SettingError(f"{where}: {' or '.join(known)} expected, got {cells[place][:80]!r}") from None
            if space.has_rule and not space.legal(architecture):
                raise SettingError(f"{where}: no legal architecture of {type(space).__name__}")
            if line_of.setdefault(architecture, lines.line_num) != lines.line_num:
                raise SettingError(f"{where}: the same architecture as in line {line_of[architecture]}")
            yield architecture, line, where

    def _seconds(self, text: str, where: str) -> float:
        seconds = _number(text, where)
        if not seconds >= 0:
            raise SettingError(f"{where}: 0 or more expected, got {text!r}")
        return self.cost_factor * seconds

    def _places(self, space: Space, header: Sequence[str]) -> list[tuple[int, dict[str, int]]]:
        """For each choice of the space, which cell or digit of a line is its, and the option's index by its content."""
        if self.digits is None:
            return [
                (_column(header, choice.name, self.path), {name: k for k, name in enumerate(choice.options)})
                for choice in space.choices
            ]
        order = [choice.name for choice in space.choices]
        given = list(self.choices or order)
        if sorted(given) != sorted(order):
            raise SettingError(f"choices: each of {', '.join(order)} once, got {', '.join(given)}")
        known = {option for choice in space.choices for option in choice.options}
        for option in self.options or ():
            if option not in known:
                raise SettingError(f"options: no choice of the space has the option {option!r}")
        return [(given.index(choice.name), self._option_of_digit(choice)) for choice in space.choices]

    def _option_of_digit(self, choice: Choice) -> dict[str, int]:
        options = list(self.options or choice.options)
        if len(options) > 10:
            raise SettingError(f"digits: {choice.name} has {len(options)} options; ten have a digit")
        return {str(options.index(name)): k for k, name in enumerate(choice.options) if name in options}


def _column(header: Sequence[str], name: str, path: Path) -> int:
    if header.count(name) != 1:
        there = f"there are {', '.join(header)[:500]}" if name not in header else "it occurs more than once"
        raise SettingError(f"{path}, line 1: one column {name!r} expected; {there}")
    return header.index(name)


def _number(text: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.inf
    if math.isinf(number):
        raise SettingError(f"{where}: a number expected, got {text[:80]!r}")
    return number
