"""Features, heads and dense outputs of networks of images, and the maps of their stages."""

import copy
import itertools
import pickle
from functools import partial
from random import Random

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.segmentation.deeplabv3 import DeepLabHead, DeepLabV3
from torchvision.ops import FeaturePyramidNetwork

from lightning_nas import Features, SettingError
from lightning_nas.spaces import (
    DARTSCell,
    ENASMacro,
    ENASMicro,
    NASBench201,
    NASNetCell,
    ProxylessMobile,
    ShuffleBlocks,
)
from lightning_nas.testing.space import randomise, snapshot

INPUTS = {"channels": 5, "image_size": 32, "num_classes": 7}
FEW = ["skip_connect", "sep_conv_3x3", "max_pool_3x3"]
SPACES = {
    "darts": (DARTSCell(nodes=2), {"channels": 4, "cells": 3, "auxiliary": True}),
    "darts-imagenet": (DARTSCell(nodes=2), {"channels": 4, "cells": 3, "stem": "imagenet"}),
    "nasnet": (NASNetCell(nodes=3, operations=FEW), {"channels": 4, "cells": 4}),
    "enas-micro": (ENASMicro(nodes=3, operations=FEW), {"channels": 4, "layers": 1, "auxiliary": True}),
    "enas-micro-factorized": (ENASMicro(nodes=2), {"channels": 4, "layers": 3, "reduction": "factorized"}),
    "nas-bench-201": (NASBench201(), {"channels": 4, "cells": 2}),
    "enas-macro": (ENASMacro(layers=6), {"channels": 4, "dropout": 0.3}),
    "mobile": (ProxylessMobile((4, 4), (6, 8), (2, 2), (1, 2), 2, 12), {"dropout": 0.3}),
    "shuffle": (ShuffleBlocks(4, (8, 12), (2, 2), (2, 2), 1, 16), {}),
}
STAGES = {
    "darts": [(8, 1), (16, 2), (32, 4)],
    "darts-imagenet": [(4, 4), (8, 8), (16, 16), (32, 32)],
    "enas-micro-factorized": [1, 2, 4],
    "nas-bench-201": [(4, 1), (8, 2), (16, 4)],
    "enas-macro": [(4, 1), (8, 2), (16, 4)],
    "mobile": [(6, 2), (8, 4)],
    "shuffle": [(4, 1), (8, 2), (12, 4)],
}


def build(name, supernet=False, form="final", **inputs):
    space, settings = SPACES[name]
    torch.manual_seed(0)
    part = space if supernet else space.restrict(space.random(Random(2)))
    network = part.network(INPUTS | inputs, form=form, **settings).double()
    randomise(network)
    return network


def images(height=33, width=42):  # neither square, nor the size that the network was built for, nor even
    return torch.randn(2, 5, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


def main_output(network, *args, **kwargs):
    output = network(*args, **kwargs)
    return output[0] if isinstance(output, tuple) else output


def bare(name="nas-bench-201", **inputs):
    """A small network in float32 and evaluation mode."""
    return build(name, **inputs).float().eval()


# -- features and heads ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("dense", [0, 1])
def test_forward_is_the_head_of_the_features(name, dense):
    network = build(name, dense=dense)
    for train in (True, False):
        network.train(train)
        torch.manual_seed(3)
        logits = main_output(network, images(), drop_path=0.3)
        torch.manual_seed(3)
        features = network.forward_features(images(), drop_path=0.3)
        stride = network.feature_info[-1].stride
        assert features.shape == (2, network.num_features, -(-33 // stride), -(-42 // stride))
        head = network.forward_head(features)
        assert head.shape == ((2, 7, *features.shape[2:]) if dense else (2, 7))
        assert torch.equal(F.interpolate(head, (33, 42), mode="bilinear") if dense else head, logits)
    pooled = features if dense else features.mean((2, 3))
    assert torch.equal(network.forward_head(features, pre_logits=True), pooled)


@pytest.mark.parametrize("name", ["nasnet", "enas-micro"])
def test_states_that_an_architecture_does_not_have_are_zeros_among_the_features(name):
    space, _ = SPACES[name]
    supernet = build(name, supernet=True).eval()
    n_absent = 0
    for seed in range(4):
        architecture = space.random(Random(seed))
        child = space.restrict(architecture).network(INPUTS, form="final", **SPACES[name][1]).double().eval()
        child.load_state_dict(supernet.child_state(architecture))
        gates = space.gates(architecture)
        features = supernet.forward_features(images(), gates)
        assert features.shape[1] == supernet.num_features
        present = torch.cat([features.split(list(supernet.widths.values()), 1)[list(supernet.widths).index(n)]
                             for n in child.widths], 1)  # fmt: skip
        assert torch.equal(present, child.forward_features(images()))
        n_absent += len(supernet.widths) - len(child.widths)
        torch.testing.assert_close(supernet.forward_head(features), supernet(images(), gates), rtol=1e-12, atol=1e-12)
    assert n_absent


def test_features_of_several_architectures_need_gates():
    with pytest.raises(ValueError, match="restrict it to one first"):
        build("darts", supernet=True).forward_features(images())


@pytest.mark.parametrize("name", SPACES)
def test_a_new_classifier(name):
    network = build(name)
    names = list(network.state_dict())
    before = {key: value for key, value in snapshot(network).items() if "classifier" not in key}
    pooled = network.eval().forward_head(network.forward_features(images()), pre_logits=True)
    for n_classes in (3, 0, 9):
        network.reset_classifier(n_classes)
        assert network.inputs["num_classes"] == n_classes
        assert network.eval()(images()).shape == (2, n_classes or network.num_features)
        outputs = network.train()(images())
        assert isinstance(outputs, tuple) == bool(network.auxiliary is not None and n_classes)
        assert {output.shape[1] for output in outputs} == {n_classes} if isinstance(outputs, tuple) else True
        network.load_state_dict(before, strict=False)
        if n_classes == 0:
            assert torch.equal(network.eval()(images()), pooled)
            child = network.space.network(network.inputs, **network.settings)  # as it would be built
            assert list(child.state_dict()) == list(network.state_dict())
    assert list(network.state_dict()) == names
    (only,) = {parameter.dtype for parameter in network.parameters()}
    assert only == torch.float64


@pytest.mark.parametrize(("inputs", "message"), [
    ({"num_classes": -1}, r"inputs.num_classes: 1 or more, or 0 .* got -1"),
    ({"dense": 2}, r"inputs.dense: 1 for .* got 2"),
])  # fmt: skip
def test_inputs_out_of_range_are_refused(inputs, message):
    with pytest.raises(SettingError, match=message):
        build("shuffle", **inputs)
    with pytest.raises(SettingError, match=r"num_classes: .* got -4"):
        build("shuffle").reset_classifier(-4)


@pytest.mark.parametrize("name", SPACES)
def test_any_module_may_classify(name):
    network = build(name).eval()
    width = network.num_features
    pooled = network.forward_features(images()).mean((2, 3))
    for classifier in (
        nn.Linear(width, 3),
        nn.Identity(),
        nn.Sequential(nn.Linear(width, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)),
    ):
        network.classifier = classifier.double().eval()
        assert torch.equal(network(images()), classifier(pooled))


# -- logits of every pixel ---------------------------------------------------------------------------------------------


def per_pixel(features, weight, bias):
    """A classifier of every pixel, one at a time, and bilinear interpolation."""
    n, _, height, width = features.shape
    logits = torch.empty(n, len(weight), height, width, dtype=features.dtype)
    for row in range(height):
        for column in range(width):
            logits[:, :, row, column] = features[:, :, row, column] @ weight.T + (0 if bias is None else bias)
    return F.interpolate(logits, (33, 42), mode="bilinear", align_corners=False)


@pytest.mark.parametrize("name", SPACES)
def test_dense_logits_are_those_of_every_pixel(name):
    network = build(name, dense=1).eval()
    features = network.forward_features(images())
    classifier = network.classifier
    weights = [classifier.weight] if isinstance(classifier, nn.Linear) else list(classifier.parts.values())
    weight = torch.cat([w.flatten(1) for w in weights], 1)
    logits = network(images())
    assert logits.shape == (2, 7, 33, 42)
    torch.testing.assert_close(logits, per_pixel(features, weight, classifier.bias), rtol=1e-9, atol=1e-9)
    assert list(network.state_dict()) == list(build(name).state_dict())
    (gradient,) = torch.autograd.grad(logits[0, 1, 5, 6], weights[0])
    assert gradient[1].any()
    assert not gradient[0].any()
    for head in (nn.Linear(network.num_features, 3), nn.Conv2d(network.num_features, 3, 1), nn.Identity()):
        network.classifier = head.double()
        wanted = features if isinstance(head, nn.Identity) else None
        wanted = wanted if wanted is not None else torch.einsum("oc,nchw->nohw", head.weight.flatten(1), features)
        bias = getattr(head, "bias", None)
        wanted = wanted if bias is None else wanted + bias[:, None, None]
        wanted = F.interpolate(wanted, (33, 42), mode="bilinear")
        torch.testing.assert_close(network(images()), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["darts", "enas-micro"])
def test_a_dense_auxiliary_head_says_something_of_every_pixel(name):
    network = build(name, dense=1).train()
    read = []
    network.auxiliary.features.register_forward_hook(lambda module, args, output: read.append(output))
    logits, auxiliary = network(images())
    assert logits.shape == auxiliary.shape == (2, 7, 33, 42)
    classifier = network.auxiliary.classifier
    torch.testing.assert_close(auxiliary, per_pixel(read[0], classifier.weight, classifier.bias))


# -- maps of stages ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPACES)
def test_the_maps_are_what_the_layers_put_out(name):
    network = build(name).eval()
    modules = dict(network.named_modules())
    drops = partial(network.drops, 0.0)
    layers = list(network.layers_of(images(), network.space.resolve(None), drops))
    assert [layer for layer, _ in layers] == [layer.name for layer in network.maps]
    for (layer, states), noted in zip(layers, network.maps, strict=True):
        assert layer in modules
        size = -(-33 // noted.stride), -(-42 // noted.stride)
        assert states.x.shape == (2, noted.channels, *size)
    stages = network.feature_info
    assert [b.stride // a.stride for a, b in itertools.pairwise(stages)] == [2] * (len(stages) - 1)
    if name in STAGES:
        published = STAGES[name]
        assert published == [s.stride if isinstance(published[0], int) else (s.channels, s.stride) for s in stages]


@pytest.mark.parametrize("name", SPACES)
def test_features_are_the_maps_of_the_network(name):
    network = build(name).eval()
    body = Features(network)
    maps = body(images())
    assert list(maps) == [str(k) for k in range(len(network.feature_info))] == list(body.feature_info)
    assert body.feature_info == dict(zip(maps, network.feature_info, strict=True))
    for found, stage in zip(maps.values(), network.feature_info, strict=True):
        assert found.shape == (2, stage.channels, -(-33 // stage.stride), -(-42 // stage.stride))
    last = network.last_map(type("S", (), {"x": list(maps.values())[-1], "names": ("any",)}))
    assert torch.equal(last.x, network.forward_features(images()))
    sum(value.square().sum() for value in body(images()).values()).backward()
    assert all(parameter.grad is not None for parameter in body.parameters())  # so that plain ddp works
    own = {id(parameter) for parameter in network.parameters()}
    assert {id(parameter) for parameter in body.parameters()} <= own
    with torch.no_grad():
        next(network.stem.parameters()).mul_(2)
    assert not torch.equal(body(images())["0"], maps["0"])
    assert "classifier" in dict(network.named_children())


def test_stages_by_number_and_by_name():
    network = build("nas-bench-201").eval()
    zero, one, two = Features(network)(images()).values()
    assert [torch.equal(a, b) for a, b in zip(Features(network, [2, 0])(images()).values(), (two, zero), strict=True)]
    named = Features(network, {"out": -1, "aux": 1, "same": 2})(images())
    assert list(named) == ["out", "aux", "same"]
    assert torch.equal(named["out"], two)
    assert torch.equal(named["aux"], one)
    assert named["same"] is named["out"]
    ran = []
    for stack in network.stacks:
        stack[0].register_forward_hook(lambda *_: ran.append(1))
    Features(network, [1])(images())
    assert len(ran) == 2


@pytest.mark.parametrize(("arguments", "message"), [
    (([3],), r"stages: the network has the stages 0 to 2, got 3"),
    (({"a": -4},), r"stages: .* got -4"),
    (([],), r"stages: at least one"),
])  # fmt: skip
def test_stages_that_are_not_there_are_refused(arguments, message):
    with pytest.raises(SettingError, match=message):
        Features(build("nas-bench-201"), *arguments)


def test_features_of_other_modules_are_refused():
    with pytest.raises(SettingError, match=r"network: a network of images, got Linear"):
        Features(nn.Linear(2, 3))
    with pytest.raises(SettingError, match=r"network: one of a single architecture"):
        Features(build("shuffle", supernet=True))


def test_a_detector_of_torchvision_trains_on_the_features():
    body = Features(bare("darts-imagenet", channels=3).train())
    widths = [stage.channels for stage in body.feature_info.values()]
    backbone = nn.Sequential()
    backbone.add_module("body", body)
    backbone.add_module("fpn", FeaturePyramidNetwork(widths, 8))
    backbone.out_channels = 8
    anchors = AnchorGenerator(((16,), (32,), (64,), (128,)), ((1.0,),) * 4)
    detector = RetinaNet(backbone, 3, anchor_generator=anchors, min_size=64, max_size=96)
    targets = [{"boxes": torch.tensor([[4.0, 8.0, 30.0, 40.0]]), "labels": torch.tensor([k])} for k in (0, 2)]
    losses = detector([torch.rand(3, 64, 80), torch.rand(3, 50, 64)], targets)
    sum(losses.values()).backward()
    assert all(parameter.grad.isfinite().all() and parameter.grad.any() for parameter in body.body.stem.parameters())


def test_a_segmentation_head_of_torchvision_reads_the_features():
    body = Features(bare(), {"out": -1})
    segmentation = DeepLabV3(body, DeepLabHead(body.feature_info["out"].channels, 4)).eval()
    assert segmentation(images().float())["out"].shape == (2, 4, 33, 42)


# -- what other programs do with a module ------------------------------------------------------------------------------


def with_new_head(name):
    network = bare(name)
    network.classifier = nn.Linear(network.num_features, 3)
    return network


def without_head(name):
    network = bare(name)
    network.reset_classifier(0)
    return network


BODIES = {
    "new head": with_new_head,
    "no head": without_head,
    "dense": lambda name: bare(name, dense=1),
    "stages": lambda name: Features(bare(name)),
}


KINDS = [pytest.param(what, marks=pytest.mark.slow if what in ("dense", "no head") else ()) for what in BODIES]


def as_list(outputs):
    return list(outputs.values()) if isinstance(outputs, dict) else [outputs]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(as_list(one), as_list(other), strict=True))


@pytest.mark.parametrize("name", ["darts", "enas-micro", "nas-bench-201", "mobile"])
@pytest.mark.parametrize("what", BODIES)
def test_copies_and_averages(name, what):
    network = BODIES[what](name)
    wanted = network(images().float())
    for other in (
        copy.deepcopy(network),
        pickle.loads(pickle.dumps(network)),
        AveragedModel(network, use_buffers=True),
    ):
        assert same(other(images().float()), wanted)
    averaged = AveragedModel(network, use_buffers=True)
    averaged.update_parameters(network)
    assert set(averaged.module.state_dict()) == set(network.state_dict())
    fresh = BODIES[what](name)
    fresh.load_state_dict({key: value * 0 for key, value in fresh.state_dict().items()})
    fresh.load_state_dict(network.state_dict())
    assert same(fresh(images().float()), wanted)


@pytest.mark.parametrize("what", KINDS)
def test_export_and_trace(what):
    network, x = BODIES[what]("mobile"), images().float()
    exported = torch.export.export(network, (x,), dynamic_shapes=({0: torch.export.Dim("N", min=2, max=64)},))
    more = torch.cat([x, x.flip(0), x])
    with torch.no_grad():
        traced = torch.jit.trace(network, x, strict=False)
        assert same(exported.module()(more), network(more))
        assert same(traced(more), network(more))


@pytest.mark.parametrize("what", KINDS)
def test_compiled_as_one_graph(what):
    torch._dynamo.reset()
    network, x = BODIES[what]("mobile"), images().float()
    for call in [network, *([network.forward_features] if what == "dense" else [])]:
        assert same(torch.compile(call, backend="eager", fullgraph=True)(x), call(x))
