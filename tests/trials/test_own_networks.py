"""Every strategy, evaluator and executor on a network of a user's own."""

import pytest

from lightning_nas import (
    ASHA,
    NASWOT,
    NSGA2,
    SPOS,
    AgingEvolution,
    FromScratch,
    Hyperband,
    ImageClassification,
    Latency,
    OwnSpace,
    PolicyGradient,
    Processes,
    RandomSearch,
    SettingError,
    SharedWeights,
    Space,
    SuccessiveHalving,
    SynFlow,
    TabularBenchmark,
    TrialSearch,
    ZeroCost,
)
from tests.helpers.methods import digits, spos, trainer
from tests.helpers.own_network import Net

FEW = {"accelerator": "cpu", "limit_train_batches": 1, "limit_val_batches": 1}
STRATEGIES = {
    "random": (RandomSearch(), None),
    "evolution": (AgingEvolution(population=3, sample=2), None),
    "policy-gradient": (PolicyGradient(), None),
    "nsga2": (NSGA2(population=4), ["max val/accuracy", "min n_params"]),
    "successive-halving": (SuccessiveHalving(rungs=[1, 2], reduction=2, repeats=2), None),
    "hyperband": (Hyperband(max_fidelity=2, reduction=2), None),
    "asha": (ASHA(max_fidelity=2, reduction=2), None),
}


def from_scratch(epochs=2):
    return FromScratch(ImageClassification(), epochs=epochs, trainer=FEW)


def fitted(folder, search, data):
    trainer(max_epochs=1, default_root_dir=folder).fit(search, data)
    assert all(trial.status == "done" for trial in search.trials.history)
    return search.trials


@pytest.mark.parametrize("name", STRATEGIES)
def test_strategies(name, tmp_path):
    strategy, objectives = STRATEGIES[name]
    search = TrialSearch(OwnSpace(Net), strategy, from_scratch(), n_trials=5, objectives=objectives)
    trials = fitted(tmp_path, search, digits())
    assert len(trials.history) == 5
    assert search.space.legal(search.best())
    sizes = {trial.architecture: trial.metrics["n_params"] for trial in trials.history}
    assert all(sizes[a] == n_params(search.space.to_names(a)) for a in sizes)


def n_params(names):
    """By the layers of the network."""
    conv2 = 6 * 6 * 9 + 6 if names["conv2"] == "conv" else 0
    return 6 * {"0": 9, "1": 25}[names["conv1"]] + 6 + conv2 + 6 * 10 + 10


def test_zero_cost_and_a_table(tmp_path):
    space = OwnSpace(Net)
    evaluator = ZeroCost(SynFlow(), report=[NASWOT(n_images=16), Latency(runs=3)])
    trials = fitted(tmp_path / "a", TrialSearch(space, RandomSearch(), evaluator, n_trials=3), digits())
    assert {"synflow", "naswot", "n_params"} <= trials.history[0].metrics.keys()
    rows = [",".join([*space.to_names(a).values(), str(sum(a)), "1"]) for a in space]
    (tmp_path / "table.csv").write_text(
        "\n".join([",".join([*(c.name for c in space.choices), "score", "cost"]), *rows])
    )
    table = TabularBenchmark(str(tmp_path / "table.csv"), guide="score", cost="cost")
    search = TrialSearch(space, AgingEvolution(population=4, sample=3), table, n_trials=30)
    fitted(tmp_path / "b", search, None)
    assert search.best() == (1, 1, 1)


def test_shared_weights_of_a_checkpoint(tmp_path):
    method, run = spos(space=OwnSpace(Net)), trainer(max_epochs=1)
    run.fit(method, digits())
    run.save_checkpoint(tmp_path / "spos.ckpt")
    evaluator = SharedWeights(str(tmp_path / "spos.ckpt"), n_batches=1)
    trials = fitted(tmp_path, TrialSearch(OwnSpace(Net), RandomSearch(), evaluator, n_trials=3), digits())
    assert all(t.metrics["n_params"] == n_params(method.space.to_names(t.architecture)) for t in trials.history)
    again = SPOS.load_from_checkpoint(tmp_path / "spos.ckpt")
    assert again.space.spec == method.space.spec == OwnSpace(Net).spec


@pytest.mark.slow  # processes that import torch
def test_worker_processes_give_the_same_trials(tmp_path):
    def run(executor, name):
        given = {"n_trials": 2, "round_size": 2, "executor": executor}
        search = TrialSearch(OwnSpace(Net, {"width": 3}), RandomSearch(), from_scratch(1), **given)
        return [(t.architecture, t.metrics) for t in fitted(tmp_path / name, search, digits()).history]

    assert run(None, "serial") == run(Processes(n_workers=2), "processes")


def test_a_network_that_is_built_stays_in_its_process(tmp_path):
    given = {"n_trials": 2, "round_size": 2, "executor": Processes(n_workers=2)}
    search = TrialSearch(Space.of(Net()), RandomSearch(), from_scratch(1), **given)
    with pytest.raises(SettingError, match="executor: workers build the space again"):
        fitted(tmp_path, search, digits())
