"""The LSTM policy against the papers' controllers written out, one architecture at a time."""

import pytest
import torch

from lightning_nas.controllers import LSTMController
from lightning_nas.errors import SettingError
from lightning_nas.spaces import Choice, Space

T, C = 5.0, 2.5


class ByHand:
    """The parts of a one-layer LSTM policy by their formulas, from its weights."""

    def __init__(self, policy):
        self.weights = dict(policy.named_parameters())
        self.h = self.c = torch.zeros(policy.controller.width, dtype=torch.float64)
        self.log_probs, self.hidden = [], []

    def step(self, x):
        gates = self.weights["sequence.cells.0.weight_ih"] @ x + self.weights["sequence.cells.0.weight_hh"] @ self.h
        i, f, g, o = gates.chunk(4)
        self.c = f.sigmoid() * self.c + i.sigmoid() * g.tanh()
        self.h = o.sigmoid() * self.c.tanh()
        self.hidden.append(self.h)
        return self.h

    def take(self, logits, option):
        self.log_probs.append((C * (logits / T).tanh()).log_softmax(0)[option])

    def operation(self, x, option):
        self.take(self.weights["heads.0.output.weight"] @ self.step(x), option)
        return self.weights["heads.0.embedding.weight"][option]

    def score(self, kind, anchor):
        w1, w2 = self.weights[f"pointers.{kind}.key.weight"], self.weights[f"pointers.{kind}.query.weight"]
        return self.weights[f"pointers.{kind}.output.weight"][0] @ (w1 @ anchor + w2 @ self.h).tanh()


def compare(policy, architectures, by_hand):
    sample = policy.evaluate(architectures)
    for row, architecture in enumerate(architectures.tolist()):
        hand = by_hand(ByHand(policy), architecture)
        torch.testing.assert_close(sample.step_log_probs[row], torch.stack(hand.log_probs), rtol=0, atol=1e-12)
        torch.testing.assert_close(sample.hidden[row], torch.stack(hand.hidden), rtol=0, atol=1e-12)


def test_the_policy_of_cells_is_that_of_enas_micro(spaces, trained):
    policy = trained(LSTMController(hidden=6, temperature=T, tanh_constant=C).policy(spaces["Cells"](nodes=3)))

    def by_hand(hand, architecture):
        options = iter(architecture)
        start = hand.weights["start"]
        for cell in range(2):
            anchors = [hand.step(start), hand.step(start)]
            read = [torch.zeros_like(start), torch.zeros_like(start)]
            x = start
            for node in range(3):
                for _ in range(2):
                    hand.step(x)
                    option = next(options)
                    hand.take(torch.stack([hand.score("input", anchor) for anchor in anchors]), option)
                    x = read[option]
                for _ in range(2):
                    x = hand.operation(x, next(options))
                if (cell, node) != (1, 2):  # after the very last operation there is nothing to be read
                    anchors.append(hand.step(x))
                    read.append(hand.h)
                    x = start
        return hand

    compare(policy, policy.sample(20, torch.Generator().manual_seed(0)).architectures, by_hand)


def test_the_policy_of_layers_is_that_of_enas_macro(spaces, trained):
    policy = trained(LSTMController(hidden=6, temperature=T, tanh_constant=C).policy(spaces["layers"]))

    def by_hand(hand, architecture):
        options = iter(architecture)
        start = hand.weights["start"]
        anchors, read = [hand.step(start)], [torch.zeros_like(start)]
        x = start
        for layer in range(4):
            x = hand.operation(x, next(options))
            hand.step(x)
            x = start
            if layer > 0:
                on = []
                for source in range(layer):
                    q = hand.score("skip", anchors[source])
                    on.append(next(options))
                    hand.take(torch.stack([-q, q]), on[-1])
                x = sum(bit * value for bit, value in zip(on, read, strict=False)) / (1 + sum(on))
            anchors.append(hand.h)
            read.append(hand.h)
        return hand

    compare(policy, policy.sample(20, torch.Generator().manual_seed(0)).architectures, by_hand)


def test_a_skip_is_on_by_its_name_not_by_its_place(trained):
    log_probs = []
    for options in (("off", "on"), ("on", "off")):
        space = Space([Choice("2/skip0", options, "2", "skip", sources=(0,))])
        policy = trained(LSTMController(hidden=6).policy(space))
        log_probs.append(policy.evaluate(torch.tensor([[options.index("on")]])).log_prob.item())
    assert log_probs[0] == pytest.approx(log_probs[1], abs=1e-12)
    assert log_probs[0] != pytest.approx(-0.6931, abs=1e-3)


def test_layers_are_stacked(spaces, trained):
    policy = trained(LSTMController(hidden=6, layers=2).policy(spaces["labels"]))
    lstm = torch.nn.LSTM(6, 6, num_layers=2, bias=False).double()
    for layer, cell in enumerate(policy.sequence.cells):
        getattr(lstm, f"weight_ih_l{layer}").data = cell.weight_ih.data
        getattr(lstm, f"weight_hh_l{layer}").data = cell.weight_hh.data
    x = torch.randn(7, 3, 6, dtype=torch.float64)  # steps, samples, width
    memory, hidden = None, []
    for step in x:
        h, memory = policy.sequence(step, memory)
        hidden.append(h)
    torch.testing.assert_close(torch.stack(hidden), lstm(x)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["hidden", "layers"])
def test_wrong_settings_are_named(name):
    with pytest.raises(SettingError, match=f"{name}: at least 1, got 0"):
        LSTMController(**{name: 0})
