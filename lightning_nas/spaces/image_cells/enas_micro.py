"""The micro space of ENAS (Pham et al., ICML 2018, section 2.3): two cells, with the shared and the final network.

Both networks follow the released code, which decides what the paper leaves open. Differs from it:

1. The final form calibrates both inputs of every cell, also where a cell's only loose end has the right width already:
   so a child's weights are a part of the supernet's.
2. What has stride 2 pads all sides alike; there the right and bottom come first.
3. The search form has running statistics and drop-path; there it normalises by the batch at all times and drops none.
4. The 2×2 convolution of the auxiliary head does not pad.
"""

from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import ClassVar, Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nas.errors import SettingError
from lightning_nas.operations import OPERATIONS, FactorizedReduce, Operation, Pointwise, ReLUConvBN, View
from lightning_nas.operations.convolutions import HalfResolution
from lightning_nas.operations.layout import laid_out
from lightning_nas.spaces.base import Choice, Resolved
from lightning_nas.spaces.cells import Candidates, Drops, Form, States, check_form
from lightning_nas.spaces.image_cells.nasnet import NodePairs, NodePairsCell, side_by_side
from lightning_nas.spaces.image_cells.shell import Place
from lightning_nas.spaces.image_networks import AuxiliaryHead, ImageNetwork, Map, cifar_stem

Reduction = Literal["factorized", "strided"]
"""How a reduction cell halves the resolution: before it, or by its operations on the cell's inputs."""

MICRO_OPERATIONS = ("sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3", "skip_connect")


class ENASMicro(NodePairs):
    """A normal and a reduction cell, in each of which every node adds two operations on two states before it.

    Args:
        nodes: the number of nodes of a cell. What no node reads, the cell's inputs among them, is the cell's output.
        operations: the candidates; by default ENAS's five.
    """

    def __init__(self, nodes: int = 5, operations: Sequence[str] = MICRO_OPERATIONS) -> None:
        super().__init__(("normal", "reduce"), nodes, operations)

    def network(  # type: ignore[override]  # each space names the settings of its own network
        self,
        inputs: dict[str, int],
        channels: int = 20,
        layers: int = 6,
        form: Form = "search",
        reduction: Reduction | None = None,
        auxiliary: bool = False,
        dropout: float | None = None,
    ) -> "ENASMicroNetwork":
        """A stack of ``layers + 2`` cells; see :class:`ENASMicroNetwork`.

        Args:
            inputs: ``channels``, ``image_size`` and ``num_classes`` of the data.
            channels: width of the first cells.
            layers: number of normal cells; a reduction cell follows after the first and the second third.
            form: ``search``: a 1×1 convolution combines a cell's loose ends; ``final``: they are concatenated.
            reduction: ``factorized``: FactorizedReduce, then a cell of stride 1; ``strided``: the operations on the
                cell's inputs have stride 2. None: as released, ``factorized`` in the search, ``strided`` in the end.
            auxiliary: a second classifier after the cell that follows the second reduction, in training.
            dropout: probability before the classifier. None: as released, 0.1 in the search, 0.2 in the end.
        """
        check_form(form)
        if reduction is None:
            reduction = "factorized" if form == "search" else "strided"
        if dropout is None:
            dropout = 0.1 if form == "search" else 0.2
        return ENASMicroNetwork(self, inputs, channels, layers, form, reduction, auxiliary, dropout)


class ENASMicroNetwork(ImageNetwork):
    """3×3 stem, cells, ReLU, global average pool, dropout, linear without bias.

    Of ``layers + 2`` cells those at ``layers // 3`` and ``2 (layers // 3) + 1`` are reductions and double the channels.
    BatchNorms learn scale and shift, and pools are not normalised, in both forms. With ``factorized`` reductions both
    inputs of a reduction cell, and the first of the next one, come from the cell before the reduction, as released.

    Args:
        space: whose choices are built.
        inputs: ``channels``, ``image_size`` (pixels) and ``num_classes`` of the data.
        channels: width C of the first cells; the stem's is 3C.
        layers: cells that are not reductions.
        form: the form of the network, ``search`` or ``final``.
        reduction: how a reduction cell halves the resolution, ``factorized`` or ``strided``.
        auxiliary: whether there is an auxiliary head.
        dropout: probability before the classifier.

    Raises:
        SettingError: if a setting does not fit another one or the data; it names the field.
    """

    def __init__(
        self,
        space: ENASMicro,
        inputs: dict[str, int],
        channels: int,
        layers: int,
        form: Form,
        reduction: Reduction,
        auxiliary: bool,
        dropout: float,
    ) -> None:
        super().__init__(space, inputs)
        if channels < 1 or layers < 1:
            raise SettingError(f"network.channels and network.layers: at least 1, got {channels} and {layers}")
        if reduction not in get_args(Reduction):
            raise SettingError(f"network.reduction: {' or '.join(get_args(Reduction))}, got {reduction!r}")
        if not 0 <= dropout < 1:
            raise SettingError(f"network.dropout: from 0 to below 1, got {dropout}")
        self.stem = cifar_stem(inputs["channels"], 3 * channels)
        self.maps.append(Map("stem", 3 * channels, 1))
        reductions = (layers // 3, 2 * (layers // 3) + 1)
        self.halvings = nn.ModuleDict()
        self.cells = nn.ModuleList()
        before_last: Mapping[str, int] = {"stem": 3 * channels}
        last, own, stride, to_halve = before_last, channels, 1, False
        for k in range(layers + 2):
            kind, strided = "normal", False
            if k in reductions:
                kind, strided = "reduce", reduction == "strided"
                own, stride = 2 * own, 2 * stride
                if not strided:
                    self.halvings[str(k)] = HalfResolution(last, own, affine=True)
                    before_last, last, to_halve = last, {"halved": own}, True
            choices = [choice for choice in space.choices if choice.cell == kind]
            cell = MicroCell(choices, space.nodes, Place(kind, before_last, last, own, to_halve), form, strided)
            self.cells.append(cell)
            before_last, last, to_halve = last, cell.widths, strided
            self.maps.append(Map(f"cells.{k}", sum(last.values()), stride))
            if auxiliary and k == reductions[1] + 1:
                size = -(-inputs["image_size"] // stride)  # every halving rounds up
                self.auxiliary_reads = f"cells.{k}"
                self.auxiliary = AuxiliaryHead(last, size, inputs["num_classes"], bias=False, dense=self.dense)
        self.build_classifier(last, partial(Pointwise, last), dropout)

    def layers_of(self, x: Tensor, resolved: Resolved, drops: Callable[[float], Drops]) -> Iterator[tuple[str, States]]:
        s0 = s1 = States(self.stem(laid_out(x)), ("stem",))
        yield "stem", s1
        for k, cell in enumerate(self.cells):
            if str(k) in self.halvings:
                s0, s1 = s1, States(self.halvings[str(k)](s1.x, s1.names), ("halved",))
            s0, s1 = s1, cell(s0, s1, resolved, drops((k + 1) / len(self.cells)))
            yield f"cells.{k}", s1

    def last_map(self, states: States) -> States:
        return States(F.relu(states.x), states.names)


_STATE = View("state", lambda channels, stride, affine: nn.Identity())


def _skip(channels: int, stride: int, affine: bool) -> nn.Module | None:
    return None if stride == 1 else HalfResolution({"state": channels}, channels, affine)


class MicroCandidates(Candidates):
    """The same operations, but for the skip: at stride 2 it halves without a ReLU, and drop-path spares it."""

    operations: ClassVar = ChainMap({"skip_connect": Operation(lambda stride: _STATE, _skip)}, OPERATIONS)


class MicroCell(NodePairsCell):
    """A cell of either form. Its inputs are calibrated to its width and resolution: in the search where they differ,
    in the final network always, where the second passes another ReLU, 1×1 convolution and BatchNorm.

    Loose ends are combined in the search by ReLU, 1×1 convolution and BatchNorm with a part of the weight for each
    state, in the final network side by side. Where operations are strided, inputs that are loose are halved for it.

    Args:
        choices: the choices of this cell.
        nodes: the number of nodes of the cell.
        place: where the cell stands; ``after_reduction`` says that its first input is still to be halved.
        form: the form of the network, ``search`` or ``final``.
        strided: whether the operations on the inputs have stride 2.
    """

    def __init__(self, choices: Sequence[Choice], nodes: int, place: Place, form: Form, strided: bool) -> None:
        channels, final = place.channels, form == "final"
        inputs = (0, 1) if strided else ()
        super().__init__(choices, nodes, place.kind, MicroCandidates(channels, inputs, affine=True))
        self.before_last: nn.Module | None = None
        if place.after_reduction:
            self.before_last = FactorizedReduce(place.before_last, channels, affine=True)
        elif final or sum(place.before_last.values()) != channels:
            self.before_last = ReLUConvBN(place.before_last, channels, affine=True)
        self.last: nn.Module | None = None
        if final or sum(place.last.values()) != channels:
            self.last = ReLUConvBN(place.last, channels, affine=True)
        self.base = ReLUConvBN({"last": channels}, channels, affine=True) if final else None
        loose = {str(state): channels for state in self.can_be_loose}
        loose_inputs = [str(state) for state in inputs if state in self.can_be_loose]
        self.halvings = nn.ModuleDict({k: HalfResolution({k: channels}, channels, affine=True) for k in loose_inputs})
        self.combine = None if final else ReLUConvBN(loose, channels, affine=True)
        self.widths = loose if final else {"cell": channels}

    def forward(self, s0: States, s1: States, gates: Resolved, drops: Drops) -> States:
        x0 = s0.x if self.before_last is None else self.before_last(s0.x, s0.names)
        x1 = s1.x if self.last is None else self.last(s1.x, s1.names)
        x1 = x1 if self.base is None else self.base(x1)
        states = self.states([x0, x1], gates, drops)
        loose = self.loose(gates, range(self.nodes + 2))
        for k, halve in self.halvings.items():
            if int(k) in loose:
                states[int(k)] = halve(states[int(k)])
        output = side_by_side(states, loose)
        return output if self.combine is None else States(self.combine(output.x, output.names), ("cell",))
