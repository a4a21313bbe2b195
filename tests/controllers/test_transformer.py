"""The transformer one step at a time against all steps at once under a causal mask."""

import pytest
import torch

from lightning_nas.controllers import TransformerController
from lightning_nas.errors import SettingError


def at_once(transformer, x):
    """``(n, steps, width)`` to the same; attention written out."""
    n, steps, width = x.shape
    x = x + transformer.positions[:steps]
    causal = torch.ones(steps, steps).tril().bool()
    for layer in transformer.layers:
        per_head = layer.query_key_value(layer.attention_norm(x)).view(n, steps, 3, layer.heads, width // layer.heads)
        query, key, value = per_head.unbind(2)
        scores = torch.einsum("nthd,nshd->nhts", query, key) / (width // layer.heads) ** 0.5
        weights = scores.masked_fill(~causal, -torch.inf).softmax(3)
        x = x + layer.attended(torch.einsum("nhts,nshd->nthd", weights, value).reshape(n, steps, width))
        x = x + layer.perceptron(x)
    return transformer.norm(x)


def test_step_by_step_equals_all_steps_under_a_causal_mask(spaces, trained):
    transformer = trained(TransformerController(width=8, layers=3, heads=2).policy(spaces["cells"])).sequence
    x = torch.randn(4, 11, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    memory, hidden = None, []
    for step in x.unbind(1):
        h, memory = transformer(step, memory)
        hidden.append(h)
    torch.testing.assert_close(torch.stack(hidden, 1), at_once(transformer, x), rtol=0, atol=1e-12)


def test_hidden_states_keep_the_size_of_embeddings(spaces):
    hidden = TransformerController().policy(spaces["cells"]).sample(10).hidden
    assert 0.05 < hidden.std() < 0.2


@pytest.mark.parametrize("name", ["width", "layers", "heads"])
def test_wrong_settings_are_named(name):
    with pytest.raises(SettingError, match=f"{name}: at least 1, got 0"):
        TransformerController(**{name: 0})
    with pytest.raises(SettingError, match=r"heads: a divisor of the width 64, got 5"):
        TransformerController(heads=5)
