"""The recurrent cell of ENAS (Pham, Guan, Zoph, Le, Dean, ICML 2018, section 2.1) and its language model.

Differs from the released code:
1. A matrix belongs to a node and its predecessor, as in the paper; ``share: pair_and_activation`` does as released.
2. All four activations are there; its controller for text is left at two, tanh and ReLU.
3. Every matrix has a BatchNorm of its own, and the search form has running averages.
4. Dropout masks every state that is read, as in the released code of DARTS.

Differs from the paper: 5. nodes are in highway form, as released; ``highway: false`` is the paper's formula.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, get_args

from torch import Tensor, nn

from lightning_nas.errors import SettingError
from lightning_nas.spaces.base import Architecture, Choice, Resolved, Space
from lightning_nas.spaces.cells import Form, check_form
from lightning_nas.spaces.graphs import Graph
from lightning_nas.spaces.image_cells.nasnet import loose_weights
from lightning_nas.spaces.recurrent.cell import ACTIVATIONS, PREVIOUS, Edge, RecurrentCell
from lightning_nas.spaces.recurrent.language_model import PENN_TREEBANK, RecurrentNetwork

Share = Literal["pair", "pair_and_activation"]
"""Which architectures share a matrix: those where a node has the same predecessor, or the same activation too."""


class ENASRecurrentCell(Space):
    """Every node chooses a state before it and an activation.

    State 0 is computed from a word and the output at the time step before, and chooses an activation alone. Node 3 has
    the choices ``3/input`` (over the names of states) and ``3/activation``. The output is the mean of the *loose ends*,
    the states that no node reads.

    Args:
        nodes: the number of states.
        activations: the candidates of every state.
        highway: whether a state is mixed with the one it reads, ``s + σ(t) (act(u) - s)``, or is ``act(s W)``.
        share: which architectures share a matrix.
    """

    usual_inputs = PENN_TREEBANK

    def __init__(
        self,
        nodes: int = 12,
        activations: Sequence[str] = ("tanh", "relu", "identity", "sigmoid"),
        highway: bool = True,
        share: Share = "pair",
    ) -> None:
        if not 2 <= nodes <= 32:
            raise SettingError(f"nodes: between 2 and 32, got {nodes}")
        if not activations or not set(activations) <= set(ACTIVATIONS):
            raise SettingError(f"activations: some of {', '.join(ACTIVATIONS)}; got {list(activations)}")
        if share not in get_args(Share):
            raise SettingError(f"share: {' or '.join(get_args(Share))}, got {share!r}")
        self.nodes, self.highway, self.share = nodes, highway, share
        choices = []
        for node in map(str, range(nodes)):
            sources = tuple(range(int(node)))
            if sources:
                choices.append(Choice(f"{node}/input", tuple(map(str, sources)), node, "input", sources=sources))
            choices.append(Choice(f"{node}/activation", tuple(activations), node))
        super().__init__(choices)

    def loose_ends(self, architecture: Architecture) -> tuple[int, ...]:
        """The states that no node reads."""
        names = self.to_names(architecture)
        read = {int(names[f"{node}/input"]) for node in range(1, self.nodes)}
        return tuple(node for node in range(self.nodes) if node not in read)

    def describe(self, architecture: Architecture) -> str:
        """``activation(state that is read)`` for each node; the first reads no state."""
        names = self.to_names(architecture)
        nodes = [f"{names[f'{node}/activation']}({names[f'{node}/input']})" for node in range(1, self.nodes)]
        return " ".join([names["0/activation"], *nodes])

    def from_genotype(self, text: str) -> Architecture:
        """The inverse of :meth:`describe`.

        Raises:
            SettingError: where the text is not a cell of this space.
        """
        names = {}
        for node, word in enumerate(text.split()):
            activation, bracket, source = word.rstrip(")").partition("(")
            names[f"{node}/activation"] = activation
            if bracket:
                names[f"{node}/input"] = source
        return self.from_names(names)

    def graph(self, architecture: Architecture) -> dict[str, Graph]:
        names = self.to_names(architecture)
        activation = {node: names[f"{node}/activation"] for node in range(self.nodes)}
        first = [(source, "0", activation[0]) for source in ("x(t)", "h(t-1)")]
        edges = [(names[f"{node}/input"], str(node), activation[node]) for node in range(1, self.nodes)]
        outputs = [(str(node), "h(t)", "") for node in self.loose_ends(architecture)]
        return {"cell": Graph.of([*first, *edges, *outputs])}

    def network(  # type: ignore[override]  # each space names the settings of its own network
        self,
        inputs: dict[str, int],
        hidden: int = 720,
        form: Form = "search",
        batch_norm: bool = True,
        word_dropout: float = 0.21,
        input_dropout: float = 0.75,
        hidden_dropout: float = 0.25,
        output_dropout: float = 0.76,
    ) -> RecurrentNetwork:
        """A language model; see :class:`~lightning_nas.spaces.recurrent.language_model.RecurrentNetwork`.

        Args:
            inputs: ``vocabulary`` of the data.
            hidden: units of a state, and of the embedding. ENAS: 720 in the search, 748 in the final network.
            form: ``search``, or ``final``: the network to train and report.
            batch_norm: whether the search form normalises after each matrix and at the output (released code). The
                final form never does.
            word_dropout: probability to drop a word of the vocabulary.
            input_dropout: to drop a unit of the embedding.
            hidden_dropout: to drop a unit of the states that the cell reads.
            output_dropout: to drop a unit of the cell's outputs.
        """
        check_form(form)
        cell = PredecessorCell(self, hidden, batch_norm and form == "search")
        return RecurrentNetwork(self, inputs, cell, False, word_dropout, input_dropout, hidden_dropout, output_dropout)


class PredecessorCell(RecurrentCell):
    """A matrix for each state and predecessor (``pair``), or for each of these and the activation.

    Under weights a state is ``Σ_j w_j Σ_a w_a (…)`` over predecessors and activations, and is a loose end with weight
    ``Π (1 − w)`` over the nodes that could read it; at one-hot weights both are the hard rule.

    Args:
        space: whose choices are built.
        hidden: units of a state.
        batch_norm: whether products and outputs are normalised, with the released code's ``eps`` of 1 and decay of
            0.999.
    """

    def __init__(self, space: ENASRecurrentCell, hidden: int, batch_norm: bool) -> None:
        self.share = space.share
        everything: Resolved = {c.name: [(option, None) for option in c.options] for c in space.choices}
        names = [[edge.matrix for edge in self.edges(node, everything)] for node in range(space.nodes)]
        super().__init__(hidden, space.highway, names)
        if batch_norm:
            for name in self.matrices:
                self.product_norms[name] = _norm(self.columns)
            self.output_norm = _norm(hidden)

    def edges(self, state: int, gates: Resolved) -> Iterable[Edge]:
        sources = gates[f"{state}/input"] if state else [(str(PREVIOUS), None)]
        edges = []
        for source, by_source in sources:
            matrix = f"{state}/{source}" if state else "0"
            runs = [(name, _both(by_source, weight)) for name, weight in gates[f"{state}/activation"]]
            if self.share == "pair":
                edges.append(Edge(int(source), matrix, runs))
            else:
                edges += [Edge(int(source), f"{matrix}/{name}", [(name, weight)]) for name, weight in runs]
        return edges

    def outputs(self, gates: Resolved) -> Mapping[int, Tensor | None]:
        inputs = [f"{node}/input" for node in range(1, self.n_states)]
        return loose_weights(gates, inputs, range(self.n_states))


def _norm(columns: int) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(columns, eps=1.0, momentum=0.001)


def _both(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return other if one is None else one if other is None else one * other
