"""Steps on text: DARTS's recurrent cell, ENAS's shared weights and its controller."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from benchmarks.counterparts import matched
from benchmarks.images import descend
from benchmarks.measure import Side
from benchmarks.sampling import CONTROLLER, POLICY, recurrent_controller
from benchmarks.steps import Batches, Losses, Pair, StepRow
from benchmarks.textbook.bilevel import Bilevel
from benchmarks.textbook.controller import RecurrentController
from benchmarks.textbook.controller import Reinforce as TextbookReinforce
from benchmarks.textbook.darts_rnn import SearchModel, language_loss
from benchmarks.textbook.enas_rnn import Node, SharedModel
from lightning_nas import SGD, Adam
from lightning_nas.controllers import LSTMController, Reinforce
from lightning_nas.data import Window
from lightning_nas.methods import DARTS, ENAS
from lightning_nas.spaces import Architecture, DARTSRecurrentCell, ENASRecurrentCell
from lightning_nas.tasks import LanguageModeling


class TextRow(StepRow):
    small: ClassVar = {"text_batch": 8, "window": 12, "vocabulary": 1000}

    @property
    def inputs(self) -> dict[str, int]:
        return {"vocabulary": self.sizes.vocabulary, "bptt": self.sizes.window}

    def batches(self, dtype: torch.dtype) -> Batches:
        generator = torch.Generator().manual_seed(1)
        shape = (self.sizes.window + 1, self.sizes.text_batch)
        texts = {
            part: torch.randint(self.sizes.vocabulary, shape, generator=generator)
            for part in ("weights", "architecture")
        }
        first = torch.zeros(self.sizes.window, dtype=torch.bool)
        return {part: Window(text[:-1], text[1:], first) for part, text in texts.items()}


# -- DARTS -------------------------------------------------------------------------------------------------------------

SEARCH = {"lr": 20.0, "weight_decay": 5e-7, "alphas_lr": 3e-3, "alphas_weight_decay": 1e-3}
"""Settings of both sides, as released."""

NO_DROPOUT = {"word_dropout": 0.0, "input_dropout": 0.0, "hidden_dropout": 0.0, "output_dropout": 0.0}


class Carried:
    """The loss of a window of a stream, after the hidden state that the stream's window before left."""

    def __init__(self) -> None:
        self.carries: dict[str, Tensor | None] = {"weights": None, "architecture": None}
        self.left: dict[str, Tensor | None] = {}

    def __call__(self, model: nn.Module, batch: tuple[str, Window]) -> Tensor:
        stream, window = batch
        output = model(window.tokens, self.carries[stream])
        self.left[stream] = output.last.detach()
        return language_loss(output, window.targets)

    def advance(self) -> None:
        self.carries |= self.left


class DARTSRecurrentFirst(TextRow):
    name, title = "darts-rnn-first", "DARTS-RNN, first order"
    order: ClassVar[Any] = "first"
    compile: ClassVar[bool] = False

    def pair(self, exact: bool = False) -> Pair:
        space, sizes = DARTSRecurrentCell(), self.sizes
        method = DARTS(
            space,
            LanguageModeling(),
            {"hidden": sizes.hidden, "compile": self.compile, **(NO_DROPOUT if exact else {})},
            self.inputs,
            order=self.order,
            optimizer=SGD(SEARCH["lr"], weight_decay=SEARCH["weight_decay"], clip=0.25),
            alphas_optimizer=Adam(SEARCH["alphas_lr"], (0.5, 0.999), weight_decay=SEARCH["alphas_weight_decay"]),
            unrolled_clip=0.25,
        )
        no_dropout = {"dropout": 0.0, "dropout_h": 0.0, "dropout_x": 0.0, "dropout_i": 0.0}
        textbook = SearchModel(sizes.vocabulary, sizes.hidden, **(no_dropout if exact else {}))
        loss = Carried()
        bilevel = Bilevel(
            textbook, loss, second_order=self.order != "first", clip=0.25, momentum=0.0, unrolled_clip=0.25, **SEARCH
        )

        def step(batches: Batches, drawn: None) -> Losses:
            architecture_loss, value = bilevel.step(
                *((stream, batches[stream]) for stream in ("weights", "architecture"))
            )
            loss.advance()
            return {"train/architecture_loss": architecture_loss, "train/loss": value}

        names = [("alphas", "alphas"), ("network.embedding", "encoder"), ("network.bias", "decoder.bias")]
        names += [("network.cell.matrices.0", "cell.first")]
        names += [(f"network.cell.matrices.{k + 1}", f"cell.matrices.{k}") for k in range(space.nodes)]
        return Pair(method, textbook, matched(method, textbook, names), step)


class DARTSRecurrentSecond(DARTSRecurrentFirst):
    name, title = "darts-rnn-second", "DARTS-RNN, second order"
    order = "finite_difference"


class Compiled(DARTSRecurrentFirst):
    """Its memory is not measured: the compiler's own would be in it."""

    compile = True

    def pair(self, exact: bool = False) -> Pair:
        torch.compiler.reset()  # every row and precision has a code of its own, and there is a limit
        return super().pair(exact)

    def memory(self, side: Side) -> None:
        return None


class DARTSRecurrentFirstCompiled(Compiled):
    name, title = "darts-rnn-first-compiled", "DARTS-RNN, first order, compiled"


class DARTSRecurrentSecondCompiled(Compiled):
    name, title = "darts-rnn-second-compiled", "DARTS-RNN, second order, compiled"
    order = "finite_difference"


# -- ENAS --------------------------------------------------------------------------------------------------------------


def path(architecture: Architecture) -> list[Node]:
    """The first option is the first node's activation; each other node has a state and an activation."""
    return [Node(-1, architecture[0])] + [Node(*architecture[i : i + 2]) for i in range(1, len(architecture), 2)]


class ENASRecurrent(TextRow):
    def pair(self, exact: bool = False) -> Pair:
        space, sizes = ENASRecurrentCell(), self.sizes
        dropout = NO_DROPOUT if exact else {}
        method = ENAS(
            space,
            LanguageModeling(),
            {"hidden": sizes.enas_hidden, **dropout},
            self.inputs,
            controller=LSTMController(**CONTROLLER),
            controller_steps=1,
            update=Reinforce(entropy_weight=1e-3, baseline=0.0),
            controller_optimizer=Adam(1e-3, (0.0, 0.999), eps=1e-3),
            optimizer=SGD(0.25, weight_decay=1e-7, clip=10.0),
        )
        model = SharedModel(sizes.vocabulary, sizes.enas_hidden, **dropout)
        controller = recurrent_controller()
        textbook = nn.ModuleDict({"network": model, "controller": controller})
        names = [(f"policy.{ours}", f"controller.{theirs}") for ours, theirs in POLICY]
        names += [("network.embedding", "network.encoder")]
        cells = [("0", "first", "first_norm")]
        cells += [
            (f"{node}/{source}", f"matrices.{node - 1}.{source}", f"norms.{node - 1}.{source}")
            for node in range(1, space.nodes)
            for source in range(node)
        ]
        for name, matrix, norm in cells:
            names += [(f"network.cell.matrices.{name}", f"network.cell.{matrix}")]
            names += [(f"network.cell.product_norms.{name}", f"network.cell.{norm}")]
        names += [("network.cell.output_norm", "network.cell.output_norm")]
        return Pair(method, textbook, matched(method, textbook, names), self.step(method, model, controller))

    def step(self, method: ENAS, model: SharedModel, controller: RecurrentController) -> Any:
        raise NotImplementedError


class ENASRecurrentShared(ENASRecurrent):
    name, title, stream = "enas-rnn-shared", "ENAS RNN, shared weights", "weights"

    def step(self, method: ENAS, model: SharedModel, controller: RecurrentController) -> Any:
        optimizer = torch.optim.SGD(model.parameters(), method.optimizer.lr, weight_decay=method.optimizer.weight_decay)
        carry: list[Tensor | None] = [None]

        def step(batches: Batches, drawn: Architecture) -> Losses:
            with torch.no_grad():
                controller.sample()  # as every step does; what is trained is what ours drew
            window = batches["weights"]
            output = model(window.tokens, carry[0], path(drawn))
            carry[0] = output.last.detach()
            return descend(optimizer, language_loss(output, window.targets), clip=10.0)

        return step

    def drawn(self, method: ENAS, batch_idx: int) -> Architecture:
        with torch.no_grad():
            return method.policy.sample(1, method._generator("weights", batch_idx)).tuples()[0]


class ENASRecurrentController(ENASRecurrent):
    name, title, stream = "enas-rnn-controller", "ENAS RNN, controller", "architecture"

    def step(self, method: ENAS, model: SharedModel, controller: RecurrentController) -> Any:
        reinforce = TextbookReinforce(controller, method.controller_optimizer.lr, entropy_weight=1e-3)
        carry: list[Tensor | None] = [None]

        def step(batches: Batches, drawn: list[Architecture]) -> Losses:
            window, after = batches["architecture"], []
            model.eval()

            @torch.no_grad()
            def reward(options: list[int]) -> Tensor:
                output = model(window.tokens, carry[0], path(tuple(options)))
                after.append(output.last)
                return 80 / nn.functional.cross_entropy(output.logits.flatten(0, 1), window.targets.flatten()).exp()

            loss = reinforce.step(reward, method.samples_per_step, drawn)
            carry[0] = after[0]
            return {"controller/loss": loss}

        return step

    def run(self, pair: Pair, sides: Sequence[Side], steps: int, **settings: Any) -> Any:
        pair.ours.controller_steps = steps
        return super().run(pair, sides, steps, **settings)

    def drawn(self, method: ENAS, batch_idx: int) -> list[Architecture]:
        with torch.no_grad():
            return method.policy.sample(method.samples_per_step, method._generator("controller", batch_idx)).tuples()
