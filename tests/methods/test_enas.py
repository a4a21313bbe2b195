"""ENAS: the plan of an epoch, both updates against slow ones, rewards by hand, and the settings of its paper."""

import copy
import math
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_nas import SGD, Adam
from lightning_nas.controllers import PPO, LSTMController, Reinforce
from lightning_nas.data import DataModule, Digits
from lightning_nas.errors import SettingError
from lightning_nas.files import config_folder
from lightning_nas.methods import DARTS, ENAS
from lightning_nas.operations.normalization import batch_norms
from lightning_nas.spaces import DARTSCell, ENASMacro, ENASMicro
from lightning_nas.supernets import Scorer
from lightning_nas.tasks import ImageClassification
from lightning_nas.training.lr_schedules import CosineRestarts
from lightning_nas.training.retrain import Retrain
from tests.helpers import methods
from tests.helpers.methods import child_of, differing, snapshot
from tests.helpers.optimizers import objects

MACRO = ENASMacro(layers=3, operations=["conv_3x3", "sep_conv_3x3", "max_pool_3x3"])
MICRO = ENASMicro(nodes=1, operations=["skip_connect", "sep_conv_3x3", "max_pool_3x3"])
NETWORKS = {
    ENASMacro: {"channels": 4, "dropout": 0.0},
    ENASMicro: {"channels": 2, "layers": 1, "dropout": 0.0},
    DARTSCell: {"channels": 2, "cells": 2},
}


def method(space=MACRO, network=None, inputs=None, **settings):
    network = NETWORKS[type(space)] | (network or {})
    few = {"controller_steps": 2, "samples_per_step": 3, "n_candidates": 3}
    return ENAS(space, ImageClassification(), network, inputs or digits().inputs, **objects(ENAS, few | settings))


trainer = partial(methods.trainer, limit_val_batches=0, max_epochs=1)


def digits(**settings):
    return Digits(**({"batch_size": 128} | settings))  # five batches of the weights part


class Steps(pl.Callback):
    """What every step got, drew and left, and the gradients that each optimiser took."""

    def __init__(self, monkeypatch):
        self.batches, self.phases, self.gates, self.drawn, self.gradients = [], [], [], [], ([], [])
        self.networks, self.policies, self.baselines = [], [], []
        step_weights, rewards = ENAS.step_weights, ENAS.rewards

        def spy_on_gates(search, optimizer, batch, *gates, network=None):
            self.gates.append([tuple(gate[choice.name] for choice in search.space.choices) for gate in gates])
            step_weights(search, optimizer, batch, *gates, network=network)

        def spy_on_rewards(search, architectures, batch):
            values = rewards(search, architectures, batch)
            self.drawn.append((architectures, values.tolist()))
            return values

        monkeypatch.setattr(ENAS, "step_weights", spy_on_gates)
        monkeypatch.setattr(ENAS, "rewards", spy_on_rewards)

    def on_train_start(self, trainer, pl_module):
        self.keep(pl_module)
        for optimizer, taken in zip(trainer.optimizers, self.gradients, strict=True):
            optimizer.register_step_pre_hook(
                lambda optimizer, *_, taken=taken: taken.append(
                    [None if p.grad is None else p.grad.clone() for p in optimizer.param_groups[0]["params"]]
                )
            )

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.batches.append(batch)
        self.phases.append(float(trainer.progress_bar_metrics["phase"]))
        self.keep(pl_module)

    def keep(self, search):
        self.networks.append(copy.deepcopy(search.network))
        self.policies.append(copy.deepcopy(search.policy))
        self.baselines.append(float(search.baseline.value))


def fitted(search, monkeypatch, data=None, **settings):
    steps = Steps(monkeypatch)
    trainer(callbacks=[steps], **settings).fit(search, data or digits())
    return steps


# -- the plan of an epoch ----------------------------------------------------------------------------------------------


class Numbers(DataModule):
    """Streams whose batches are their numbers."""

    def __init__(self, n_weights):
        super().__init__(batch_size=1, num_workers=0)
        self.n_weights = n_weights

    evaluation = plain_batches = None

    def stream(self, part, seed):
        class Stream:
            def __len__(stream):
                return self.n_weights if part == "weights" else 3

            def get(stream, index):
                return index

        return Stream()


@pytest.mark.parametrize(
    ("n_weights", "controller_steps", "limit", "expected"),
    [
        (10, 5, 1.0, (10, 5)),
        (10, 5, 100, (10, 5)),
        (10, 5, 6, (4, 2)),
        (10, 5, 0.4, (4, 2)),
        (10, 5, 0.5, (5, 2)),  # seven steps
        (1000, 10, 10, (9, 1)),  # fewer than a hundredth of them are the controller's, and yet
        (1, 100, 3, (1, 2)),
        (10, 5, 2, (1, 1)),
        (10, 5, 1, (1, 0)),
    ],
)
def test_a_pass_over_the_weights_part_then_the_controllers_steps_in_proportion(
    n_weights, controller_steps, limit, expected
):
    search = method(controller_steps=controller_steps)
    search.trainer = trainer(limit_train_batches=limit)
    schedule = search.schedule(Numbers(n_weights))
    assert len(schedule) == n_weights + controller_steps
    seen = {"weights": [], "architecture": []}
    for epoch in range(3):
        phases = []
        for step in range(sum(expected)):
            ((part, number),) = schedule.get(epoch, step).items()
            phases.append(part)
            seen[part].append(number)
        assert phases == ["weights"] * expected[0] + ["architecture"] * expected[1]
    for numbers, per_epoch in zip(seen.values(), expected, strict=True):
        assert numbers == list(range(3 * per_epoch))  # an epoch continues where the one before ended


@pytest.mark.parametrize(("limit", "weights", "controller"), [(1.0, 5, 2), (3, 2, 1)])
def test_a_fit_trains_on_the_batches_of_the_plan_and_shows_the_phase(monkeypatch, limit, weights, controller):
    search, data = method(seed=3), digits()
    steps = fitted(search, monkeypatch, data, limit_train_batches=limit, max_epochs=2)
    assert steps.phases == 2 * ([1.0] * weights + [2.0] * controller)
    for part, per_epoch in (("weights", weights), ("architecture", controller)):
        stream = data.stream(part, 3)
        given = [batch[part] for batch in steps.batches if part in batch]
        assert len(given) == 2 * per_epoch
        for number, batch in enumerate(given):
            assert all(torch.equal(a, b) for a, b in zip(batch, stream.get(number), strict=True))


def test_the_learning_rate_restarts_at_epochs_0_10_30_70_and_150():
    search = method(lr=0.05)
    search.trainer = trainer(max_epochs=311)
    (weights, _), (restarts, _) = search.configure_optimizers()
    rates = []
    for _ in range(311):
        rates.append(weights.param_groups[0]["lr"])
        weights.step()
        restarts.step()
    begin, period = 0, 10
    for epoch, rate in enumerate(rates):
        if epoch == begin + period:
            begin, period = epoch, 2 * period
        cosine = (1 + math.cos(math.pi * (epoch - begin) / period)) / 2
        assert rate == pytest.approx(0.0005 + (0.05 - 0.0005) * cosine)
    assert [epoch for epoch, rate in enumerate(rates) if rate == pytest.approx(0.05)] == [0, 10, 30, 70, 150, 310]


def test_the_learning_rate_changes_once_an_epoch_and_the_controllers_does_not():
    rates = []

    class Rates(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            rates.append([optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers])

    search = method(lr=0.1, lr_schedule=CosineRestarts(0.02, 1), controller_lr=0.03)
    trainer(callbacks=[Rates()], limit_train_batches=2, max_epochs=4).fit(search, digits())
    expected = [rate for rate in (0.1, 0.1, 0.06, 0.1) for _ in range(2)]
    assert [weights for weights, _ in rates] == pytest.approx(expected)
    assert {controller for _, controller in rates} == {0.03}


# -- the weights' step -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize(("space", "models"), [(MACRO, 1), (MACRO, 3), (MICRO, 3)], ids=["macro", "macro-3", "micro-3"])
def test_a_step_of_the_weights_is_that_of_the_mean_gradient_of_separate_passes(monkeypatch, space, models, clip):
    search = method(space, models_per_step=models, lr=0.1, weight_decay=0.01, momentum=0.8, gradient_clip=clip)
    steps = fitted(search, monkeypatch, limit_train_batches=1)
    before, after = (dict(network.named_parameters()) for network in steps.networks)
    images, labels = steps.batches[0]["weights"]
    ((*architectures,),) = steps.gates
    assert len(architectures) == models

    passes, by_hand = [], copy.deepcopy(steps.networks[0]).train()
    for architecture in architectures:
        by_hand.zero_grad()
        F.cross_entropy(by_hand(images, space.gates(architecture)), labels).backward()
        passes.append({n: p.grad.clone() for n, p in by_hand.named_parameters() if p.grad is not None})
    used = {name for gradients in passes for name in gradients}
    mean = {name: sum(gradients.get(name, 0) for gradients in passes) / models for name in used}
    norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in mean.values()))
    factor = 1.0 if clip is None else min(1.0, clip / norm)
    assert clip is None or factor < 1
    for name, weight in before.items():
        if name in used:
            gradient = factor * mean[name] + 0.01 * weight
            weight = weight - 0.1 * (gradient + 0.8 * gradient)  # Nesterov's first step
        torch.testing.assert_close(after[name].detach(), weight.detach(), rtol=1e-5, atol=1e-6)
    for name, buffer in by_hand.named_buffers():  # each pass has moved the running averages
        torch.testing.assert_close(steps.networks[1].get_buffer(name), buffer)


@pytest.mark.parametrize("space", [MACRO, MICRO, DARTSCell(nodes=2)], ids=["macro", "micro", "darts"])
def test_only_the_paths_drawn_get_gradients_and_move(monkeypatch, space):
    search = method(space, models_per_step=2, weight_decay=0.1)
    steps = fitted(search, monkeypatch, limit_train_batches=4)
    names = [name for name, _ in search.network.named_parameters()]
    ever = set()
    for index, (architectures, gradients) in enumerate(zip(steps.gates, steps.gradients[0], strict=True)):
        children = [child_of(search, architecture) for architecture in architectures]
        on_path = {name for child in children for name, _ in child.named_parameters()}
        assert {name for name, gradient in zip(names, gradients, strict=True) if gradient is not None} == on_path
        moved = differing(snapshot(steps.networks[index]), snapshot(steps.networks[index + 1]))
        assert moved == {name for child in children for name in child.state_dict()}
        ever |= moved
    # neither momentum nor weight decay has touched the rest
    assert differing(snapshot(steps.networks[0]), snapshot(search.network)) == ever
    assert search.network.state_dict().keys() - ever


def test_clipping_bounds_both_optimisers_and_nothing_is_clipped_without_it(monkeypatch):
    def norms(gradients):
        return [math.sqrt(sum(float(g.square().sum()) for g in step if g is not None)) for step in gradients]

    # a controller with some weight in its output layers, so that its gradients have a size
    settings = {
        "controller": LSTMController(8, temperature=None),
        "update": Reinforce(entropy_weight=1.0, baseline=0.0),
    }
    free = fitted(method(gradient_clip=None, **settings), monkeypatch, limit_train_batches=7)
    monkeypatch.undo()
    clipped = fitted(method(gradient_clip=1e-3, controller_clip=1e-4, **settings), monkeypatch, limit_train_batches=7)
    for raw, bounded, clip in zip(free.gradients, clipped.gradients, (1e-3, 1e-4), strict=True):
        assert min(norms(raw)) > 2 * clip
        assert norms(bounded) == pytest.approx([clip] * len(bounded), rel=1e-2)
    # without weight decay the first step is lr (1 + momentum) times the gradient
    search = method(gradient_clip=1e-3, lr=0.5, weight_decay=0.0)
    monkeypatch.undo()
    first, second = fitted(search, monkeypatch, limit_train_batches=1).networks
    moved = [(a - b).detach() for a, b in zip(first.parameters(), second.parameters(), strict=True)]
    assert math.sqrt(sum(float(m.square().sum()) for m in moved)) == pytest.approx(0.5 * 1.9 * 1e-3, rel=1e-2)


def test_the_auxiliary_head_is_trained(monkeypatch):
    data = digits(image_size=32, batch_size=16)
    search = method(MICRO, {"auxiliary": True}, data.inputs, weight_decay=0.0)
    before, after = fitted(search, monkeypatch, data, limit_train_batches=1).networks
    head = {name for name, _ in before.named_parameters() if name.startswith("auxiliary.")}
    assert "auxiliary.classifier.weight" in head
    assert head <= differing(snapshot(before), snapshot(after))


# -- rewards -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "network", "size"),
    [(MACRO, {"dropout": 0.5}, 8), (MICRO, {"dropout": 0.5, "auxiliary": True}, 32), (DARTSCell(nodes=2), {}, 8)],
    ids=["macro", "micro-auxiliary", "darts"],
)
def test_a_reward_is_the_accuracy_by_the_statistics_of_the_batch_and_leaves_no_trace(space, network, size):
    data = digits(image_size=size, batch_size=64)
    search = method(space, network, data.inputs, drop_path=0.9)
    for norm in batch_norms(search.network):
        norm.running_mean.fill_(100.0)  # nobody reads them
    search.network.train()
    before, modes = snapshot(search), [module.training for module in search.modules()]
    images, labels = batch = data.stream("architecture", 0).get(0)
    architectures = [search.draw("some", number) for number in range(6)]
    random_state = torch.get_rng_state()
    rewards = search.rewards(architectures, batch)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert rewards.shape == (6,)
    assert not rewards.requires_grad
    for architecture, reward in zip(architectures, rewards, strict=True):
        child = child_of(search, architecture).eval()
        for norm in batch_norms(child):
            norm.train()
        with torch.no_grad():
            right = sum(int(logits.argmax()) == int(label) for logits, label in zip(child(images), labels, strict=True))
        assert float(reward) == pytest.approx(right / 64)
    assert len(set(rewards.tolist())) > 1
    assert not differing(before, snapshot(search))
    assert [module.training for module in search.modules()] == modes
    assert torch.equal(search.rewards(architectures, batch), rewards)


# -- the controller's step ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skip_weight", [0.0, 0.8])
def test_a_step_of_the_controller_is_reinforce_by_hand(monkeypatch, skip_weight):
    search = method(
        controller=LSTMController(hidden=8, tanh_constant=1.5, temperature=None),
        controller_steps=3,
        samples_per_step=4,
        update=Reinforce(decay=0.9, entropy_weight=0.1, baseline=0.0),
        skip_weight=skip_weight,
        controller_lr=0.05,
    )
    with torch.no_grad():
        for parameter in search.policy.parameters():
            parameter.mul_(8)  # away from the uniform beginning, where skips are at their odds
    steps = fitted(search, monkeypatch, max_epochs=2)
    controller_steps = [index for index, phase in enumerate(steps.phases) if phase == 2]
    assert len(controller_steps) == len(steps.drawn) == 6
    baseline, second_moments = 0.0, {}
    for taken, index in enumerate(controller_steps, start=1):
        policy, (architectures, rewards) = steps.policies[index], steps.drawn[taken - 1]
        assert steps.baselines[index] == pytest.approx(baseline)

        sample = policy.evaluate(torch.tensor(architectures))
        surplus = [r + 0.1 * float(e.sum()) - baseline for r, e in zip(rewards, sample.entropies, strict=True)]
        loss = -sum(log_prob * s for log_prob, s in zip(sample.log_prob, surplus, strict=True)) / 4
        loss = loss + skip_weight * sample.skip_kl.sum() / 4
        gradients = torch.autograd.grad(loss, list(policy.parameters()))
        after = dict(steps.policies[index + 1].named_parameters())
        for (name, weight), gradient in zip(policy.named_parameters(), gradients, strict=True):
            second = 0.999 * second_moments.get(name, 0) + 0.001 * gradient.square()  # Adam, with no first moment
            second_moments[name] = second
            step = gradient / ((second / (1 - 0.999**taken)).sqrt() + 1e-3)
            torch.testing.assert_close(after[name].detach(), (weight - 0.05 * step).detach(), rtol=1e-4, atol=1e-5)
        # as far as four rewards one after the other would move it, were they equal
        mean = sum(surplus) / 4 + baseline
        baseline += (1 - 0.9**4) * (mean - baseline)
        assert steps.baselines[index + 1] == pytest.approx(baseline, rel=1e-5)


def test_ppo_takes_its_passes_on_the_same_architectures_and_rewards_by_hand(monkeypatch):
    search = method(
        controller=LSTMController(hidden=8, tanh_constant=1.5, temperature=None),
        controller_steps=3,
        samples_per_step=4,
        update=PPO(decay=0.9, entropy_weight=0.1, clip=0.1, passes=3),
        skip_weight=0.5,
        controller_optimizer=SGD(1.0),
    )
    with torch.no_grad():
        for parameter in search.policy.parameters():
            parameter.mul_(8)
    steps = Steps(monkeypatch)
    run = trainer(callbacks=[steps])
    run.fit(search, digits())
    assert len(steps.drawn) == 3
    assert len(steps.gradients[1]) == 3 * 3
    assert run.global_step == 5 + 3
    total = weight = 0.0
    clipped = 0
    for index, (architectures, rewards) in enumerate(steps.drawn, start=5):
        policy, given, rewards = (
            copy.deepcopy(steps.policies[index]),
            torch.tensor(architectures),
            torch.tensor(rewards),
        )
        baseline = total / weight if weight else rewards.mean()
        assert steps.baselines[index] == pytest.approx(total / weight if weight else 0.0)
        total, weight = (
            0.9**4 * old + (1 - 0.9**4) * new for old, new in ((total, float(rewards.mean())), (weight, 1))
        )
        drawn = policy.evaluate(given).log_prob.detach()
        for _ in range(3):
            sample = policy.evaluate(given)
            ratio = (sample.log_prob - drawn).exp()
            gains = [
                min(r * (reward - baseline), r.clamp(0.9, 1.1) * (reward - baseline))
                for r, reward in zip(ratio, rewards, strict=True)
            ]
            loss = -sum(gains) / 4 - 0.1 * sample.entropies.sum() / 4 + 0.5 * sample.skip_kl.sum() / 4
            gradients = torch.autograd.grad(loss, list(policy.parameters()))
            clipped += int(((ratio - 1).abs() > 0.1).sum())
            with torch.no_grad():
                for parameter, gradient in zip(policy.parameters(), gradients, strict=True):
                    parameter -= 1.0 * gradient
        for ours, slow in zip(steps.policies[index + 1].parameters(), policy.parameters(), strict=True):
            torch.testing.assert_close(ours, slow, rtol=1e-4, atol=1e-5)
    assert clipped


def test_what_the_update_is_called_in_an_error_and_in_a_checkpoint():
    with pytest.raises(SettingError, match=r"^update\.passes: at least 1, got 0$"):
        method(update={"class_path": "lightning_nas.PPO", "init_args": {"passes": 0}})
    assert method().hparams["update"] == Reinforce(entropy_weight=1e-4, baseline=0.0).spec
    assert method(update=PPO(passes=2)).hparams["update"] == PPO(passes=2).spec


def test_a_controller_whose_rate_is_zero_stays_untrained(monkeypatch):
    steps = fitted(method(controller_lr=0.0), monkeypatch, limit_train_batches=7)
    assert not differing(snapshot(steps.policies[0]), snapshot(steps.policies[-1]))


def test_draws_are_a_function_of_seed_epoch_step_and_rank(monkeypatch):
    space = ENASMacro(layers=6)  # of so many architectures that none comes twice by chance
    settings = {"controller_steps": 2, "models_per_step": 2, "controller_lr": 1e-9}

    def drawn(seed=0, rank=0):
        monkeypatch.setattr(ENAS, "global_rank", property(lambda self: rank))
        steps = fitted(method(space, seed=seed, **settings), monkeypatch, limit_train_batches=4, max_epochs=2)
        monkeypatch.undo()
        both = [*steps.gates, *(architectures for architectures, _ in steps.drawn)]
        return [tuple(architecture) for step in both for architecture in step]

    first = drawn()
    assert len(first) == 2 * (3 * 2 + 1 * 3)
    assert len(set(first)) == len(first)  # again in every epoch, step and phase
    torch.manual_seed(5)
    assert drawn() == first
    for other in (drawn(seed=1), drawn(rank=1)):
        assert not set(other) & set(first)


def test_the_ranks_agree_on_what_is_drawn_for_all_of_them(monkeypatch):
    search = method(ENASMacro(layers=6))
    first = [search.draw("candidate", number) for number in range(5)]
    monkeypatch.setattr(ENAS, "global_rank", property(lambda self: 3))
    assert [search.draw("candidate", number) for number in range(5)] == first
    assert len(set(first)) == 5


def test_drop_path_grows_with_the_steps_and_the_depth_and_is_off_in_rewards_and_validation(monkeypatch):
    search = method(drop_path=0.4)
    probabilities = {True: [], False: []}  # in training or not

    def record(network, arguments, keywords):
        drop_path = keywords.get("drop_path", 0.0)
        depths = (0.5, 1.0)
        row = [drop_path(depth) for depth in depths] if callable(drop_path) else [drop_path] * 2
        probabilities[network.training].append(row)

    search.network.register_forward_pre_hook(record, with_kwargs=True)
    trainer(limit_train_batches=7, limit_val_batches=2, num_sanity_val_steps=0, max_epochs=3).fit(search, digits())
    steps = [epoch + step / 5 for epoch in range(3) for step in range(5)]
    assert probabilities[True] == [pytest.approx([0.4 * done / 3 * 0.5, 0.4 * done / 3]) for done in steps]
    assert len(probabilities[False]) == 3 * (2 * 3 + 2)
    assert not any(drop_path for row in probabilities[False] for drop_path in row)


# -- what the search says ----------------------------------------------------------------------------------------------


def spread(search, scale=30):
    """Moves a policy away from its uniform beginning."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in search.policy.parameters():
            parameter += scale * 0.1 * torch.randn(parameter.shape, generator=generator)
    return search


@pytest.mark.parametrize("space", [ENASMacro(layers=3, operations=["conv_3x3", "max_pool_3x3"]), MICRO])
def test_the_best_takes_the_most_probable_option_at_every_step(space):
    search = spread(method(space, controller=LSTMController(8)))
    everything = list(space)
    with torch.no_grad():
        probabilities = search.policy.evaluate(torch.tensor(everything)).log_prob.exp()
    weights = dict(zip(everything, probabilities.tolist(), strict=True))
    prefix = ()
    for choice in space.choices:
        shares = [0.0] * len(choice.options)
        for architecture, probability in weights.items():
            if architecture[: len(prefix)] == prefix:
                shares[architecture[len(prefix)]] += probability
        prefix += (shares.index(max(shares)),)
    assert search.best() == prefix
    draws = [search.draw("any", number) for number in range(300)]
    assert draws.count(prefix) / 300 == pytest.approx(weights[prefix], abs=0.1)


class Asked:
    """What is scored, on what, and by which statistics; the scores are from a table."""

    def __init__(self, monkeypatch):
        self.architectures, self.batches, self.bn = [], [], []

        def score(evaluator, architecture):
            self.architectures.append(architecture)
            self.batches.append(evaluator.validation)
            self.bn.append((evaluator.bn, len(evaluator.calibration)))
            return self.score(architecture)

        monkeypatch.setattr(Scorer, "__call__", score)

    def score(self, architecture):
        return sum(option * 0.1**k for k, option in enumerate(architecture))


def test_the_best_of_n_candidates_is_chosen_on_one_batch_the_same_for_all(monkeypatch):
    asked, data, search = Asked(monkeypatch), digits(), method(ENASMacro(layers=6), n_candidates=7)
    chosen, scores = search.choose(data)
    drawn = [search.draw("candidate", number) for number in range(7)]
    assert asked.architectures == drawn
    assert chosen == max(drawn, key=asked.score)
    assert list(scores.items()) == [(a, asked.score(a)) for a in sorted(drawn, key=asked.score, reverse=True)]
    (first,) = asked.batches[0]
    assert len(first[1]) == 128
    assert all(batches is asked.batches[0] for batches in asked.batches)
    assert asked.bn == 7 * [("recalibrate", 5)]  # the weights part has five batches


def test_given_candidates_are_compared_in_the_same_way(monkeypatch):
    asked, search = Asked(monkeypatch), method(ENASMacro(layers=6), n_candidates=2, bn="batch")
    given = [search.draw("given", number) for number in range(5)]
    chosen, scores = search.choose(digits(), candidates=[*given, given[0]])
    assert asked.architectures == given
    assert chosen == max(given, key=asked.score)
    assert scores.keys() == set(given)
    assert {len(batches) for batches in asked.batches} == {1}
    assert asked.bn == 5 * [("batch", 0)]


def test_a_diverged_search_says_so_and_the_last_good_checkpoint_stays(explode, tmp_path):
    each_epoch = ModelCheckpoint(tmp_path, filename="last", save_on_train_epoch_end=True)
    run = trainer(max_epochs=3, callbacks=[explode, each_epoch], enable_checkpointing=True)
    with pytest.raises(SettingError, match="lower the lr of optimizer"):
        run.fit(method(gradient_clip=None), digits())
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert content["epoch"] == 0
    assert all(value.isfinite().all() for value in content["state_dict"].values())


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        *({name: 0} for name in ("models_per_step", "controller_steps", "samples_per_step")),
        {"n_candidates": -1},
        {"drop_path": 1.0},
        {"bn": "running"},
    ],
)
def test_wrong_settings_are_named(settings):
    ((name, value),) = settings.items()
    with pytest.raises(SettingError, match=rf"^{name}: .*got {value!r}$"):
        method(**settings)


def test_skips_are_regularised_where_there_are_some():
    with pytest.raises(SettingError, match=r"^skip_weight: ENASMicro has no skips, got 0\.8$"):
        method(MICRO, skip_weight=0.8)


def test_darts_searches_cells_and_says_why_it_does_not_search_layers_with_skips():
    search = DARTS(MICRO, ImageClassification(), NETWORKS[ENASMicro], digits().inputs, order="first")
    before = search.alphas.detach().clone()
    trainer(limit_train_batches=2).fit(search, digits())
    assert not torch.equal(search.alphas, before)
    assert search.best() in list(MICRO)
    with pytest.raises(SettingError, match=r"^space: DARTS cannot search ENASMacro; a skip is on or off"):
        DARTS(MACRO, ImageClassification(), order="first")


# Pham et al. 2018 and the released code's flags: batch, epochs, S, samples, controller's rate, T, C, C of operations,
# weight decay, layers, channels
SEARCHES = {
    "enas/search.yaml": (160, 150, 30, 10, 0.0035, None, 1.10, 1.10 / 2.5, 1e-4, 6, 20),
    "enas_macro/search.yaml": (128, 310, 50, 20, 0.001, None, 1.5, 1.5, 2.5e-4, 12, 36),
}
# batch, epochs, lowest rate, weight decay, drop-path, cutout; settings of the network
RETRAININGS = {
    "enas/retrain.yaml": (
        (144, 630, 1e-4, 2e-4, 0.4, 16),
        {"channels": 36, "layers": 15, "auxiliary": True, "dropout": 0.2},
    ),
    "enas_macro/retrain.yaml": ((100, 310, 0.001, 2e-4, 0.0, 0), {"channels": 96, "dropout": 0.5}),
}


def configured(name):
    """The model of a configuration, and what it says of data and trainer."""
    known = (SGD, Adam, ENAS, Retrain, ENASMacro, ENASMicro, LSTMController, ImageClassification, CosineRestarts)
    classes = {cls.__name__: cls for cls in known}

    def built(value):
        if isinstance(value, str) and value in classes:
            return classes[value]()
        if isinstance(value, dict) and "class_path" in value:
            return classes[value["class_path"]](**{k: built(v) for k, v in value.get("init_args", {}).items()})
        return value

    content = yaml.safe_load((config_folder() / name).read_text())
    assert (config_folder() / name).read_text().startswith("# ")  # what `list` shows
    return built(content["model"]), content["data"]["init_args"], content["trainer"]


@pytest.mark.parametrize("name", SEARCHES)
def test_the_searches_have_the_settings_of_the_released_code(name):
    batch, epochs, steps, samples, controller_lr, T, C, C_operations, decay, layers, channels = SEARCHES[name]
    search, data, trainer = configured(name)
    assert (data["batch_size"], trainer["max_epochs"]) == (batch, epochs)
    assert data["architecture_share"] == pytest.approx(5_000 / 50_000)
    assert (search.controller_steps, search.samples_per_step, search.models_per_step) == (steps, samples, 1)
    adam = search.controller_optimizer
    assert (adam.lr, adam.betas, adam.eps) == (controller_lr, (0, 0.999), 1e-3)
    controller = search.policy.controller
    assert (controller.width, controller.layers, controller.temperature) == (64, 1, T)
    assert float(controller.bounded(torch.tensor(1e9), "skip")) == pytest.approx(C)
    assert float(controller.bounded(torch.tensor(1e9), "operation")) == pytest.approx(C_operations)
    sgd = search.optimizer
    assert (sgd.weight_decay, sgd.momentum, sgd.nesterov, sgd.clip) == (decay, 0.9, True, 5)
    schedule = sgd.schedule
    assert (sgd.lr, schedule.minimum, schedule.first_period) == (0.05, 0.0005, 10)
    assert search.n_candidates == 10
    assert search.update.spec == Reinforce(0.99, entropy_weight=1e-4, baseline=0.0, differentiate_entropy=False).spec
    assert search.drop_path == 0.4
    network = search.space.network({"channels": 3, "image_size": 32, "num_classes": 10}, **search.network_settings)
    if name == "enas/search.yaml":
        assert search.space.nodes == 5
        assert (len(network.cells), network.stem[0].out_channels, network.dropout.p) == (layers + 2, 3 * channels, 0.1)
        assert network.auxiliary is not None
        assert controller.operation_bias == {"sep_conv_3x3": 10, "sep_conv_5x5": 10}
        assert search.skip_weight == 0
    else:
        assert (len(network.layers), network.stem[0].out_channels, network.dropout.p) == (layers, channels, 0.1)
        assert (search.skip_weight, controller.skip_target) == (0.8, 0.4)
    (_, adam), _ = built_optimizers(search, network)
    assert (adam.defaults["eps"], adam.defaults["weight_decay"]) == (1e-3, 0)


def built_optimizers(search, network):
    search.network, search.trainer = network, trainer()
    return search.configure_optimizers()


@pytest.mark.parametrize("name", RETRAININGS)
def test_the_retrainings_have_the_settings_of_the_released_code(name):
    (batch, epochs, lr_min, decay, drop_path, cutout), network = RETRAININGS[name]
    retrain, data, trainer = configured(name)
    assert (data["batch_size"], data.get("cutout", 0), trainer["max_epochs"]) == (batch, cutout, epochs)
    sgd = retrain.optimizer
    assert isinstance(sgd.schedule, CosineRestarts)
    assert (sgd.lr, sgd.schedule.minimum, sgd.weight_decay) == (0.05, lr_min, decay)
    assert (sgd.momentum, sgd.nesterov, sgd.clip) == (0.9, True, 5)
    assert (retrain.drop_path, retrain.task.auxiliary_weight) == (drop_path, 0.4)
    assert retrain.drop_path_schedule == "scheduled" or not drop_path
    assert retrain.network_settings == network
    assert retrain.train_on == "all"
