"""Retrained recurrent cells beside random ones and an LSTM of as many parameters, on the same text and budget.

    python -m benchmarks.lstm --architectures runs/enas-1/architecture.json darts_ptb_v2 --hidden 128 --epochs 8

All are trained by the same recipe: SGD, gradients clipped to norm .25, the average of the weights from where the
validation loss stops falling; for each network the learning rates given, chosen by the validation text, then tested.
The random cells are of the spaces of the architectures. A vocabulary makes most of the parameters, so networks of one
width differ little; the LSTM's width is the one at which it has most nearly as many as the first architecture.
"""

import argparse
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.training import HEADER, count, quiet_trainer, trained
from lightning_nas import SGD
from lightning_nas import data as data_modules
from lightning_nas.callbacks import NonMonotoneAveraging
from lightning_nas.spaces.architecture_file import ArchitectureRecord, load_architecture
from lightning_nas.spaces.recurrent.language_model import LanguageOutput, RecurrentNetwork, times
from lightning_nas.tasks import LanguageModeling
from lightning_nas.training.retrain import Retrain

DROPOUT = {"word_dropout": 0.05, "input_dropout": 0.2, "hidden_dropout": 0.1, "output_dropout": 0.3}


class LSTMNetwork(RecurrentNetwork):
    """The same language model around torch's LSTM. Its carry holds both states, ``(N, 2 hidden)``."""

    def __init__(self, inputs: dict[str, int], hidden: int) -> None:
        nn.Module.__init__(self)
        self.inputs, self.hidden = dict(inputs), hidden
        self.dropout = {name.removesuffix("_dropout"): value for name, value in DROPOUT.items()}
        self.embedding = nn.Parameter(torch.empty(inputs["vocabulary"], hidden).uniform_(-0.04, 0.04))
        self.lstm = nn.LSTM(hidden, hidden)
        self.bias = nn.Parameter(torch.zeros(inputs["vocabulary"]))

    def forward(
        self, tokens: Tensor, gates: None = None, carry: Tensor | None = None, first: Tensor | None = None
    ) -> LanguageOutput:
        n = tokens.shape[1]
        words = F.embedding(tokens, self.embedding)
        of_words = self._mask("word", self.inputs["vocabulary"], 1)
        words = times(words, None if of_words is None else F.embedding(tokens, of_words))
        words = times(words, self._mask("input", n, self.hidden))
        carry = words.new_zeros(n, 2 * self.hidden) if carry is None else carry
        carry = carry if first is None else carry.masked_fill(first[0], 0)
        states = tuple(state.contiguous()[None] for state in carry.split(self.hidden, 1))
        outputs, states = self.lstm(words, states)
        dropped = times(outputs, self._mask("output", n, self.hidden))
        hidden = (outputs, dropped) if self.training else (None, None)
        return LanguageOutput(F.linear(dropped, self.embedding, self.bias), torch.cat(states, 2)[0], *hidden)


class RetrainLSTM(Retrain):
    """The same training of an LSTM instead."""

    def __init__(self, hidden: int, **settings: Any) -> None:
        super().__init__("darts_ptb_v2", LanguageModeling(), **settings)
        self.hidden = hidden

    def build_network(self, inputs: dict[str, int]) -> None:
        super().build_network(inputs)
        torch.manual_seed(self.seed)
        self.network = LSTMNetwork(inputs, self.hidden)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architectures", nargs="+", default=["darts_ptb_v2"], help="files or published names")
    parser.add_argument("--hidden", type=int, default=128, help="units of the cells")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--lrs", type=float, nargs="+", default=(20.0,))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--data", default="PyDocs")
    parser.add_argument("--accelerator", default="cpu")
    arguments = parser.parse_args()

    settings = {"batch_size": arguments.batch_size}
    inputs = getattr(data_modules, arguments.data)(**settings).inputs
    size = {"hidden": arguments.hidden} | DROPOUT
    found = {name: load_architecture(name) for name in arguments.architectures}
    first = next(iter(found.values()))
    n_params = count(first.space.restrict(first.architecture).network(inputs, form="final", **size))
    width = min(range(4, 1024), key=lambda hidden: abs(_count_lstm(inputs["vocabulary"], hidden) - n_params))
    print(f"{arguments.epochs} epochs of {arguments.data}, {arguments.batch_size} columns, perplexities")
    print(HEADER, flush=True)
    for seed in range(arguments.seeds):
        architectures = {name: each.to_dict() for name, each in found.items()}
        for each in {type(each.space).__name__: each for each in found.values()}.values():
            drawn = ArchitectureRecord(each.space, each.space.random(Random(seed)), method="random", seed=seed)
            architectures[f"random {type(each.space).__name__}"] = drawn.to_dict()
        for lr in arguments.lrs:
            given = {
                "seed": seed,
                "optimizer": SGD(lr, weight_decay=8e-7),
                "drop_path": 0.0,
                "train_on": "weights",
            }
            modules: dict[str, Retrain] = {
                name: Retrain(each, LanguageModeling(), size, **given) for name, each in architectures.items()
            }
            modules[f"LSTM of {width} units"] = RetrainLSTM(width, **given)
            for name, module in modules.items():
                trainer = quiet_trainer(
                    arguments.accelerator,
                    max_epochs=arguments.epochs,
                    gradient_clip_val=0.25,
                    callbacks=[NonMonotoneAveraging(2)],
                )
                data = getattr(data_modules, arguments.data)(**settings)
                print(trained(name, module, data, trainer, "perplexity", digits=1), flush=True)


def _count_lstm(vocabulary: int, hidden: int) -> int:
    return vocabulary * (hidden + 1) + 8 * hidden * (hidden + 1)


if __name__ == "__main__":
    main()
