"""Agreement of architecture gradients: cosines by hand, and that labels matter."""

from itertools import combinations

import pytest
import torch

from lightning_nas.errors import SettingError
from lightning_nas.methods import load_search
from lightning_nas.operations.normalization import batch_statistics
from lightning_nas.seeding import derive_seed
from lightning_nas.studies.gradients import Agreement, gradient_agreement
from tests.helpers.methods import METHODS, digits, made, trainer


def gradient(method, images, labels):
    with batch_statistics(method.network):
        loss = torch.nn.functional.cross_entropy(method.network(images, method.gates()), labels)
    return torch.autograd.grad(loss, method.alphas)[0].flatten()


def cosines(gradients):
    return pytest.approx([float(a @ b / (a.norm() * b.norm())) for a, b in combinations(gradients, 2)], abs=1e-5)


def test_cosines_are_of_the_gradients_of_disjoint_batches():
    method, data = made("darts-first"), digits()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    found = gradient_agreement(method, data, n_batches=3, n_shuffles=2)
    batches = [data.stream("architecture", method.seed).get(index) for index in range(3)]
    assert found.cosines == cosines([gradient(method, *batch) for batch in batches])
    assert len(found.shuffled) == 2 * 3
    assert found.batch_size == 128
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert gradient_agreement(method, data, 3, 2) == found


def test_shuffled_labels_are_the_same_images_with_each_others_labels():
    method, data = made("darts-first"), digits()
    found = gradient_agreement(method, data, n_batches=2, n_shuffles=1)
    generator = torch.Generator().manual_seed(derive_seed(method.seed, "shuffled labels", 0))
    batches = [data.stream("architecture", method.seed).get(index) for index in range(2)]
    shuffled = [(x, labels[torch.randperm(len(labels), generator=generator)]) for x, labels in batches]
    assert all(not torch.equal(a[1], b[1]) for a, b in zip(batches, shuffled, strict=True))
    assert found.shuffled == cosines([gradient(method, *batch) for batch in shuffled])


def test_the_table_says_of_what():
    text = Agreement([0.5, 0.7], [0.1, -0.1], 64).describe()
    assert "batches of 64" in text
    assert "+0.600 ± 0.141  (2 pairs)" in text
    assert "+0.000 ± 0.141  (2 pairs)" in text


def test_what_cannot_be_measured_is_refused(tmp_path):
    with pytest.raises(SettingError, match="RandomSearchWS has no alphas"):
        gradient_agreement(made("random-search-ws"), digits(), 2, 1)
    with pytest.raises(SettingError, match="at most 5"):
        gradient_agreement(made("darts-first"), digits(), 6, 1)


def test_a_search_is_loaded_from_its_checkpoint(tmp_path):
    method, run = METHODS["darts-first"](), trainer(max_epochs=1)
    run.fit(method, digits())
    run.save_checkpoint(tmp_path / "last.ckpt")
    loaded, data = load_search(str(tmp_path / "last.ckpt"))
    assert type(loaded) is type(method)
    assert data.spec == digits().spec
    assert not loaded.training
    for name, value in method.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
