"""A causal transformer of my own on text: how wide, how many heads, how deep?"""

import lightning.pytorch as pl
import torch
from torch import nn

import lightning_nas as nas


class Transformer(nn.Module):
    def __init__(self, vocabulary):
        super().__init__()
        width = nas.ValueChoice([32, 64], "width")
        heads, feed_forward = nas.ValueChoice([2, 4], "heads"), nas.ValueChoice([64, 128], "feed_forward")
        self.words, self.places = nn.Embedding(vocabulary, width), nn.Embedding(64, width)
        block = nn.TransformerEncoderLayer(width, heads, feed_forward, dropout=0.1, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, nas.ValueChoice([1, 2], "depth"), enable_nested_tensor=False)
        self.decode = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, vocabulary))

    def forward(self, tokens):  # (T, N), and of each column the words before are seen
        places = torch.arange(len(tokens), device=tokens.device)
        causal = nn.Transformer.generate_square_subsequent_mask(len(tokens), device=tokens.device)
        return self.decode(self.blocks(self.words(tokens) + self.places(places)[:, None], causal, is_causal=True))


data, task, space = nas.PyDocs(), nas.LanguageModeling(), nas.Space.of(Transformer)
search = nas.RandomSearchWS(space, task, optimizer=nas.Adam(0.002), n_candidates=16, n_finalists=4)
pl.Trainer(max_epochs=4).fit(search, data)
architecture, perplexities = search.choose(data)
print(space.describe(architecture), perplexities[architecture])

found = nas.ArchitectureRecord(space, architecture)
retrain, trainer = nas.Retrain(found, task, optimizer=nas.Adam(0.002), drop_path=0.0), pl.Trainer(max_epochs=4)
trainer.fit(retrain, data)
(figures,) = trainer.test(retrain, data)
