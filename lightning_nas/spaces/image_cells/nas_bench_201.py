"""The cell of NAS-Bench-201 (Dong and Yang, ICLR 2020) and its network."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from torch import Tensor, nn

from lightning_nas.errors import SettingError
from lightning_nas.operations.layout import laid_out
from lightning_nas.operations.normalization import BatchNorm
from lightning_nas.spaces.base import Architecture, Choice, DropPath, Gates, Resolved, Space
from lightning_nas.spaces.cells import Drops, Edges, Form, States, check_form, check_operations
from lightning_nas.spaces.graphs import Graph
from lightning_nas.spaces.image_networks import ImageNetwork, Map, cifar_stem

NODES = 3  # after the input
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")


class NASBench201(Space):
    """Six edges between four states, each with one of five operations: 15,625 cells, all of them in the benchmark.

    State 0 is the cell's input, state 3 its output; ``0->2`` is the edge from state 0 to state 2.

    Args:
        operations: the candidates on every edge, in the benchmark's order.
    """

    def __init__(self, operations: Sequence[str] = OPERATIONS) -> None:
        check_operations(operations)
        super().__init__(
            Choice(f"{source}->{node}", tuple(operations), str(node), sources=(source,))
            for node in range(1, NODES + 1)
            for source in range(node)
        )

    def describe(self, architecture: Architecture) -> str:
        """The benchmark's own string, ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``."""
        names = self.to_names(architecture)
        edges = [[f"{names[f'{source}->{node}']}~{source}" for source in range(node)] for node in range(1, NODES + 1)]
        return "+".join(f"|{'|'.join(node)}|" for node in edges)

    def from_string(self, text: str) -> Architecture:
        """The inverse of :meth:`describe`.

        Raises:
            SettingError: where the text is not a cell of this space.
        """
        names = {}
        for node, part in enumerate(text.split("+"), start=1):
            for edge in part.strip("|").split("|"):
                operation, _, source = edge.rpartition("~")
                names[f"{source}->{node}"] = operation
        architecture = self.from_names(names)
        if self.describe(architecture) != text:
            raise SettingError(f"not in the form |op~0|+|op~0|op~1|+|op~0|op~1|op~2|: {text[:200]!r}")
        return architecture

    def graph(self, architecture: Architecture) -> dict[str, Graph]:
        label = {0: "input", 1: "1", 2: "2", 3: "output"}
        names = self.to_names(architecture)
        edges = [(label[c.sources[0]], label[c.output], names[c.name]) for c in self.choices]
        return {"cell": Graph.of((edge for edge in edges if edge[2] != "none"), label.values())}

    def network(  # type: ignore[override]  # each space names the settings of its own network
        self, inputs: dict[str, int], channels: int = 16, cells: int = 5, form: Form = "search"
    ) -> "NASBench201Network":
        """Three stacks of cells; see :class:`NASBench201Network`.

        Args:
            inputs: ``channels``, ``image_size`` and ``num_classes`` of the data.
            channels: width of the first stack.
            cells: in each of the three stacks.
            form: ``search``: BatchNorm without scale and shift; ``final``: the network to train and report.
        """
        return NASBench201Network(self, inputs, channels, cells, form)


class NASBench201Network(ImageNetwork):
    """3×3 stem, three stacks of cells with a residual reduction between them, BatchNorm, ReLU, pool, linear.

    Differs from the released code: in search form a pool is followed by BatchNorm, as in DARTS.

    Args:
        space: whose choices are built.
        inputs: ``channels``, ``image_size`` and ``num_classes`` of the data.
        channels: width of the first stack; the others have twice and four times as many.
        cells: the number of cells in each stack.
        form: the form of the network, ``search`` or ``final``.
    """

    head_names = ("head", *ImageNetwork.head_names)

    def __init__(self, space: Space, inputs: dict[str, int], channels: int, cells: int, form: Form) -> None:
        super().__init__(space, inputs)
        check_form(form)
        if channels < 1 or cells < 1:
            raise SettingError(f"network.channels and network.cells: at least 1, got {channels} and {cells}")
        self.stem = cifar_stem(inputs["channels"], channels)
        self.maps.append(Map("stem", channels, 1))
        self.stacks = nn.ModuleList()
        self.reductions = nn.ModuleList()
        for k, width in enumerate((channels, 2 * channels, 4 * channels)):
            if k:
                self.reductions.append(ResidualReduction(width // 2, width))
            stack = [Edges(space.choices, 1, width, (), affine=form == "final") for _ in range(cells)]
            self.stacks.append(nn.ModuleList(stack))
            self.maps += [Map(f"stacks.{k}.{cell}", width, 2**k) for cell in range(cells)]
        self.head = nn.Sequential(BatchNorm(width), nn.ReLU())
        self.build_classifier({"cell": width}, partial(nn.Linear, width))

    def forward(
        self, x: Tensor, gates: Gates | None = None, drop_path: DropPath = 0.0, skip_dropout: float = 0.0
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Class logits, as :meth:`ImageNetwork.forward` has them.

        Args:
            x: a batch of images, ``(N, C, H, W)``, of any size.
            gates: how each choice is taken; None where the space has one architecture.
            drop_path: probability to drop an operation's output for a sample, in training.
            skip_dropout: probability to drop a value that an identity passes on, in training (Chen et al. 2019).
        """
        return self.run(x, gates, partial(self.drops, drop_path, skip_dropout=skip_dropout))

    def layers_of(self, x: Tensor, resolved: Resolved, drops: Callable[[float], Drops]) -> Iterator[tuple[str, States]]:
        x = self.stem(laid_out(x))
        yield "stem", States(x, ("cell",))
        depth, n_cells = 0, sum(map(len, self.stacks))  # type: ignore[arg-type]
        for k, stack in enumerate(self.stacks):
            if k:
                x = self.reductions[k - 1](x)
            for number, cell in enumerate(stack):  # type: ignore[var-annotated, arg-type]
                depth += 1
                x = cell([x], resolved, drops(depth / n_cells))[-1]
                yield f"stacks.{k}.{number}", States(x, ("cell",))

    def last_map(self, states: States) -> States:
        return States(self.head(states.x), states.names)


class ResidualReduction(nn.Module):
    """Twice ReLU, 3×3 convolution, BatchNorm, the first of stride 2; beside it 2×2 average pool and 1×1 convolution."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1, bias=False),
            BatchNorm(channels_out),
            nn.ReLU(),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            BatchNorm(channels_out),
        )
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(channels_in, channels_out, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)
