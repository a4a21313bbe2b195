"""A search with a strategy and an evaluator of my own."""

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from lightning_nas import Evaluation, Evaluator, NASBench201, Objective, Strategy, TrialSearch

PIXELS, LABELS = map(torch.tensor, load_digits(return_X_y=True))
IMAGES, INPUTS = PIXELS.float().view(-1, 1, 8, 8) / 16, {"channels": 1, "image_size": 8, "num_classes": 10}


class HillClimbing(Strategy):
    def propose(self, number):
        random = self.random(number)
        return self.space.random(random) if self.best is None else self.space.mutate(self.best.architecture, random)


class ShortFit(Evaluator):
    objective = Objective("accuracy", "max")

    def open(self, space, data, seed=0, folder=None):
        self.space = space

    def __call__(self, proposal, number):
        torch.manual_seed(0)
        network = self.space.restrict(proposal.architecture).network(INPUTS, form="final", channels=8, cells=1)
        optimizer = torch.optim.Adam(network.parameters(), 0.01)
        for first in range(0, 640, 64):
            optimizer.zero_grad()
            F.cross_entropy(network(IMAGES[first : first + 64]), LABELS[first : first + 64]).backward()
            optimizer.step()
        right = network(IMAGES[-500:]).argmax(1) == LABELS[-500:]
        return Evaluation({"accuracy": right.float().mean().item()})


search = TrialSearch(NASBench201(), HillClimbing(), ShortFit(), n_trials=20)
pl.Trainer(max_epochs=1).fit(search)
print(search.trials.best)
