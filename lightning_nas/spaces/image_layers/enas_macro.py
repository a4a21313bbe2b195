"""The macro space of ENAS (Pham et al. 2018): a whole network layer by layer, each with its skip connections."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from lightning_nas.errors import SettingError
from lightning_nas.operations import ReLUConvBN, drop_path
from lightning_nas.operations.convolutions import ConvBN, Depthwise, HalfResolution
from lightning_nas.operations.layout import laid_out
from lightning_nas.operations.normalization import BatchNorm
from lightning_nas.spaces.base import Architecture, Choice, Resolved, Space
from lightning_nas.spaces.cells import Drops, Form, States, check_form
from lightning_nas.spaces.graphs import Graph
from lightning_nas.spaces.image_networks import ImageNetwork, Map, cifar_stem
from lightning_nas.spaces.sums import add_weighted

_BODIES: dict[str, Callable[[int], nn.Module]] = {
    "conv_3x3": lambda channels: ConvBN(channels, 3, stride=1, affine=True),
    "sep_conv_3x3": lambda channels: Depthwise(channels, 3, stride=1, affine=True),
    "conv_5x5": lambda channels: ConvBN(channels, 5, stride=1, affine=True),
    "sep_conv_5x5": lambda channels: Depthwise(channels, 5, stride=1, affine=True),
    "avg_pool_3x3": lambda channels: nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
    "max_pool_3x3": lambda channels: nn.MaxPool2d(3, stride=1, padding=1),
}

OPERATIONS = tuple(_BODIES)
"""The six operations in the order in which the paper numbers them. A separable convolution is one, not DARTS's two."""

RELEASED_24_LAYERS = (
    "0; 3:0; 0:10; 2:001; 2:0000; 3:11010; 2:000001; 2:0110111; 1:01110101; 0:000000000; 2:0000010000; 0:10011000011; "
    "2:010000010110; 1:0010001110101; 0:11010100000100; 2:001000000010101; 2:0100010011110010; 2:00001010100101001; "
    "3:011010000010101000; 3:0110000000001100001; 0:10010110001000001100; 3:010110010110110100100; "
    "0:1010100000000101001000; 0:11000111010001010011000"
)
"""The network of the released code, for :meth:`ENASMacro.from_genotype`."""


class ENASMacro(Space):
    """Every layer has an operation, which reads the layer before, and skip connections from any states before that.

    State 0 is the stem and state i the output of layer i. Layer 4 has the choices ``4/operation`` and, each ``off`` or
    ``on``, ``4/skip_0`` (the stem), ``4/skip_1`` and ``4/skip_2``; layer 3 it reads anyway.

    Args:
        layers: the number of layers of the network.
        operations: the candidates in every layer.
    """

    no_relaxation = (
        "a skip is on or off with nothing to compete against, and the scales of BatchNorm, which ENAS learns in the "
        "search too, undo the weight of any operation, so no softmax would say what is worth keeping"
    )

    def __init__(self, layers: int = 12, operations: Sequence[str] = OPERATIONS) -> None:
        if not 3 <= layers <= 64:
            raise SettingError(f"layers: between 3 (a reduction after each third) and 64, got {layers}")
        if not operations or not set(operations) <= set(OPERATIONS):
            raise SettingError(f"operations: some of {', '.join(OPERATIONS)}; got {list(operations)}")
        self.layers = layers
        super().__init__(choice for layer in range(1, layers + 1) for choice in _choices(layer, operations))

    def describe(self, architecture: Architecture) -> str:
        """The authors' notation, ``operation:bits`` for each layer; bit j says whether the skip from state j is on."""
        names = self.to_names(architecture)
        layers = [names["1/operation"]]
        for i in range(2, self.layers + 1):
            bits = ["01"[names[f"{i}/skip_{j}"] == "on"] for j in range(i - 1)]
            layers.append(f"{names[f'{i}/operation']}:{''.join(bits)}")
        return "; ".join(layers)

    def from_genotype(self, text: str) -> Architecture:
        """The inverse of :meth:`describe`; operations may also be numbers, as in :data:`RELEASED_24_LAYERS`.

        Raises:
            SettingError: where the text is not a network of this space.
        """
        layers = text.split(";")
        if len(layers) != self.layers:
            raise SettingError(f"expected {self.layers} layers, separated by semicolons; got {len(layers)}")
        numbers = {str(number): operation for number, operation in enumerate(OPERATIONS)}
        names = {}
        for i, layer in enumerate(layers, start=1):
            operation, colon, bits = layer.strip().partition(":")
            if len(bits) != i - 1 or not set(bits) <= {"0", "1"} or bool(colon) != bool(bits):
                raise SettingError(f"layer {i}: expected an operation and {i - 1} bits, got {layer.strip()[:80]!r}")
            names[f"{i}/operation"] = numbers.get(operation, operation)
            names |= {f"{i}/skip_{j}": "on" if bit == "1" else "off" for j, bit in enumerate(bits)}
        return self.from_names(names)

    def graph(self, architecture: Architecture) -> dict[str, Graph]:
        names = self.to_names(architecture)
        label = ["stem", *(str(layer) for layer in range(1, self.layers + 1))]
        edges = []
        for choice in self.choices:
            if choice.kind == "operation":
                edges.append((label[choice.output - 1], label[choice.output], names[choice.name]))
            elif names[choice.name] == "on":
                edges.append((label[choice.sources[0]], label[choice.output], ""))
        return {"network": Graph.of([*edges, (label[-1], "output", "")])}

    def network(  # type: ignore[override]  # each space names the settings of its own network
        self,
        inputs: dict[str, int],
        channels: int = 36,
        form: Form = "search",
        full_convolutions: bool = False,
        dropout: float = 0.1,
    ) -> "ENASMacroNetwork":
        """The layers; see :class:`ENASMacroNetwork`.

        Args:
            inputs: ``channels``, ``image_size`` and ``num_classes`` of the data.
            channels: width of the layers. ENAS: 36 in the search, 96 in the final network.
            form: ``search``: skips are summed, one width; ``final``: concatenated, the width doubles at a reduction.
            full_convolutions: in final form, build the separable convolutions as ordinary ones, as the released code
                does.
            dropout: probability to drop a feature before the classifier. ENAS: 0.1 in the search, 0.5 in the final
                network.
        """
        return ENASMacroNetwork(self, inputs, channels, form, full_convolutions, dropout)


def _choices(layer: int, operations: Sequence[str]) -> list[Choice]:
    node = str(layer)
    skips = [
        Choice(f"{node}/skip_{source}", ("off", "on"), node, "skip", group=f"{node}/skips", sources=(source,))
        for source in range(layer - 1)
    ]
    return [Choice(f"{node}/operation", tuple(operations), node), *skips]


class ENASMacroNetwork(ImageNetwork):
    """3×3 stem, layers, global average pool, dropout, linear without bias (Pham et al. 2018, released code).

    After a third and after two thirds of the layers all states that are read later are halved, each by its own
    FactorizedReduce (without ReLU). The first layer has no skips, so nothing is joined there.

    Unlike in other spaces, BatchNorm learns scale and shift in search form too.

    Differs from the released code: 1. separable convolutions are separable in final form too, see
    ``full_convolutions``; 2. pools can be built in final form; 3. states that nobody reads are not halved.

    Args:
        space: whose choices are built.
        inputs: ``channels``, ``image_size`` and ``num_classes`` of the data.
        channels: width of the layers; in final form of those before the first reduction.
        form: the form of the network, ``search`` or ``final``.
        full_convolutions: in final form, build separable convolutions as ordinary ones.
        dropout: probability to drop a feature before the classifier.
    """

    def __init__(
        self,
        space: ENASMacro,
        inputs: dict[str, int],
        channels: int,
        form: Form,
        full_convolutions: bool,
        dropout: float,
    ) -> None:
        super().__init__(space, inputs)
        check_form(form)
        if channels < 2:
            raise SettingError(f"network.channels: at least 2, since a reduction splits them; got {channels}")
        if full_convolutions and form == "search":
            raise SettingError("network.full_convolutions: final form only; in the search ENAS's are separable")
        if not 0 <= dropout < 1:
            raise SettingError(f"network.dropout: at least 0 and below 1, got {dropout}")
        self.stem = cifar_stem(inputs["channels"], channels)
        self.maps.append(Map("stem", channels, 1))
        self.layers = nn.ModuleDict()
        self.reductions = nn.ModuleDict()
        last_reader = self._last_readers({choice.name: choice.options for choice in space.choices})
        width, stride = channels, 1
        for layer in range(1, space.layers + 1):
            choices = [choice for choice in space.choices if choice.output == layer]
            self.layers[str(layer)] = Layer(choices, width, form, full_convolutions)
            self.maps.append(Map(f"layers.{layer}", width, stride))
            if layer in (space.layers // 3, 2 * (space.layers // 3)):
                stride, before, width = 2 * stride, width, 2 * width if form == "final" else width
                read_later = [state for state in range(layer + 1) if last_reader[state] > layer]
                self.reductions[str(layer)] = nn.ModuleDict(
                    {str(state): HalfResolution({"state": before}, width, affine=True) for state in read_later}
                )
        self.build_classifier({"layer": width}, partial(nn.Linear, width, bias=False), dropout)

    def layers_of(self, x: Tensor, resolved: Resolved, drops: Callable[[float], Drops]) -> Iterator[tuple[str, States]]:
        last_reader = self._last_readers({name: [option for option, _ in runs] for name, runs in resolved.items()})
        states = {0: self.stem(laid_out(x))}
        yield "stem", States(states[0], ("layer",))
        for name, layer in self.layers.items():
            number = int(name)
            states[number] = layer(states, resolved, drops(number / len(self.layers)).path)
            yield f"layers.{name}", States(states[number], ("layer",))
            states = {state: value for state, value in states.items() if last_reader[state] > number}
            if name in self.reductions:
                halve = self.reductions[name]
                states = {state: halve[str(state)](value) for state, value in states.items()}  # type: ignore[index]

    def _last_readers(self, options: Mapping[str, Collection[str]]) -> list[int]:
        """For each state the last layer that reads it, if these options of each choice run; the classifier is the layer
        after the last."""
        last = [state + 1 for state in range(self.space.choices[-1].output + 1)]
        for choice in self.space.choices:  # layer by layer, so that a later reader takes the place of an earlier one
            if choice.kind == "skip" and "on" in options[choice.name]:
                last[choice.sources[0]] = choice.output
        return last


class Layer(nn.Module):
    """An operation on the layer before, joined with skips: summed in search form, side by side in final form.

    Args:
        choices: the operation's and the skips'.
        channels: the number of channels of the layer and of every state that it reads.
    """

    def __init__(self, choices: Sequence[Choice], channels: int, form: Form, full_convolutions: bool) -> None:
        super().__init__()
        operation, *skips = choices
        self.operation, self.predecessor = operation.name, operation.output - 1
        self.skips = {choice.name: choice.sources[0] for choice in skips}
        self.operations = nn.ModuleDict()
        for option in operation.options:
            body = _BODIES[option.removeprefix("sep_") if full_convolutions else option](channels)
            pointwise = [nn.Conv2d(channels, channels, 1, bias=False), BatchNorm(channels), nn.ReLU()]
            # In final form the ReLU comes first, since what ends a layer there is BatchNorm.
            modules = [nn.ReLU(), *pointwise, body] if form == "final" else [*pointwise, body, nn.ReLU()]
            self.operations[option] = nn.Sequential(*modules)
        self.join: nn.Module | None = None
        if skips and form == "search":
            self.join = BatchNorm(channels)
        elif skips:
            sources = [str(choice.sources[0]) for choice in skips if "on" in choice.options]
            self.join = ReLUConvBN(dict.fromkeys(["operation", *sources], channels), channels, affine=True)

    def forward(self, states: Mapping[int, Tensor], gates: Resolved, probability: float) -> Tensor:
        result = None
        for option, weight in gates[self.operation]:
            term = drop_path(self.operations[option](states[self.predecessor]), probability)
            result = add_weighted(result, term, weight)
        parts = {"operation": torch.zeros_like(states[self.predecessor]) if result is None else result}
        for name, source in self.skips.items():
            for option, weight in gates[name]:
                if option == "on":
                    parts[str(source)] = states[source] if weight is None else weight * states[source]
        if self.join is None:
            return parts["operation"]
        if isinstance(self.join, ReLUConvBN):
            return self.join(torch.cat(list(parts.values()), 1), list(parts))
        return self.join(sum(parts.values()))
