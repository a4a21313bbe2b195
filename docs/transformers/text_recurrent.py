"""A recurrent network of my own on text: which cell, how wide, how deep?"""

import lightning.pytorch as pl
from torch import nn

import lightning_nas as nas


class GRU(nn.Module):
    """With a state as nn.LSTM has it, so that one can stand for the other."""

    def __init__(self, *sizes):
        super().__init__()
        self.rnn = nn.GRU(*sizes)

    def forward(self, x, carry=None):
        outputs, h = self.rnn(x, None if carry is None else carry[0])
        return outputs, (h, h)


class Recurrent(nn.Module):
    def __init__(self, vocabulary):
        super().__init__()
        width, hidden = nas.ValueChoice([32, 64], "embedding"), nas.ValueChoice([32, 64, 96], "hidden")
        layers = nas.ValueChoice([1, 2], "layers")
        self.embed, self.decode = nn.Embedding(vocabulary, width), nn.Linear(hidden, vocabulary)
        self.rnn = nas.LayerChoice({"lstm": nn.LSTM(width, hidden, layers), "gru": GRU(width, hidden, layers)}, "cell")

    def forward(self, tokens, carry=None):  # (T, N), and what was handed on after the window before
        states, carry = self.rnn(self.embed(tokens), carry)
        return self.decode(states), carry


data, task, space = nas.PyDocs(), nas.LanguageModeling(), nas.Space.of(Recurrent)
search = nas.ENAS(space, task, optimizer=nas.Adam(0.003), controller_steps=50)
pl.Trainer(max_epochs=4).fit(search, data)
found = nas.ArchitectureRecord(space, search.choose(data)[0])
retrain, trainer = nas.Retrain(found, task, optimizer=nas.Adam(0.003), drop_path=0.0), pl.Trainer(max_epochs=4)
trainer.fit(retrain, data)
print(space.describe(found.architecture), trainer.test(retrain, data))
