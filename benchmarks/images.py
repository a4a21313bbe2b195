"""Steps on images: DARTS, SNAS, GDAS, ENAS micro, random search with weight sharing, SPOS, retraining."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.counterparts import matched
from benchmarks.measure import Side
from benchmarks.rows import CallRow
from benchmarks.sampling import POLICY
from benchmarks.steps import Batches, Losses, Pair, StepRow
from benchmarks.textbook import sampled
from benchmarks.textbook.bilevel import Bilevel
from benchmarks.textbook.controller import CellController
from benchmarks.textbook.darts_cnn import FinalNetwork, Genotype, SearchNetwork
from benchmarks.textbook.enas_micro import Node, SharedNetwork
from benchmarks.textbook.spos import Supernet
from lightning_nas.controllers import LSTMController
from lightning_nas.methods import DARTS, ENAS, GDAS, SNAS, SPOS, RandomSearchWS
from lightning_nas.operations import DARTS_OPERATIONS
from lightning_nas.relaxations import GumbelSoftmax, StraightThroughGumbel
from lightning_nas.spaces import Architecture, DARTSCell, ENASMicro, ShuffleBlocks
from lightning_nas.spaces.image_cells.enas_micro import MICRO_OPERATIONS
from lightning_nas.tasks import ImageClassification
from lightning_nas.training.retrain import Retrain

KINDS = ("normal", "reduce")


class ImageRow(StepRow):
    small: ClassVar = {"batch": 8}

    @property
    def inputs(self) -> dict[str, int]:
        return {"channels": 3, "image_size": self.sizes.image_size, "num_classes": 10}

    @property
    def network(self) -> dict[str, Any]:
        return {"channels": self.sizes.channels, "cells": self.sizes.cells}

    def space(self) -> DARTSCell:
        return DARTSCell(nodes=self.sizes.nodes, operations=DARTS_OPERATIONS[: self.sizes.operations])

    def supernet(self) -> SearchNetwork:
        sizes = self.sizes
        return SearchNetwork(sizes.channels, sizes.cells, sizes.nodes, DARTS_OPERATIONS[: sizes.operations])

    def batches(self, dtype: torch.dtype) -> Batches:
        generator = torch.Generator().manual_seed(1)
        size = (self.sizes.batch, 3, self.sizes.image_size, self.sizes.image_size)
        return {
            part: (
                torch.randn(size, generator=generator).to(dtype),
                torch.randint(10, (self.sizes.batch,), generator=generator),
            )
            for part in ("weights", "architecture")
        }


def cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    images, labels = batch
    return F.cross_entropy(model(images), labels)


def with_auxiliary(logits: tuple[Tensor, Tensor | None], labels: Tensor) -> Tensor:
    loss = F.cross_entropy(logits[0], labels)
    return loss if logits[1] is None else loss + 0.4 * F.cross_entropy(logits[1], labels)


def descend(optimizer: torch.optim.Optimizer, loss: Tensor, clip: float) -> Losses:
    """A step downhill."""
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], clip)
    optimizer.step()
    return {"train/loss": loss.detach()}


class Yardstick(CallRow):
    """How slow the textbook is: forward and backward of its supernet by those of torchvision's ResNet-18."""

    name, title = "yardstick", "Yardstick: textbook supernet by ResNet-18"

    def calls(self) -> dict[Side, Callable[[], Any]]:
        from torchvision.models import resnet18

        torch.manual_seed(0)
        supernet = SearchNetwork(self.sizes.channels, self.sizes.cells, self.sizes.nodes).to(self.device)
        resnet = resnet18(num_classes=10).to(self.device)
        images = torch.randn(self.sizes.batch, 3, self.sizes.image_size, self.sizes.image_size, device=self.device)
        labels = torch.randint(10, (self.sizes.batch,), device=self.device)

        def forward_backward(network: nn.Module) -> None:
            network.zero_grad()
            F.cross_entropy(network(images), labels).backward()

        return {"textbook": partial(forward_backward, supernet), "ours": partial(forward_backward, resnet)}


# -- DARTS's cells -----------------------------------------------------------------------------------------------------


def shell(cells: int) -> list[tuple[str, str]]:
    """What networks of all cells have: the names in both implementations."""
    names = [("network.stem", "stem")]
    names += [("network.classifier.parts", "classifier.weight"), ("network.classifier.bias", "classifier.bias")]
    for k in range(cells):
        ours = f"network.cells.{k}.preprocess"
        names += [(f"{ours}.before_last", f"cells.{k}.preprocess0"), (f"{ours}.last", f"cells.{k}.preprocess1")]
    return names


def mixed_edges(space: DARTSCell, textbook: SearchNetwork) -> list[tuple[str, str]]:
    names = shell(len(textbook.cells))
    for k, kind in enumerate(textbook.kinds):
        edges = [choice for choice in space.choices if choice.cell == kind]
        for e, edge in enumerate(edges):
            bodies = f"network.cells.{k}.edges.candidates.bodies.{edge.name}"
            names += [
                (f"{bodies}/{name}", f"cells.{k}.edges.{e}.operations.{o}") for o, name in enumerate(edge.options)
            ]
    return names


class DARTSFirst(ImageRow):
    name, title = "darts-cnn-first", "DARTS-CNN, first order"
    order: ClassVar[Any] = "first"

    def pair(self, exact: bool = False) -> Pair:
        space = self.space()
        method = DARTS(space, ImageClassification(), self.network, self.inputs, order=self.order)
        textbook = self.supernet()
        bilevel = Bilevel(textbook, cross_entropy, second_order=self.order != "first")

        def step(batches: Batches, drawn: None) -> Losses:
            architecture_loss, loss = bilevel.step(batches["weights"], batches["architecture"])
            return {"train/architecture_loss": architecture_loss, "train/loss": loss}

        names = [("alphas", "alphas"), *mixed_edges(space, textbook)]
        return Pair(method, textbook, matched(method, textbook, names), step)


class DARTSSecond(DARTSFirst):
    name, title = "darts-cnn-second", "DARTS-CNN, second order"
    order = "finite_difference"


class SampledRow(ImageRow):
    """Steps whose noise both sides draw from the same seed."""

    def drawn(self, method: SNAS | GDAS, batch_idx: int) -> dict[str, sampled.Noise]:
        noise = {}
        for purpose in ("weights", "architecture"):
            generator = method.generator(purpose, batch_idx)
            gumbel = -torch.empty_like(method.alphas).exponential_(generator=generator).log()
            noise[purpose] = dict(zip(KINDS, gumbel.chunk(2), strict=True))
        return noise


class SNASStep(SampledRow):
    name, title, stream = "snas", "SNAS", "weights"

    def pair(self, exact: bool = False) -> Pair:
        space = self.space()
        method = SNAS(space, ImageClassification(), self.network, self.inputs, drop_path=0.0)
        textbook = self.supernet()
        optimizer = torch.optim.SGD(textbook.weights(), method.optimizer.lr, momentum=0.9, weight_decay=3e-4)
        steps = sampled.SNAS(textbook, GumbelSoftmax().start, optimizer)

        def step(batches: Batches, drawn: dict[str, sampled.Noise]) -> Losses:
            return {"train/loss": steps.step(batches["weights"], drawn["weights"])}

        names = [("alphas", "alphas"), *mixed_edges(space, textbook)]
        return Pair(method, textbook, matched(method, textbook, names), step)


class GDASStep(SampledRow):
    name, title = "gdas", "GDAS"

    def pair(self, exact: bool = False) -> Pair:
        space = self.space()
        method = GDAS(space, ImageClassification(), self.network, self.inputs)
        textbook = self.supernet()
        optimizer = torch.optim.SGD(
            textbook.weights(), method.optimizer.lr, momentum=0.9, nesterov=True, weight_decay=5e-4
        )
        steps = sampled.GDAS(textbook, StraightThroughGumbel().start, optimizer)

        def step(batches: Batches, drawn: dict[str, sampled.Noise]) -> Losses:
            loss, architecture_loss = steps.step(
                batches["weights"], batches["architecture"], drawn["weights"], drawn["architecture"]
            )
            return {"train/loss": loss, "train/architecture_loss": architecture_loss}

        names = [("alphas", "alphas"), *mixed_edges(space, textbook)]
        return Pair(method, textbook, matched(method, textbook, names), step)


class RandomSearch(ImageRow):
    name, title, stream = "random-search-ws", "Random search with weight sharing", "weights"

    def pair(self, exact: bool = False) -> Pair:
        space = self.space()
        method = RandomSearchWS(space, ImageClassification(), self.network, self.inputs)
        textbook = self.supernet()
        textbook.alphas.clear()
        optimizer = torch.optim.SGD(textbook.parameters(), method.optimizer.lr, momentum=0.9, weight_decay=3e-4)
        edges = len(space.choices) // 2

        def step(batches: Batches, drawn: Architecture) -> Losses:
            images, labels = batches["weights"]
            path = {"normal": drawn[:edges], "reduce": drawn[edges:]}
            return descend(optimizer, F.cross_entropy(textbook(images, path), labels), clip=5.0)

        return Pair(method, textbook, matched(method, textbook, mixed_edges(space, textbook)), step)

    def drawn(self, method: RandomSearchWS, batch_idx: int) -> Architecture:
        return method.draw("training", 0, batch_idx)


class Retraining(ImageRow):
    name, title, stream = "retrain", "Retraining DARTS's second cell, auxiliary head", "weights"

    def pair(self, exact: bool = False) -> Pair:
        settings = {**self.network, "auxiliary": True}
        method = Retrain("darts_v2", ImageClassification(), settings, self.inputs, drop_path=0.0)
        genotype = self._genotype(method)
        textbook = FinalNetwork(genotype, self.sizes.channels, self.sizes.cells, auxiliary=True)
        optimizer = torch.optim.SGD(textbook.parameters(), method.optimizer.lr, momentum=0.9, weight_decay=3e-4)

        def step(batches: Batches, drawn: None) -> Losses:
            images, labels = batches["weights"]
            loss = with_auxiliary(textbook(images, 0.0), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return {"train/loss": loss.detach()}

        names = [*shell(self.sizes.cells), ("network.auxiliary", "auxiliary")]
        for k, cell in enumerate(textbook.cells):
            kind = "reduce" if k in (self.sizes.cells // 3, 2 * self.sizes.cells // 3) else "normal"
            bodies = f"network.cells.{k}.edges.candidates.bodies.{kind}"
            names += [
                (f"{bodies}/{source}->{node}/{name}", f"cells.{k}.operations.{o}")
                for o, (name, source, node) in enumerate(cell.edges)
            ]
        return Pair(method, textbook, matched(method, textbook, names), step)

    def _genotype(self, method: Retrain) -> Genotype:
        genotype: Genotype = {kind: [] for kind in KINDS}
        for choice, option in zip(method.found.space.choices, method.found.architecture, strict=True):
            if choice.options[option] != "none":
                genotype[choice.cell].append((choice.options[option], *choice.sources, choice.output))
        return genotype


class UniformPaths(ImageRow):
    """The paper's widths and depths at its default, strides for small images."""

    name, title, stream = "spos", "SPOS, a path of shuffle blocks", "weights"

    def pair(self, exact: bool = False) -> Pair:
        settings: dict[str, Any] = {"first": self.sizes.channels, "last": 64 * self.sizes.channels}
        settings |= {"widths": [self.sizes.channels * factor for factor in (4, 10, 20, 40)]}
        settings |= {"blocks": (4, 4, 8, 4), "strides": (1, 2, 2, 2)}
        space, dropout = ShuffleBlocks(stem_stride=1, **settings), 0.0 if exact else 0.1
        method = SPOS(space, ImageClassification(), {"dropout": dropout}, self.inputs)
        textbook = Supernet(dropout=dropout, **settings)
        optimizer = torch.optim.SGD(textbook.parameters(), method.optimizer.lr, momentum=0.9, weight_decay=4e-5)

        def step(batches: Batches, drawn: Architecture) -> Losses:
            images, labels = batches["weights"]
            loss = F.cross_entropy(textbook(images, drawn), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return {"train/loss": loss.detach()}

        names = [(f"network.{name}", name) for name in ("stem", "top", "classifier")]
        for k, choice in enumerate(space.choices):
            operations = f"network.layers.{choice.name}.operations"
            names += [(f"{operations}.{option}", f"layers.{k}.{o}") for o, option in enumerate(choice.options)]
        return Pair(method, textbook, matched(method, textbook, names), step)

    def drawn(self, method: SPOS, batch_idx: int) -> Architecture:
        return method.draw("training", 0, batch_idx)


# -- ENAS's cells ------------------------------------------------------------------------------------------------------

MICRO_CONTROLLER = {
    "hidden": 64,
    "temperature": None,
    "tanh_constant": 1.1,
    "operation_tanh_reduce": 2.5,
    "operation_bias": {"sep_conv_3x3": 10.0, "sep_conv_5x5": 10.0},
}
"""As released."""


def nodes(architecture: Architecture, n_nodes: int) -> tuple[list[Node], list[Node]]:
    """Of the normal and of the reduction cell."""
    groups = [Node(*architecture[i : i + 4]) for i in range(0, len(architecture), 4)]
    return groups[:n_nodes], groups[n_nodes:]


class ENASMicroShared(ImageRow):
    name, title, stream = "enas-micro", "ENAS micro, shared weights", "weights"

    def pair(self, exact: bool = False) -> Pair:
        space, dropout = ENASMicro(), 0.0 if exact else 0.1
        settings = {"channels": self.sizes.enas_channels, "layers": self.sizes.layers, "auxiliary": True}
        method = ENAS(
            space,
            ImageClassification(),
            {**settings, "dropout": dropout},
            self.inputs,
            controller=LSTMController(**MICRO_CONTROLLER),
            controller_steps=1,
        )
        network = SharedNetwork(dropout=dropout, **settings)
        controller = CellController()
        textbook = nn.ModuleDict({"network": network, "controller": controller})
        optimizer = torch.optim.SGD(
            network.parameters(),
            method.optimizer.lr,
            momentum=0.9,
            nesterov=True,
            weight_decay=method.optimizer.weight_decay,
        )

        def step(batches: Batches, drawn: Architecture) -> Losses:
            with torch.no_grad():
                controller.sample()  # as every step does; what is trained is what ours drew
            images, labels = batches["weights"]
            return descend(optimizer, with_auxiliary(network(images, *nodes(drawn, space.nodes)), labels), clip=5.0)

        shared = ("stem", "classifier", "auxiliary")
        names = [(f"policy.{a}", f"controller.{b}") for a, b in POLICY]
        names += [(f"network.{name}", f"network.{name}") for name in shared]
        names += [(f"network.halvings.{k}", f"network.halvings.{k}") for k in network.reductions]
        for k in range(len(network.cells)):
            names += self._cell(space, k, "reduce" if k in network.reductions else "normal")
        return Pair(method, textbook, matched(method, textbook, names), step)

    def _cell(self, space: ENASMicro, k: int, kind: str) -> list[tuple[str, str]]:
        ours = textbook = f"network.cells.{k}"
        names = [(f"{ours}.before_last", f"{textbook}.calibrate0"), (f"{ours}.last", f"{textbook}.calibrate1")]
        names += [(f"{ours}.combine.norm", f"{textbook}.norm")]
        states = range(space.nodes + 2)
        names += [(f"{ours}.combine.convolution.parts.{s}", f"{textbook}.combine.{s}") for s in states]
        return names + [
            (
                f"{ours}.candidates.bodies.{kind}/{node}/{slot}/{source}/{operation}",
                f"{textbook}.nodes.{node - 2}.{slot - 1}.{source}.{o}",
            )
            for node in range(2, space.nodes + 2)
            for slot in (1, 2)
            for source in range(node)
            for o, operation in enumerate(MICRO_OPERATIONS)
        ]

    def drawn(self, method: ENAS, batch_idx: int) -> Architecture:
        with torch.no_grad():
            return method.policy.sample(1, method._generator("weights", batch_idx)).tuples()[0]
