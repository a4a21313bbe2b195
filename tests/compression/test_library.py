"""The library: every replacement scored alone, kept on file, and the best combination of them."""

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_nas import (
    BlockLibrary,
    Digits,
    ImageClassification,
    LayerChoice,
    NASBench201,
    RepeatChoice,
    Scorer,
    SettingError,
    Space,
    choose_widths,
    freeze,
    order_by_importance,
)
from lightning_nas.costs.profile import count_parameters, profile
from tests.compression.test_sums import INPUTS, bottleneck


def trained():
    """A network that reads digits, of 1,838 parameters."""
    torch.manual_seed(0)
    blocks = nn.Sequential(bottleneck(8, 8), bottleneck(8, 8))
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), blocks, nn.AvgPool2d(3), nn.Flatten())
    net.append(nn.Linear(32, 10))
    stream, optimizer = Digits().stream("weights", 0), torch.optim.Adam(net.parameters(), 0.01)
    for step in range(60):
        images, labels = stream.get(step)
        optimizer.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        optimizer.step()
    return net


@pytest.fixture(scope="module")
def net():
    net = trained()
    choose_widths(net, [0.25, 0.5])
    order_by_importance(net, torch.randn(2, 1, 8, 8))
    net[2] = LayerChoice({"relu": net[2], "silu": nn.SiLU()}, label="act")
    net[3] = RepeatChoice(net[3], depth=[0, 1, 2], label="depth")
    return net


def library(net, **settings):
    return BlockLibrary(net, ImageClassification(), Digits(), **{"progress": False} | settings)


def test_a_replacement_is_scored_alone_as_a_scorer_does(net):
    ours = library(net)
    space, replacements = ours.space, ours.replacements
    data = Digits()
    stream = data.stream("weights", 0)
    batches = [stream.get(number) for number in range(8)]
    scorer = Scorer(space, space.network(INPUTS), ImageClassification(), data.evaluation("architecture"), batches)
    reference = ours.figures(replacements.reference)
    assert reference["accuracy"] == scorer(replacements.reference) > 0.8
    assert len(list(replacements.alone())) == 2 * 3 + 1 + 2
    for change in replacements.alone():
        ((k, option),) = change
        architecture = (*replacements.reference[:k], option, *replacements.reference[k + 1 :])
        if space.legal(architecture):  # all but less depth, whose widths mean nothing then
            found = scorer.figures(architecture)
            assert ours.sum("accuracy").terms[change] == pytest.approx(found["accuracy"] - reference["accuracy"])
            assert ours.sum("loss").terms[change] == pytest.approx(found["loss"] - reference["loss"])


def test_the_best_is_that_of_the_whole_space_and_keeps_its_limits(net):
    ours = library(net, costs=("n_params", "flops"))
    rise, changes = ours.sum("loss"), ours.replacements.changes
    counted = {}
    for architecture in ours.space:
        small = freeze(net, architecture)
        counted[architecture] = (count_parameters(small), profile(small, torch.randn(1, 1, 8, 8)).flops)
    for n_params, flops in ((600, 1e9), (1e9, 40_000), (1200, 60_000), (1e9, 1e9)):
        best = ours.best(f"n_params <= {n_params}", f"flops <= {flops}")
        legal = [a for a, (p, f) in counted.items() if p <= n_params and f <= flops]
        assert best in legal
        assert rise(changes(best)) == pytest.approx(min(rise(changes(a)) for a in legal), abs=1e-7)
        score = ours.sum("accuracy")
        best = ours.best(f"n_params <= {n_params}", f"flops <= {flops}", by="accuracy")
        assert score(changes(best)) == pytest.approx(max(score(changes(a)) for a in legal), abs=1e-7)
    for figure, pairs in ours.errors(3).items():
        assert len(pairs) == 3
        if figure in ("n_params", "flops"):
            assert all(added == counted for added, counted in pairs)
    table = ours.describe().splitlines()
    assert table[0].split() == ["choice", "option", "loss", "accuracy", "n_params", "flops"]
    assert table[1].startswith("as it was trained")
    assert len(table) == 2 + 9


def test_where_sums_err_the_next_best_that_keeps_the_limit_is_taken(net, monkeypatch):
    ours = library(net)
    first = ours.best("n_params <= 900")
    count = ours._counts(first)["n_params"]
    monkeypatch.setitem(ours._counted, first, {"n_params": count + 1e6})
    second = ours.best("n_params <= 900")
    sums, rise = ours.sum("n_params"), ours.sum("loss")
    changes = ours.replacements.changes
    rises = [rise(changes(a)) for a in ours.space if a != first and sums(changes(a)) <= 900]
    assert second != first
    assert rise(changes(second)) == pytest.approx(min(rises), abs=1e-7)


def test_an_interrupted_library_goes_on(net, tmp_path, monkeypatch):
    path = tmp_path / "library.jsonl"
    figures, calls = Scorer.figures, []

    def interrupted(self, architecture):
        calls.append(architecture)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return figures(self, architecture)

    monkeypatch.setattr(Scorer, "figures", interrupted)
    with pytest.raises(KeyboardInterrupt):
        library(net, file=path).fill()
    assert len(path.read_bytes().splitlines()) == 1 + 3
    with path.open("ab") as file:
        file.write(b'{"choices": {"depth"')  # as if the machine had stopped
    again = library(net, file=path)
    again.fill()
    n_all = len(again.replacements.architectures())
    assert len(calls) == 4 + n_all - 3
    assert len(path.read_bytes().splitlines()) == 1 + n_all
    assert library(net, file=path).describe() == again.describe() == library(net).describe()
    assert len(calls) == 4 + n_all - 3 + n_all  # of the library without a file


def test_a_file_is_of_one_network_and_its_data(net, tmp_path):
    path = tmp_path / "library.jsonl"
    library(net, file=path, n_batches=1).figures(library(net).replacements.reference)
    with pytest.raises(SettingError, match="of a library with other settings; choose another"):
        library(net, file=path, n_batches=2)
    other = copy.deepcopy(net)
    with torch.no_grad():
        other[0].bias += 1
    with pytest.raises(SettingError, match="with other weights; choose another"):
        library(other, file=path, n_batches=1)
    content = path.read_text().splitlines()
    path.write_text("\n".join([content[0], "[]", ""]))
    with pytest.raises(SettingError, match="line 2 is damaged"):
        library(net, file=path, n_batches=1)


def test_latency_is_measured_and_kept(net, tmp_path):
    path = tmp_path / "library.jsonl"
    library(net, file=path, n_batches=1).fill()
    ours = library(net, file=path, n_batches=1, costs=("latency",))
    ours.fill()
    rows = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    measured = [row["figures"]["latency"] for row in rows if "latency" in row["figures"]]
    assert len(measured) == len(ours.replacements.architectures())
    again = library(net, file=path, n_batches=1, costs=("latency",))
    limit = again.sum("latency").reference * 0.9
    best = again.best(f"latency <= {limit}")
    assert again.sum("latency")(again.replacements.changes(best)) <= limit + 1e-6


def test_a_network_of_a_space(tmp_path):
    torch.manual_seed(0)
    network = NASBench201().network(INPUTS, channels=4, cells=1)
    ours = BlockLibrary(network, ImageClassification(), Digits(), n_batches=2, progress=False)
    best = ours.best("n_params <= 5000")
    child = network.space.restrict(best).network(INPUTS, channels=4, cells=1)
    assert count_parameters(child) <= 5000
    changes = ours.replacements.changes
    assert ours.sum("n_params")(changes(best)) == count_parameters(child)


def test_settings_are_checked(net):
    with pytest.raises(SettingError, match="costs: some of n_params, flops, latency"):
        library(net, costs=("size",))
    ours = library(net, n_batches=1)
    with pytest.raises(SettingError, match="limits: of n_params, got 'flops <= 5'"):
        ours.best("flops <= 5")
    with pytest.raises(SettingError, match="by: loss or accuracy, got 'error'"):
        ours.best(by="error")
    with pytest.raises(SettingError, match="no combination keeps n_params <= 5; n_params can be 114"):
        ours.best("n_params <= 5")
    with pytest.raises(SettingError, match="there is no choice in Sequential"):
        library(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    broken = copy.deepcopy(net)
    with torch.no_grad():
        broken[0].weight.fill_(float("nan"))
    with pytest.raises(SettingError, match=r"figures of it with .* are no numbers"):
        library(broken, n_batches=1, bn="batch").fill()


def test_what_is_found_is_an_ordinary_network_with_the_trained_weights(net):
    ours = library(net)
    found = ours.best("n_params <= 900")
    small = freeze(net, found)
    images = torch.randn(3, 1, 8, 8)
    network = Space.of(net).network(INPUTS).eval()
    assert torch.equal(small.eval()(images), network(images, network.space.gates(found)))
    assert all(type(module).__module__.startswith(("torch.", "tests.")) for module in small.modules())
