"""The rule of DARTS's cells, convolutional and recurrent: a choice on every edge, of which a node keeps few."""

from collections.abc import Callable, Sequence

from lightning_nas.spaces.base import Architecture, Choice, Space
from lightning_nas.spaces.tables import Cost


class KeptEdges(Space):
    """A space with a choice of an operation on every edge, ``none`` among them, where every node keeps some edges.

    Attributes:
        kept: how many edges a node keeps; None: any number, and ``none`` competes with the operations.
        sparse: whether it may keep fewer.
    """

    start = 0  # live edges into the current node so far
    kept: int | None
    sparse: bool = False

    def step(self, live: int, choice: Choice, option: str) -> int | None:
        if self.kept is None:
            return 0
        live += option != "none"
        if choice.last_of_node:
            return 0 if live == self.kept or (self.sparse and live < self.kept) else None
        return live if live <= self.kept else None

    def derive(
        self, scores: Sequence[Sequence[float]], cheapest: Callable[[Cost], Architecture] | None = None
    ) -> Architecture:
        """The paper's rule: an edge is as strong as its strongest operation but ``none``, and every node keeps its
        strongest edges. Scores are softmax weights (or anything non-negative).

        With ``none`` scored zero this is the architecture of the highest total score. Where nodes keep any number of
        edges, every edge takes its strongest option, ``none`` or not.
        """
        if self.kept is None:
            return super().derive(scores, cheapest)
        return super().derive(
            [
                [0.0 if option == "none" else float(score) for option, score in zip(choice.options, row, strict=True)]
                for choice, row in zip(self.choices, scores, strict=True)
            ],
            cheapest,
        )
