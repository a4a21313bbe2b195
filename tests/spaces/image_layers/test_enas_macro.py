"""The macro space of ENAS: published numbers, and the forward pass computed in the plainest way."""

from collections.abc import Mapping
from random import Random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_nas.errors import SettingError
from lightning_nas.spaces import PUBLISHED, Architecture, ENASMacro
from lightning_nas.spaces.image_layers.enas_macro import OPERATIONS, RELEASED_24_LAYERS, ENASMacroNetwork

CIFAR = {"channels": 3, "image_size": 32, "num_classes": 10}
SMALL = {"channels": 2, "image_size": 9, "num_classes": 4}
FORMS = ("search", "final")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def n_params(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def small_network(space: ENASMacro, form: str, **settings) -> ENASMacroNetwork:
    """In double precision, with weights and running statistics as after some training."""
    network = space.network(SMALL, channels=4, form=form, **settings).double()
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            value.normal_(0, 0.4)
            if name.endswith("running_var"):
                value.abs_().add_(0.5)
    return network


def images() -> Tensor:
    return torch.randn(3, 2, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


# -- the space ---------------------------------------------------------------------------------------------------------


def test_the_published_size() -> None:
    assert ENASMacro().size == 6**12 * 2**66
    assert float(ENASMacro().size) == pytest.approx(1.606e29, rel=1e-3)
    assert ENASMacro(layers=3, operations=["conv_5x5", "max_pool_3x3"]).size == 2**3 * 2**3


def test_a_layer_chooses_an_operation_and_then_a_bit_for_each_state_before_its_predecessor() -> None:
    space = ENASMacro(layers=5)
    assert [choice.name for choice in space.choices if choice.node in "14"] == [
        "1/operation", "4/operation", "4/skip_0", "4/skip_1", "4/skip_2",
    ]  # fmt: skip
    operation, *skips = (choice for choice in space.choices if choice.node == "4")
    assert (operation.kind, operation.options, operation.group, operation.sources) == (
        "operation", ("conv_3x3", "sep_conv_3x3", "conv_5x5", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3"), None, (),
    )  # fmt: skip
    for source, skip in enumerate(skips):
        assert (skip.kind, skip.options, skip.group, skip.sources) == ("skip", ("off", "on"), "4/skips", (source,))
    assert [choice.output for choice in space.choices if choice.kind == "operation"] == [1, 2, 3, 4, 5]


def test_the_released_network_has_98_of_276_skips() -> None:
    space, architecture, citation = PUBLISHED["enas_macro"].build()
    names = space.to_names(architecture)
    skips = [names[choice.name] for choice in space.choices if choice.kind == "skip"]
    assert (len(skips), skips.count("on")) == (276, 98)
    assert [names[f"{i}/operation"] for i in (1, 2, 4, 9)] == ["conv_3x3", "sep_conv_5x5", "conv_5x5", "sep_conv_3x3"]
    assert [names[f"6/skip_{j}"] for j in range(5)] == ["on", "on", "off", "on", "off"]
    assert "24 layers" in citation


def test_skip_bit_0_is_the_stem_and_the_predecessor_is_always_read() -> None:
    space = ENASMacro(layers=4)
    architecture = space.from_genotype("conv_3x3; max_pool_3x3:1; sep_conv_3x3:01; conv_5x5:000")
    graph = space.graph(architecture)["network"]
    assert graph.nodes == ("stem", "1", "2", "3", "4", "output")
    assert graph.edges == (
        ("stem", "1", "conv_3x3"),
        ("1", "2", "max_pool_3x3"),
        ("stem", "2", ""),
        ("2", "3", "sep_conv_3x3"),
        ("1", "3", ""),
        ("3", "4", "conv_5x5"),
        ("4", "output", ""),
    )


def test_the_description_is_read_again() -> None:
    space = ENASMacro(layers=7, operations=OPERATIONS[1:])
    rng = Random(0)
    for architecture in (space.random(rng) for _ in range(50)):
        assert space.from_genotype(space.describe(architecture)) == architecture


def test_operations_may_be_given_by_the_papers_numbers() -> None:
    space = ENASMacro(layers=3)
    named = "sep_conv_3x3; avg_pool_3x3:1; max_pool_3x3:01"
    assert space.from_genotype("1;4:1;5:01") == space.from_genotype(named)
    assert space.describe(space.from_genotype("1; 4:1; 5:01")) == named
    part = ENASMacro(layers=3, operations=["max_pool_3x3", "avg_pool_3x3"])  # the number is not the option's index
    assert part.describe(part.from_genotype("4; 5:0; 4:00")) == "avg_pool_3x3; max_pool_3x3:0; avg_pool_3x3:00"
    full = ENASMacro(layers=24)
    assert (
        full.from_genotype(full.describe(full.from_genotype(RELEASED_24_LAYERS))) == PUBLISHED["enas_macro"].build()[1]
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0; 1:0", "expected 3 layers, separated by semicolons; got 2"),
        ("0; 1:0; 2:00; 3:000", "expected 3 layers.*got 4"),
        ("", "expected 3 layers.*got 1"),
        ("0; 1:0; 2:001", "layer 3: expected an operation and 2 bits, got '2:001'"),
        ("0; 1; 2:00", "layer 2: expected an operation and 1 bits, got '1'"),
        ("0:; 1:0; 2:00", "layer 1"),
        ("0; 1:2; 2:00", "layer 2"),
        ("0; 1:0; 2:0 0", "layer 3"),
        ("0; 1:0; 6:00", "3/operation: no option '6'; it has conv_3x3"),
        ("0; :0; 2:00", "2/operation: no option ''"),
        ("0; dil_conv_3x3:0; 2:00", "2/operation: no option 'dil_conv_3x3'"),
    ],
)
def test_a_text_that_is_no_network_is_refused(text: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        ENASMacro(layers=3).from_genotype(text)


# -- wrong settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [2, 65, -1])
def test_a_wrong_number_of_layers_is_refused(layers: int) -> None:
    with pytest.raises(SettingError, match=rf"^layers: between 3 .*and 64, got {layers}"):
        ENASMacro(layers=layers)


@pytest.mark.parametrize("operations", [[], ["conv_3x3", "none"], ["skip_connect"]])
def test_operations_that_it_does_not_have_are_refused(operations: list[str]) -> None:
    with pytest.raises(SettingError, match=r"^operations: some of conv_3x3, .*max_pool_3x3; got \["):
        ENASMacro(operations=operations)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"form": "child"}, "form: search or final, got 'child'"),
        ({"channels": 1}, "network.channels: at least 2"),
        ({"dropout": 1.0}, "network.dropout: at least 0 and below 1, got 1.0"),
        ({"dropout": -0.1}, "network.dropout"),
        ({"full_convolutions": True}, "network.full_convolutions: final form only"),
    ],
)
def test_settings_that_no_network_can_have_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(SettingError, match=f"^{message}"):
        ENASMacro(layers=3).network(SMALL, **settings)


def test_images_have_to_be_described() -> None:
    with pytest.raises(SettingError, match=r"^inputs.num_classes: missing"):
        ENASMacro(layers=3).network({"channels": 3, "image_size": 8})


# -- what is built -----------------------------------------------------------------------------------------------------


def test_the_released_network_has_its_number_of_weights() -> None:
    space, architecture, _ = PUBLISHED["enas_macro"].build()
    child = space.restrict(architecture)
    with torch.device("meta"):
        assert n_params(child.network(CIFAR, channels=96, form="final")) == 30_947_424
        assert n_params(child.network(CIFAR, channels=96, form="final", full_convolutions=True)) == 42_559_392


@pytest.mark.parametrize(("layers", "after"), [(3, (1, 2)), (5, (1, 2)), (6, (2, 4)), (8, (2, 4)), (12, (4, 8))])
@pytest.mark.parametrize("form", FORMS)
def test_all_states_are_halved_after_each_third_and_only_the_final_form_grows_wider(
    layers: int, after: tuple[int, int], form: str
) -> None:
    network = ENASMacro(layers=layers).network(CIFAR, channels=6, form=form)
    halved = {int(layer): [int(state) for state in states] for layer, states in network.reductions.items()}
    assert halved == {layer: list(range(layer + 1)) for layer in after}
    shapes: dict[int, tuple[int, ...]] = {}
    for name, layer in network.layers.items():
        layer.register_forward_hook(lambda _, args, out, i=int(name): shapes.update({i: tuple(out.shape[1:])}))
    network(network.example(2), network.space.gates(network.space.random(Random(0))))
    for layer in range(1, layers + 1):
        reductions = sum(layer > stop for stop in after)
        width = 6 * 2**reductions if form == "final" else 6
        assert shapes[layer] == (width, 32 // 2**reductions, 32 // 2**reductions)
    assert network.classifier.weight.shape == (10, width)
    assert network.classifier.bias is None


def test_a_child_halves_just_the_states_that_are_read_later() -> None:
    space = ENASMacro(layers=6)
    child = space.restrict(space.from_genotype("0; 1:0; 2:00; 3:010; 4:1000; 5:00000"))  # 4 reads 1, 5 the stem
    network = child.network(SMALL, channels=4, form="final")
    halved = {layer: set(states) for layer, states in network.reductions.items()}
    assert halved == {"2": {"0", "1", "2"}, "4": {"0", "4"}}


def test_batch_norm_learns_scale_and_shift_in_both_forms() -> None:
    for form in FORMS:
        network = ENASMacro(layers=3).network(SMALL, channels=4, form=form)
        assert all(m.affine for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d))


# -- the forward pass, slowly ------------------------------------------------------------------------------------------


def reference(
    network: ENASMacroNetwork, form: str, weights: Mapping[str, Mapping[str, float]], x: Tensor, full: bool = False
) -> Tensor:
    """Class logits without dropout: everything is computed, multiplied by its weight and added, nothing is left out."""
    state = network.state_dict()
    layers = max(int(name.partition("/")[0]) for name in weights)

    def norm(x: Tensor, at: str) -> Tensor:
        mean, variance = (state[f"{at}.running_{what}"].view(1, -1, 1, 1) for what in ("mean", "var"))
        if network.training:
            mean = x.mean((0, 2, 3), keepdim=True)
            variance = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
        scale, shift = (state[f"{at}.{what}"].view(1, -1, 1, 1) for what in ("weight", "bias"))
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    def run(option: str, x: Tensor, at: str) -> Tensor:
        first = 1 if form == "final" else 0
        x = F.relu(x) if form == "final" else x
        x = F.relu(norm(F.conv2d(x, state[f"{at}.{first}.weight"]), f"{at}.{first + 1}"))
        body, size = f"{at}.{first + 3}", int(option[-1])
        if "conv" in option:
            separable = option.startswith("sep") and not full
            kernel = state[f"{body}.0.weight"]
            x = F.conv2d(x, kernel, padding=size // 2, groups=x.shape[1] if separable else 1)
            x = F.conv2d(x, state[f"{body}.1.weight"]) if separable else x
            x = norm(x, f"{body}.2" if separable else f"{body}.1")
            return x if form == "final" else F.relu(x)
        low = F.pad(x, (1, 1, 1, 1), value=float("-inf"))
        windows = torch.stack([low[:, :, i : i + x.shape[2], j : j + x.shape[3]] for i in range(3) for j in range(3)])
        if option == "max_pool_3x3":
            return windows.amax(0)
        inside = windows.isfinite()
        return windows.where(inside, 0.0).sum(0) / inside.sum(0)

    def halve(x: Tensor, at: str) -> Tensor:
        padded = F.pad(x, (0, 1, 0, 1))  # right and bottom
        halves = x[:, :, ::2, ::2], padded[:, :, 1:, 1:][:, :, ::2, ::2]
        kernels = state[f"{at}.even.parts.state"], state[f"{at}.odd.parts.state"]
        return norm(torch.cat([F.conv2d(h, k) for h, k in zip(halves, kernels, strict=True)], 1), f"{at}.norm")

    states = [norm(F.conv2d(x, state["stem.0.weight"], padding=1), "stem.1")]
    for i in range(1, layers + 1):
        at = f"layers.{i}"
        options = weights[f"{i}/operation"]
        out = sum(w * run(option, states[i - 1], f"{at}.operations.{option}") for option, w in options.items())
        skips = {j: weights[f"{i}/skip_{j}"]["on"] for j in range(i - 1)}
        if skips and form == "search":
            out = norm(out + sum(w * states[j] for j, w in skips.items()), f"{at}.join")
        elif skips:
            parts = f"{at}.join.convolution.parts"
            out = F.conv2d(F.relu(out), state[f"{parts}.operation"])
            for j, w in skips.items():
                out = out + F.conv2d(F.relu(w * states[j]), state[f"{parts}.{j}"])
            out = norm(out, f"{at}.join.norm")
        states.append(out)
        if i in (layers // 3, 2 * (layers // 3)):
            states = [halve(s, f"reductions.{i}.{j}") for j, s in enumerate(states)]
    return states[-1].mean((2, 3)) @ state["classifier.weight"].T


def hard_weights(space: ENASMacro, architecture: Architecture) -> dict[str, dict[str, float]]:
    return {
        choice.name: {name: float(k == option) for k, name in enumerate(choice.options)}
        for choice, option in zip(space.choices, architecture, strict=True)
    }


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_an_architecture_computes_what_the_paper_says(form: str, train: bool) -> None:
    space = ENASMacro(layers=7)
    rng = Random(1)
    for _ in range(4):
        network = small_network(space, form, dropout=0.0).train(train)
        architecture = space.random(rng)
        expected = reference(network, form, hard_weights(space, architecture), images())
        actual = network(images(), space.gates(architecture))
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
        assert expected.abs().max() > 0.01


@pytest.mark.parametrize("form", FORMS)
def test_weights_scale_operations_and_skips(form: str) -> None:
    space = ENASMacro(layers=6)
    network = small_network(space, form, dropout=0.0)
    gates = {choice.name: torch.rand(len(choice.options), dtype=torch.float64) for choice in space.choices}
    gates["5/operation"][2] = gates["4/skip_1"][1] = gates["6/skip_0"][1] = 0.0
    weights = {c.name: dict(zip(c.options, gates[c.name].tolist(), strict=True)) for c in space.choices}
    expected = reference(network, form, weights, images())
    torch.testing.assert_close(network(images(), gates), expected, rtol=1e-12, atol=1e-12)


def test_full_convolutions_take_the_place_of_separable_ones() -> None:
    space = ENASMacro(layers=4)
    architecture = space.from_genotype("1; 3:1; 0:01; 3:101")
    network = small_network(space, "final", full_convolutions=True, dropout=0.0)
    assert network.state_dict()["layers.2.operations.sep_conv_5x5.4.0.weight"].shape == (8, 8, 5, 5)
    expected = reference(network, "final", hard_weights(space, architecture), images(), full=True)
    actual = network(images(), space.gates(architecture))
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


# -- gradients and chance ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_only_the_sampled_path_receives_gradients(form: str) -> None:
    space = ENASMacro(layers=4)
    network = small_network(space, form)
    architecture = space.from_genotype("0; 3:0; 4:10; 5:010")  # 3 reads the stem, 4 reads 1
    network(images(), space.gates(architecture)).square().sum().backward()
    trained = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert all(parameter.grad.any() for parameter in network.parameters() if parameter.grad is not None)
    used = ["conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3"]
    prefixes = ["stem.", "classifier.", *(f"layers.{i}.operations.{option}." for i, option in enumerate(used, start=1))]
    prefixes += [f"reductions.1.{j}." for j in (0, 1)] + [f"reductions.2.{j}." for j in (0, 1, 2)]
    if form == "search":
        prefixes += [f"layers.{i}.join." for i in (2, 3, 4)]
    else:
        read = {2: ["operation"], 3: ["operation", "0"], 4: ["operation", "1"]}
        prefixes += [f"layers.{i}.join.convolution.parts.{part}" for i, parts in read.items() for part in parts]
        prefixes += [f"layers.{i}.join.norm." for i in read]
    assert trained == {name for name, _ in network.named_parameters() if name.startswith(tuple(prefixes))}


@pytest.mark.parametrize("form", FORMS)
def test_drop_path_drops_operations_and_never_skips(form: str) -> None:
    space = ENASMacro(layers=5)
    network = small_network(space, form, dropout=0.0)
    architecture = space.from_genotype("0; 5:1; 1:11; 2:010; 4:1010")
    nothing_runs = hard_weights(space, architecture)
    for i in range(1, 6):
        nothing_runs[f"{i}/operation"] = dict.fromkeys(OPERATIONS, 0.0)
    expected = reference(network, form, nothing_runs, images())
    gates = space.gates(architecture)
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(network(images(), gates, drop_path=1 - 1e-12), expected, rtol=1e-12, atol=1e-12)
    assert not torch.equal(network(images(), gates), expected)
    network.eval()
    assert torch.equal(network(images(), gates, drop_path=0.9), network(images(), gates))


def test_drop_path_is_asked_for_its_probability_by_depth() -> None:
    space = ENASMacro(layers=5)
    depths: list[float] = []
    small_network(space, "search")(images(), space.gates(space.random(Random(0))), lambda d: depths.append(d) or 0.0)
    assert depths == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_dropout_stands_before_the_classifier() -> None:
    space = ENASMacro(layers=3)
    network = small_network(space, "final", dropout=0.5)
    gates = space.gates(space.random(Random(0)))
    features: list[Tensor] = []
    seen: list[Tensor] = []
    network.classifier.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    network.dropout.register_forward_pre_hook(lambda _, args: features.append(args[0].flatten(1)))
    network(images(), gates)
    kept = seen[0] != 0
    assert 0 < kept.sum() < kept.numel()
    torch.testing.assert_close(seen[0], torch.where(kept, 2 * features[0], 0.0))
    network.eval()(images(), gates)
    assert torch.equal(seen[1], features[1])


def test_where_no_operation_runs_a_layer_is_its_skips() -> None:
    space = ENASMacro(layers=3)
    network = small_network(space, "search", dropout=0.0).eval()
    gates = space.one_hot(space.from_genotype("0; 0:1; 0:11"), dtype=torch.float64)
    gates["1/operation"] = gates["3/operation"] = torch.zeros(6, dtype=torch.float64)
    weights = hard_weights(space, space.from_genotype("0; 0:1; 0:11"))
    weights["1/operation"] = weights["3/operation"] = dict.fromkeys(OPERATIONS, 0.0)
    torch.testing.assert_close(
        network(images(), gates), reference(network, "search", weights, images()), rtol=1e-12, atol=1e-12
    )


def test_why_the_choices_are_not_relaxed_is_said() -> None:
    assert "no softmax" in ENASMacro.no_relaxation
