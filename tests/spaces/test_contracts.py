"""What holds for every space with a network. A new space is covered by being listed in ``CASES``."""

import dataclasses
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_nas.spaces import (
    Architecture,
    DARTSCell,
    DARTSRecurrentCell,
    ENASMacro,
    ENASMicro,
    ENASRecurrentCell,
    Gates,
    NASBench201,
    NASNetCell,
    Space,
)

SMALL = {"channels": 4, "cells": 4}
IMAGES = {"channels": 3, "image_size": 8, "num_classes": 5}
TEXT = {"vocabulary": 11}


@dataclasses.dataclass(frozen=True)
class Case:
    """A space and a small network of it.

    Attributes:
        settings: of the network, besides its form.
        drop_path: goes to ``forward``; 0 where the network knows none.
        all_shared: whether every architecture has all of the supernet's weights.
    """

    space: Space
    settings: dict[str, Any]
    inputs: dict[str, int] = dataclasses.field(default_factory=lambda: dict(IMAGES))
    forms: tuple[str, ...] = ("search", "final")
    drop_path: float = 0.0
    all_shared: bool = False

    def network(self, form: str, space: Space | None = None) -> nn.Module:
        return (space or self.space).network(self.inputs, form=form, **self.settings).double()

    def batch(self) -> Tensor:
        generator = torch.Generator().manual_seed(11)
        if "vocabulary" in self.inputs:
            return torch.randint(self.inputs["vocabulary"], (4, 3), generator=generator)
        size = self.inputs["image_size"]
        return torch.randn(3, self.inputs["channels"], size, size, dtype=torch.float64, generator=generator)


CASES = {
    "darts": Case(DARTSCell(), {"channels": 4, "cells": 4}),
    "darts-drop-path": Case(DARTSCell(nodes=2), {"channels": 2, "cells": 3}, drop_path=0.4),
    "darts-normal-only": Case(DARTSCell(kinds=["normal"]), {"channels": 4, "cells": 2, "auxiliary": True}),
    "darts-3-nodes-few-operations": Case(
        DARTSCell(nodes=3, operations=["skip_connect", "none", "avg_pool_3x3", "conv_7x1_1x7"]),
        {"channels": 2, "cells": 3, "stem": "imagenet"},
        {**IMAGES, "channels": 1, "image_size": 17},
    ),
    "darts-restricted": Case(
        DARTSCell(nodes=3).restrict({"normal/0->2": ["none", "dil_conv_5x5"], "reduce/1->2": ["max_pool_3x3"]}),
        {"channels": 2, "cells": 3},
    ),
    "darts-sparse": Case(DARTSCell(nodes=2, sparse=True), {"channels": 2, "cells": 3}),
    "nasnet": Case(NASNetCell(nodes=3, operations=["skip_connect", "sep_conv_3x3", "max_pool_3x3"]), SMALL),
    "nasnet-drop-path": Case(
        NASNetCell(nodes=2, operations=["skip_connect", "avg_pool_3x3"]), {"channels": 2, "cells": 3}, drop_path=0.4
    ),
    "nasnet-restricted": Case(
        NASNetCell(kinds=["normal"], nodes=3, operations=["skip_connect", "conv_7x1_1x7"]).restrict(
            {"normal/3/input_1": "2", "normal/4/input_2": ["0", "3"]}
        ),
        {"channels": 4, "cells": 2, "stem": "imagenet"},
        {**IMAGES, "image_size": 17},
    ),
    "nas-bench-201": Case(NASBench201(), {"channels": 3, "cells": 1}),
    "enas-macro": Case(ENASMacro(layers=6), {"channels": 2}),
    "enas-macro-drop-path": Case(
        ENASMacro(layers=6, operations=["sep_conv_5x5", "conv_3x3", "max_pool_3x3"]), {"channels": 3}, drop_path=0.4
    ),
    "enas-macro-restricted": Case(
        ENASMacro(layers=6).restrict({"4/operation": "avg_pool_3x3", "5/skip_0": "off", "6/skip_2": "on"}),
        {"channels": 2, "dropout": 0.0},
        {**IMAGES, "channels": 1, "image_size": 7},
    ),
    "enas-micro": Case(ENASMicro(nodes=3), {"channels": 2, "layers": 1}),
    "enas-micro-factorized": Case(
        ENASMicro(nodes=2, operations=["sep_conv_3x3", "skip_connect", "max_pool_3x3"]),
        {"channels": 3, "layers": 3, "reduction": "factorized", "dropout": 0.0},
        {**IMAGES, "image_size": 9},
    ),
    "enas-micro-strided-drop-path": Case(
        ENASMicro(nodes=2, operations=["skip_connect", "avg_pool_3x3", "dil_conv_3x3"]),
        {"channels": 2, "layers": 3, "reduction": "strided"},
        {**IMAGES, "image_size": 9},
        drop_path=0.4,
    ),
    "enas-micro-restricted": Case(
        ENASMicro(nodes=3, operations=["skip_connect", "none", "max_pool_3x3"]).restrict(
            {"normal/3/input_1": "1", "normal/4/input_2": ["0", "3"], "reduce/3/input_2": "0", "reduce/2/input_1": "1"}
        ),
        {"channels": 2, "layers": 1},
    ),
    "enas-micro-auxiliary": Case(
        ENASMicro(nodes=2, operations=["skip_connect", "sep_conv_3x3"]),
        {"channels": 2, "layers": 1, "auxiliary": True},
        {**IMAGES, "image_size": 32},
    ),
    "nas-bench-201-drop-path": Case(NASBench201(), {"channels": 2, "cells": 1}, drop_path=0.4),
    "darts-rnn": Case(DARTSRecurrentCell(), {"hidden": 6, "word_dropout": 0.1}, TEXT, all_shared=True),
    "darts-rnn-restricted": Case(
        DARTSRecurrentCell(nodes=5, operations=["relu", "none", "identity", "tanh"]).restrict(
            {"0->2": ["none", "tanh"], "1->3": "relu", "2->4": "none", "0->5": "none", "2->5": ["relu", "identity"]}
        ),
        {"hidden": 5, "hidden_dropout": 0.0},
        TEXT,
        all_shared=True,
    ),
    "enas-rnn": Case(ENASRecurrentCell(nodes=7), {"hidden": 5}, TEXT),
    "enas-rnn-plain": Case(
        ENASRecurrentCell(nodes=5, activations=["identity", "relu", "tanh"], highway=False), {"hidden": 5}, TEXT
    ),
    "enas-rnn-by-activation": Case(
        ENASRecurrentCell(nodes=4, share="pair_and_activation"), {"hidden": 5, "batch_norm": False}, TEXT
    ),
    "enas-rnn-by-activation-restricted": Case(
        ENASRecurrentCell(nodes=6, share="pair_and_activation", highway=False).restrict(
            {"1/activation": "relu", "2/input": "0", "4/input": ["1", "3"], "5/activation": ["tanh", "sigmoid"]}
        ),
        {"hidden": 6, "word_dropout": 0.0, "input_dropout": 0.0, "hidden_dropout": 0.0, "output_dropout": 0.0},
        TEXT,
    ),
}

SPACES = {name: case.space for name, case in CASES.items()}
NETWORKS = [pytest.param(case, form, id=f"{name}-{form}") for name, case in CASES.items() for form in case.forms]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


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


@dataclasses.dataclass
class Result:
    """Of one forward and backward pass: what came out, and the weights and buffers after it."""

    outputs: tuple[Tensor, ...]
    loss: float
    gradients: dict[str, Tensor | None]
    state: dict[str, Tensor]


def run(case: Case, network: nn.Module, gates: Gates | None, state: dict[str, Tensor], train: bool) -> Result:
    """Forward and backward from the weights and buffers ``state``."""
    network.load_state_dict(state)
    network.train(train)
    network.zero_grad(set_to_none=True)
    torch.manual_seed(3)  # whatever is random in a forward pass falls the same way
    settings = {"drop_path": case.drop_path} if case.drop_path else {}
    outputs = network(case.batch(), gates, **settings)
    outputs = [out for out in (outputs if isinstance(outputs, tuple) else (outputs,)) if out is not None]
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


@pytest.mark.parametrize(("case", "form"), NETWORKS)
def test_child_hard_path_and_one_hot_gates_are_the_same_function(case: Case, form: str) -> None:
    space = case.space
    supernet = case.network(form)
    randomise(supernet)
    before = snapshot(supernet)
    shapes = {name: value.shape for name, value in before.items()}
    for architecture in architectures(space, 3):
        child = case.network(form, space.restrict(architecture))
        names = set(child.state_dict())
        assert names <= set(before)
        assert (names == set(before)) == case.all_shared
        assert {name: value.shape for name, value in child.state_dict().items()} == {n: shapes[n] for n in names}
        part = {name: before[name] for name in names}
        hard, one_hot = space.gates(architecture), space.one_hot(architecture, dtype=torch.float64)
        for train in (True, False):
            alone = run(case, child, None, part, train)
            assert any(gradient is not None and gradient.any() for gradient in alone.gradients.values())
            largest = max(gradient.abs().max().item() for gradient in alone.gradients.values() if gradient is not None)
            # A weight of 1 is one more step on the way back, so gradients of a state may be added up in another order.
            for gates, tolerance in ((hard, 0.0), (one_hot, 1e-13 * largest)):
                shared = run(case, supernet, gates, before, train)
                assert len(shared.outputs) == len(alone.outputs)
                for one, other in zip(shared.outputs, alone.outputs, strict=True):
                    assert_equal(one, other, "output")
                for name in alone.gradients:
                    assert_equal(shared.gradients[name], alone.gradients[name], f"gradient of {name}", tolerance)
                for name in names:
                    assert_equal(shared.state[name], alone.state[name], f"{name} after the pass")


@pytest.mark.parametrize(("case", "form"), NETWORKS)
def test_what_does_not_run_is_left_alone(case: Case, form: str) -> None:
    """No gradient (weight decay and momentum would move a zero one), and no running statistics."""
    space = case.space
    supernet = case.network(form)
    randomise(supernet)
    before = snapshot(supernet)
    for architecture in architectures(space, 2):
        used = set(case.network(form, space.restrict(architecture)).state_dict())
        for gates in (space.gates(architecture), space.one_hot(architecture, dtype=torch.float64)):
            result = run(case, supernet, gates, before, train=True)
            unused = [name for name in result.gradients if name not in used]
            assert bool(unused) != case.all_shared
            assert [name for name in unused if result.gradients[name] is not None] == []
            changed = {name for name in before if not torch.equal(before[name], result.state[name])}
            assert bool(changed) == any(True for _ in supernet.buffers())
            assert changed <= used
            assert all("running" in name or "num_batches_tracked" in name for name in changed)


@pytest.mark.parametrize(("case", "form"), NETWORKS)
def test_evaluation_changes_no_buffer(case: Case, form: str) -> None:
    supernet = case.network(form)
    randomise(supernet)
    before = snapshot(supernet)
    (architecture,) = architectures(case.space, 1)
    after = run(case, supernet, case.space.gates(architecture), before, train=False).state
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(("case", "form"), NETWORKS)
def test_gradients_of_the_gates(case: Case, form: str) -> None:
    """They exist wherever there is something to choose, and agree with a difference quotient."""
    supernet = case.network(form)
    randomise(supernet)
    before = snapshot(supernet)
    generator = torch.Generator().manual_seed(17)

    def draw() -> dict[str, Tensor]:
        shapes = {choice.name: len(choice.options) for choice in case.space.choices}
        return {name: torch.rand(n, dtype=torch.float64, generator=generator) for name, n in shapes.items()}

    weights, direction, step = draw(), draw(), 1e-8  # so small that hardly a ReLU changes sign
    gates = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    run(case, supernet, gates, before, train=True)
    slope = 0.0
    for choice in case.space.choices:
        gradient = gates[choice.name].grad
        if len(choice.options) > 1:
            assert gradient is not None, choice.name
            assert gradient.any(), choice.name
        if gradient is not None:
            slope += (gradient * direction[choice.name]).sum().item()
    ahead, behind = (
        run(case, supernet, {n: weights[n] + sign * step * direction[n] for n in weights}, before, train=True).loss
        for sign in (1, -1)
    )
    assert slope == pytest.approx((ahead - behind) / (2 * step), rel=1e-5, abs=1e-7)  # 1e-16 of the loss by the step


@pytest.mark.parametrize(("case", "form"), NETWORKS)
def test_without_gates_a_supernet_says_what_it_needs(case: Case, form: str) -> None:
    with pytest.raises(ValueError, match="restrict it to one first"):
        case.network(form)(case.batch())


@pytest.mark.parametrize(("case", "form"), NETWORKS)
def test_a_network_is_the_same_for_the_same_seed(case: Case, form: str) -> None:
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(snapshot(case.network(form)))
    same, again, other = states
    assert all(torch.equal(same[name], again[name]) for name in same)
    assert any(not torch.equal(same[name], other[name]) for name in same)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_a_spec_rebuilds_the_space(space: Space) -> None:
    for part in (space, space.restrict(architectures(space, 1)[0])):
        rebuilt = Space.build(part.spec)
        assert type(rebuilt) is type(part)
        assert rebuilt.choices == part.choices
        assert rebuilt.size == part.size
        assert rebuilt.spec == part.spec
        assert [rebuilt.random(Random(seed)) for seed in range(5)] == [part.random(Random(seed)) for seed in range(5)]


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_names_round_trip(space: Space) -> None:
    drawn = architectures(space, 50)
    assert len(set(drawn)) > 25
    for architecture in drawn:
        names = space.to_names(architecture)
        assert all(names[choice.name] in choice.options for choice in space.choices)
        assert space.from_names(names) == architecture


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_everything_drawn_is_legal(space: Space) -> None:
    rng = Random(6)
    for _ in range(50):
        by_architecture, by_choice = space.random(rng), space.random(rng, by="choice")
        scores = [[rng.random() for _ in choice.options] for choice in space.choices]
        for drawn in (by_architecture, by_choice, space.mutate(by_choice, rng), space.derive(scores)):
            state = space.start
            for choice, option in zip(space.choices, drawn, strict=True):
                state = space.step(state, choice, choice.options[option])
                assert state is not None
            assert space.legal(drawn)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_drawings_and_descriptions_tell_architectures_apart(space: Space) -> None:
    drawn = list(dict.fromkeys(architectures(space, 20)))
    assert len({space.describe(architecture) for architecture in drawn}) == len(drawn)
    assert len({repr(space.graphs(architecture)) for architecture in drawn}) == len(drawn)
