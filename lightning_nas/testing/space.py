"""What every space with a network promises."""

import dataclasses
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lightning_nas.spaces import Architecture, Gate, Gates, Space
from lightning_nas.spaces.base import Network

IMAGES = {"channels": 3, "image_size": 8, "num_classes": 5}
"""Small images of five classes."""


@dataclasses.dataclass(frozen=True)
class SpaceCase:
    """A space and a small network of it.

    Attributes:
        space: the space whose promises are tested.
        settings: the settings of its network besides the form, such as a small number of channels.
        inputs: what the network is told of the data; with a ``vocabulary`` it reads words, else images.
        forms: the forms in which the network is built and tested.
        drop_path: the probability that is handed to ``forward``; 0 where the network has no paths to drop.
        all_shared: whether every architecture has all of the supernet's weights.
        drawn: whether each new network has new weights; else it has those that are there already.
        one_graph: whether a child compiles as one graph, as what has PyTorch's own ``nn.LSTM`` in it does not.
    """

    space: Space
    settings: dict[str, Any]
    inputs: dict[str, int] = dataclasses.field(default_factory=lambda: dict(IMAGES))
    forms: tuple[str, ...] = ("search", "final")
    drop_path: float = 0.0
    all_shared: bool = False
    drawn: bool = True
    one_graph: bool = True

    def network(self, form: str, space: Space | None = None) -> Network:
        return (space or self.space).network(self.inputs, form=form, **self.settings).double()

    def batch(self) -> Tensor:
        generator = torch.Generator().manual_seed(11)
        if "vocabulary" in self.inputs:
            return torch.randint(self.inputs["vocabulary"], (4, 3), generator=generator)
        size = self.inputs["image_size"]
        return torch.randn(3, self.inputs["channels"], size, size, dtype=torch.float64, generator=generator)


def architectures(space: Space, count: int) -> list[Architecture]:
    rng = Random(5)
    return [space.random(rng) for _ in range(count)]


def snapshot(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def randomise(network: nn.Module) -> None:
    """Weights and buffers that no two modules share by accident, with running statistics as after some training."""
    generator = torch.Generator().manual_seed(7)
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            value.normal_(0, 0.3, generator=generator)
            if name.endswith("running_var"):
                value.abs_().add_(0.5)


def part_of(network: Network, architecture: Architecture, values: Mapping[str, Tensor | None]) -> dict[str, Any]:
    """The part for an architecture's child of what there is for each weight and buffer of the network, which is left
    with these values as its own."""
    network.load_state_dict({name: value for name, value in values.items() if value is not None}, strict=False)
    state = network.child_state(architecture)
    return {name: None if values[name] is None else value.clone() for name, value in state.items() if name in values}


def outside(network: Network, architecture: Architecture) -> dict[str, Tensor]:
    """For each weight and buffer of the network, True where it does not belong to an architecture's child. The network
    is left with other values."""
    for value in network.state_dict().values():
        value.copy_(torch.arange(value.numel()).view(value.shape))
    others = {name: torch.ones(value.shape, dtype=torch.bool) for name, value in network.state_dict().items()}
    for name, value in network.child_state(architecture).items():  # which of the numbers it has
        others[name].view(-1)[value.flatten().long()] = False
    return others


def soft_gates(space: Space) -> dict[str, Gate]:
    """Weights for the choices that can be relaxed, the last option of the others."""
    generator = torch.Generator().manual_seed(17)
    return {
        choice.name: torch.rand(len(choice.options), dtype=torch.float64, generator=generator)
        if choice.relaxable
        else len(choice.options) - 1
        for choice in space.choices
    }


@dataclasses.dataclass
class Result:
    """What one forward and backward pass gave: outputs, gradients, and the weights and buffers after it."""

    outputs: tuple[Tensor, ...]
    loss: float
    gradients: dict[str, Tensor | None]
    state: dict[str, Tensor]


def run(
    case: SpaceCase,
    network: nn.Module,
    gates: Gates | None,
    state: dict[str, Tensor],
    train: bool,
    forward: Callable[..., Any] | None = None,
) -> Result:
    """Forward and backward from the weights and buffers ``state``; ``forward`` is called in the network's place."""
    network.load_state_dict(state)
    network.train(train)
    network.zero_grad(set_to_none=True)
    torch.manual_seed(3)  # whatever is random in a forward pass falls the same way
    settings = {"drop_path": case.drop_path} if case.drop_path else {}
    outputs = (network if forward is None else forward)(case.batch(), gates, **settings)
    outputs = [out for out in tree_leaves(outputs) if out is not None]
    generator = torch.Generator().manual_seed(13)
    # A random direction: the plain sum over a batch has no gradient behind a normalisation.
    loss = torch.stack([(torch.randn(o.shape, dtype=o.dtype, generator=generator) * o).sum() for o in outputs]).sum()
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    return Result(tuple(output.detach() for output in outputs), loss.item(), gradients, snapshot(network))


def assert_equal(one: Tensor | None, other: Tensor | None, what: str, tolerance: float = 0.0) -> None:
    if one is None or other is None:
        assert one is other is None, what
    else:
        assert one.isfinite().all(), what
        furthest = (one - other).abs().max().item()
        assert furthest <= tolerance, f"{what}: {furthest}"


class SpaceContract:
    """The promises of a space; see :mod:`lightning_nas.testing`.

    A network may have no BatchNorm, no auxiliary head and no paths to drop. It has to run in float64, and in training
    whatever is random in it has to come from PyTorch's default generator.
    """

    cases: dict[str, SpaceCase] = {}  # noqa: RUF012
    """The spaces to test by a name for each."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test for each case, and each form of its network."""
        if "form" in metafunc.fixturenames:
            forms = [(name, case, form) for name, case in self.cases.items() for form in case.forms]
            metafunc.parametrize(
                ("case", "form"), [pytest.param(case, form, id=f"{name}-{form}") for name, case, form in forms]
            )
        elif "case" in metafunc.fixturenames:
            metafunc.parametrize("case", self.cases.values(), ids=self.cases)

    @pytest.fixture(autouse=True)
    def _seed(self) -> None:
        torch.manual_seed(0)

    def test_child_hard_path_and_one_hot_gates_are_the_same_function(self, case: SpaceCase, form: str) -> None:
        space = case.space
        supernet = case.network(form)
        randomise(supernet)
        before = snapshot(supernet)
        for architecture in architectures(space, 3):
            child = case.network(form, space.restrict(architecture))
            part = part_of(supernet, architecture, before)
            names = set(child.state_dict())
            assert names == set(part) <= set(before)
            assert (names == set(before)) == case.all_shared
            hard, one_hot = space.gates(architecture), space.one_hot(architecture, dtype=torch.float64)
            for train in (True, False):
                alone = run(case, child, None, part, train)
                assert any(gradient is not None and gradient.any() for gradient in alone.gradients.values())
                largest = max(
                    gradient.abs().max().item() for gradient in alone.gradients.values() if gradient is not None
                )
                # a weight of 1 is one more step on the way back, so gradients may be added up in another order
                for gates, tolerance in ((hard, 0.0), (one_hot, 1e-13 * largest)):
                    shared = run(case, supernet, gates, before, train)
                    assert len(shared.outputs) == len(alone.outputs)
                    for one, other in zip(shared.outputs, alone.outputs, strict=True):
                        assert_equal(one, other, "output")
                    gradients = part_of(supernet, architecture, shared.gradients)
                    for name in alone.gradients:
                        assert_equal(gradients[name], alone.gradients[name], f"gradient of {name}", tolerance)
                    state = part_of(supernet, architecture, shared.state)
                    for name in names:
                        assert_equal(state[name], alone.state[name], f"{name} after the pass")

    def test_what_does_not_run_is_left_alone(self, case: SpaceCase, form: str) -> None:
        """No gradient (weight decay and momentum would move a zero one), and no running statistics."""
        space = case.space
        supernet = case.network(form)
        randomise(supernet)
        before = snapshot(supernet)
        for architecture in architectures(space, 2):
            used = set(supernet.child_state(architecture))
            others = outside(supernet, architecture)
            for gates in (space.gates(architecture), space.one_hot(architecture, dtype=torch.float64)):
                result = run(case, supernet, gates, before, train=True)
                unused = [name for name in result.gradients if name not in used]
                assert bool(unused) != case.all_shared
                assert [name for name in unused if result.gradients[name] is not None] == []
                assert not any(g[others[name]].any() for name, g in result.gradients.items() if g is not None)
                changed = {name for name in before if not torch.equal(before[name], result.state[name])}
                assert not any((before[name] != result.state[name])[others[name]].any() for name in changed)
                assert bool(changed) == any(name in used for name, _ in supernet.named_buffers())
                assert changed <= used
                assert all("running" in name or "num_batches_tracked" in name for name in changed)

    def test_evaluation_changes_no_buffer(self, case: SpaceCase, form: str) -> None:
        supernet = case.network(form)
        randomise(supernet)
        before = snapshot(supernet)
        (architecture,) = architectures(case.space, 1)
        after = run(case, supernet, case.space.gates(architecture), before, train=False).state
        assert all(torch.equal(before[name], after[name]) for name in before)

    def test_gradients_of_the_gates(self, case: SpaceCase, form: str) -> None:
        """They exist wherever there is something to choose, and agree with a difference quotient."""
        supernet = case.network(form)
        randomise(supernet)
        before = snapshot(supernet)
        generator = torch.Generator().manual_seed(19)
        given = soft_gates(case.space)
        weights = {name: gate for name, gate in given.items() if isinstance(gate, Tensor)}
        direction = {name: torch.rand(w.shape, dtype=w.dtype, generator=generator) for name, w in weights.items()}
        step = 1e-8  # so small that hardly a ReLU changes sign
        gates = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
        run(case, supernet, given | gates, before, train=True)
        slope = 0.0
        for choice in case.space.choices:
            gradient = gates[choice.name].grad if choice.relaxable else None
            if choice.relaxable and len(choice.options) > 1:
                assert gradient is not None, choice.name
                assert gradient.any(), choice.name
            if gradient is not None:
                slope += (gradient * direction[choice.name]).sum().item()
        ahead, behind = (
            run(
                case, supernet, given | {n: weights[n] + sign * step * direction[n] for n in weights}, before, True
            ).loss
            for sign in (1, -1)
        )
        assert slope == pytest.approx(
            (ahead - behind) / (2 * step), rel=1e-5, abs=1e-7
        )  # 1e-16 of the loss by the step

    @pytest.mark.slow
    def test_a_compiled_child_is_the_plain_one(self, case: SpaceCase) -> None:
        """As one graph, by the backend that runs it as it is: what is wrong then, no compiler can mend."""
        space = case.space
        network = case.network(case.forms[-1], space.restrict(architectures(space, 1)[0]))
        randomise(network)
        self._assert_compiled_is_plain(case, network, None, fullgraph=case.one_graph)

    @pytest.mark.slow
    def test_a_compiled_supernet_is_the_plain_one(self, case: SpaceCase) -> None:
        """In several graphs, since weights that are zero are not run."""
        supernet = case.network(case.forms[0])
        randomise(supernet)
        self._assert_compiled_is_plain(case, supernet, soft_gates(case.space), fullgraph=False)

    def _assert_compiled_is_plain(
        self, case: SpaceCase, network: nn.Module, gates: Gates | None, fullgraph: bool
    ) -> None:
        before = snapshot(network)
        for train in (True, False):
            torch._dynamo.reset()
            plain = run(case, network, gates, before, train)
            compiled = torch.compile(network, backend="eager", fullgraph=fullgraph)
            fast = run(case, network, gates, before, train, forward=compiled)
            for one, other in zip(fast.outputs, plain.outputs, strict=True):
                assert_equal(one, other, "output")
            for name, gradient in plain.gradients.items():
                assert_equal(fast.gradients[name], gradient, f"gradient of {name}")
            for name, value in plain.state.items():
                assert_equal(fast.state[name], value, f"{name} after the pass")

    def test_without_gates_a_supernet_says_what_it_needs(self, case: SpaceCase, form: str) -> None:
        with pytest.raises(ValueError, match="restrict it to one first"):
            case.network(form)(case.batch())

    def test_a_network_is_the_same_for_the_same_seed(self, case: SpaceCase, form: str) -> None:
        states = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            states.append(snapshot(case.network(form)))
        same, again, other = states
        assert all(torch.equal(same[name], again[name]) for name in same)
        assert any(not torch.equal(same[name], other[name]) for name in same) == case.drawn

    def test_a_spec_rebuilds_the_space(self, case: SpaceCase) -> None:
        space = case.space
        for part in (space, space.restrict(architectures(space, 1)[0])):
            rebuilt = Space.build(part.spec)
            assert type(rebuilt) is type(part)
            assert rebuilt.choices == part.choices
            assert rebuilt.size == part.size
            assert rebuilt.spec == part.spec
            assert [rebuilt.random(Random(seed)) for seed in range(5)] == [
                part.random(Random(seed)) for seed in range(5)
            ]

    def test_names_round_trip(self, case: SpaceCase) -> None:
        space = case.space
        drawn = architectures(space, 50)
        assert len(set(drawn)) >= min(25, space.size) / 2
        for architecture in drawn:
            names = space.to_names(architecture)
            assert all(names[choice.name] in choice.options for choice in space.choices)
            assert space.from_names(names) == architecture

    def test_everything_drawn_is_legal(self, case: SpaceCase) -> None:
        space = case.space
        rng = Random(6)
        for _ in range(50):
            by_architecture, by_choice = space.random(rng), space.random(rng, by="choice")
            mutated = [space.mutate(by_choice, rng)] if space.size > 1 else []
            scores = [[rng.random() for _ in choice.options] for choice in space.choices]
            crossed = space.crossover(by_architecture, by_choice, rng)
            assert all(option in pair for option, *pair in zip(crossed, by_architecture, by_choice, strict=True))
            assert space.crossover(crossed, crossed, rng) == crossed
            for drawn in (by_architecture, by_choice, *mutated, crossed, space.derive(scores)):
                state = space.start
                for choice, option in zip(space.choices, drawn, strict=True):
                    state = space.step(state, choice, choice.options[option])
                    assert state is not None
                assert space.legal(drawn)

    def test_drawings_and_descriptions_tell_architectures_apart(self, case: SpaceCase) -> None:
        space = case.space
        drawn = list(dict.fromkeys(architectures(space, 20)))
        assert len({space.describe(architecture) for architecture in drawn}) == len(drawn)
        graphs = [space.graph(architecture) for architecture in drawn]
        assert len(set(map(repr, graphs))) == len(drawn)
        for graph in (graph for cells in graphs for graph in cells.values()):
            assert len(set(graph.nodes)) == len(graph.nodes)
            assert {end for edge in graph.edges for end in (edge.source, edge.target)} <= set(graph.nodes)

    def test_encodings_tell_architectures_apart(self, case: SpaceCase) -> None:
        space = case.space
        drawn = list(dict.fromkeys(architectures(space, 50)))
        encoded = torch.stack([space.encode(architecture) for architecture in drawn])
        assert encoded.dtype == torch.float32
        assert 0 <= encoded.min() <= encoded.max() <= 1
        assert len(encoded.unique(dim=0)) == len(drawn)
        for architecture, vector in zip(drawn[:3], encoded, strict=False):
            part = space.restrict(architecture)
            assert torch.equal(part.encode(part.only), vector)

    def test_values_stay_with_their_options(self, case: SpaceCase) -> None:
        space = case.space
        for architecture in architectures(space, 3):
            for choice, only, option in zip(
                space.choices, space.restrict(architecture).choices, architecture, strict=True
            ):
                assert only.values == choice.values[option : option + 1]
                assert only.relaxable == choice.relaxable
        mixed = [choice.name for choice in space.choices if len(choice.options) > 1 and not choice.relaxable]
        assert bool(mixed) <= bool(space.no_relaxation)
