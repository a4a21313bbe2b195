"""An architecture as graphs: what drawings show, and what predictors read."""

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple, Self


class Edge(NamedTuple):
    """An edge of an architecture's graph.

    Attributes:
        source: the name of the node that the edge leaves.
        target: the name of the node that the edge enters.
        operation: what is done on the way; empty where the state is passed on as it is.
    """

    source: str
    target: str
    operation: str = ""


@dataclasses.dataclass(frozen=True)
class Graph:
    """A directed graph without circles, in which two nodes may have several edges.

    Attributes:
        nodes: the names of the nodes, each once; also of those that have no edge.
        edges: the edges, in the order in which the space lists them.
    """

    nodes: tuple[str, ...]
    edges: tuple[Edge, ...]

    @classmethod
    def of(cls, edges: Iterable[tuple[str, str, str]], nodes: Iterable[str] = ()) -> Self:
        """The graph of these edges.

        Args:
            edges: a source, a target and an operation for each edge.
            nodes: the nodes that come first; those of the edges follow in the order in which they appear.
        """
        listed = tuple(Edge(*edge) for edge in edges)
        names = dict.fromkeys([*nodes, *(end for edge in listed for end in (edge.source, edge.target))])
        return cls(tuple(names), listed)
