"""The line of aging evolution on a table of results, per ask and tell."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.evolution import bare, ours
from benchmarks.measure import Side
from benchmarks.rows import CallRow
from lightning_nas.evaluators.table import Table
from lightning_nas.spaces import NASBench201

POPULATION, SAMPLE = 10, 3


class Evolution(CallRow):
    """Against a bare loop around a deque. The results are random numbers: what they are does not change the work."""

    name, title = "evolution", "Aging evolution on a table"

    def calls(self) -> dict[Side, Callable[[], Any]]:
        space, rng = NASBench201(), Random(0)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "results.csv"
            rows = (f"{''.join(map(str, architecture))},{rng.random()}" for architecture in space)
            path.write_text("\n".join(["architecture,score", *rows]))
            table = Table(str(path), "score", digits="architecture")
            table.open(space)
        scores = {architecture: table(architecture).score for architecture in space}
        settings = (self.sizes.trials, POPULATION, SAMPLE, 0)
        return {"textbook": partial(bare, scores, *settings), "ours": partial(ours, table, space, *settings)}
