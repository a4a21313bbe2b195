"""What every policy promises, on every kind of space, against enumeration."""

import io
import math
from collections import Counter

import pytest
import torch
from jsonargparse import ArgumentError, ArgumentParser
from scipy.stats import chisquare

from lightning_nas.controllers import Controller, LSTMController
from lightning_nas.errors import SettingError
from lightning_nas.spaces import Choice, Space

FREE = {"temperature": None, "tanh_constant": None}


def masses(space, log_prob):
    """The probability of every prefix, by adding up the architectures that begin with it."""
    mass = Counter()
    for architecture, p in zip(space, log_prob.exp().tolist(), strict=True):
        for k in range(len(architecture) + 1):
            mass[architecture[:k]] += p
    return mass


def test_probabilities_sum_to_one(space, controller, trained, everything):
    policy = trained(controller(**FREE).policy(space))
    log_prob = policy.evaluate(everything(space)).log_prob.detach()
    assert log_prob.logsumexp(0).item() == pytest.approx(0, abs=1e-9)
    assert log_prob.std() > 0.5


def test_an_untrained_policy_is_uniform_over_architectures(space, controller, everything):
    sample = controller().policy(space).evaluate(everything(space))
    assert (sample.log_prob + math.log(space.size)).abs().max() < 1e-5


def test_what_was_drawn_is_judged_the_same_when_it_is_given(space, controller, trained):
    policy = trained(controller().policy(space))
    drawn = policy.sample(50, torch.Generator().manual_seed(1))
    given = policy.evaluate(drawn.architectures)
    for name in ("architectures", "step_log_probs", "entropies", "hidden", "skip_kl"):
        assert torch.equal(getattr(drawn, name), getattr(given, name)), name
    alone = policy.evaluate(drawn.architectures[7:8])  # the others of a batch have no influence
    torch.testing.assert_close(alone.hidden, drawn.hidden[7:8], rtol=0, atol=1e-12)
    torch.testing.assert_close(alone.log_prob, drawn.log_prob[7:8], rtol=0, atol=1e-12)


def test_a_choice_changes_nothing_before_it_and_something_after_it(space, controller, trained):
    policy = trained(controller().policy(space))
    architectures = list(space)
    for k, choice in enumerate(space.choices):
        first, second = {}, {}
        for architecture in architectures:
            first.setdefault(architecture[:k], architecture)
            if architecture[k] != first[architecture[:k]][k]:
                second.setdefault(architecture[:k], architecture)
        if not second:
            continue  # forced
        pairs = [pair for prefix, b in list(second.items())[:20] for pair in (first[prefix], b)]
        sample = policy.evaluate(torch.tensor(pairs))
        assert (sample.architectures[::2, k] != sample.architectures[1::2, k]).all()
        step = policy.step_of[k]
        for values, end in (
            (sample.step_log_probs, k),
            (sample.entropies, k if choice.group else k + 1),  # a rule narrows the rest of the group
            (sample.hidden, step + 1),
        ):
            torch.testing.assert_close(values[::2, :end], values[1::2, :end], rtol=0, atol=1e-12)
        reads_zeros = choice.kind in ("input", "skip") and min(choice.sources) < 2  # two inputs of a cell look alike
        if step + 1 < len(policy.steps) and not reads_zeros:
            after = (sample.hidden[::2, step + 1] - sample.hidden[1::2, step + 1]).abs().amax(1)
            assert (after > 1e-6).all(), choice.name


def test_what_is_illegal_is_never_drawn_and_has_no_probability(space, controller, trained):
    policy = trained(controller(**FREE).policy(space), scale=0.3)
    legal = set(space)
    with torch.no_grad():
        assert set(policy.sample(10_000, torch.Generator().manual_seed(0)).tuples()) <= legal
    if space.has_rule:
        nowhere = next(a for a in Space(space.choices) if a not in legal)  # the same choices without the rule
        with pytest.raises(ValueError, match="not an architecture of this space"):
            policy.evaluate(torch.tensor([next(iter(legal)), nowhere]))


def test_draws_have_the_probabilities_that_they_are_said_to_have(spaces, controller, trained, everything):
    space = spaces["labels"]
    policy = trained(controller().policy(space), scale=0.5)
    with torch.no_grad():
        expected = 20_000 * policy.evaluate(everything(space)).log_prob.exp()
        counts = Counter(policy.sample(20_000, torch.Generator().manual_seed(2)).tuples())
    assert expected.min() > 5
    assert expected.max() > 2 * expected.min()
    assert chisquare([counts[architecture] for architecture in space], expected).pvalue > 1e-3


def test_entropies_and_log_probabilities_are_those_of_the_prefixes(space, controller, trained, everything):
    policy = trained(controller().policy(space))
    architectures = everything(space)
    sample = policy.evaluate(architectures)
    mass = masses(space, sample.log_prob.detach())
    for index in torch.randint(len(architectures), (30,), generator=torch.Generator().manual_seed(0)).tolist():
        architecture = tuple(architectures[index].tolist())
        for k, choice in enumerate(space.choices):
            prefix = architecture[:k]
            p = torch.tensor([mass[(*prefix, option)] / mass[prefix] for option in range(len(choice.options))])
            assert sample.entropies[index, k].item() == pytest.approx(torch.special.entr(p).sum().item(), abs=1e-6)
            assert sample.step_log_probs[index, k].exp().item() == pytest.approx(p[architecture[k]].item(), abs=1e-6)
    probabilities = sample.log_prob.exp()
    expected = (probabilities * sample.entropies.sum(1)).sum()
    assert expected.item() == pytest.approx(torch.special.entr(probabilities).sum().item(), abs=1e-9)


def test_a_forced_choice_is_certain(controller, trained, spaces):
    space = spaces["few-skips"]
    sample = trained(controller().policy(space)).sample(20, torch.Generator().manual_seed(0))
    forced = [k for k, choice in enumerate(space.choices) if choice.name in ("3/skip0", "3/skip1")]
    assert len(forced) == 2
    assert (sample.step_log_probs[:, forced] == 0).all()
    assert (sample.entropies[:, forced] == 0).all()


def test_the_bound_holds_for_whatever_weights(spaces, controller, trained, everything):
    space = spaces["recurrent"]
    policy = trained(controller(temperature=5.0, tanh_constant=2.5).policy(space), scale=100)
    steps = policy.evaluate(everything(space)).step_log_probs
    activations = [k for k, choice in enumerate(space.choices) if choice.kind == "operation"]
    spread = 0.0
    for prefix_length in activations:
        log_probs = {}
        for row, architecture in zip(steps.tolist(), space, strict=True):
            log_probs.setdefault(architecture[:prefix_length], set()).add(row[prefix_length])
        spread = max(spread, *(max(values) - min(values) for values in log_probs.values()))
    assert 4.9 < spread <= 5 + 1e-9  # p_max / p_min <= e^5


def test_the_bound_of_operations_can_be_narrower(spaces, controller, trained):
    space = spaces["cells"]
    policy = trained(controller(tanh_constant=1.1, operation_tanh_reduce=2.5).policy(space), scale=100)
    steps = policy.sample(500, torch.Generator().manual_seed(0)).step_log_probs.exp()
    for k, choice in enumerate(space.choices):
        if len(choice.options) == 2:
            c = 1.1 / 2.5 if choice.kind == "operation" else 1.1
            assert steps[:, k].max().item() <= 1 / (1 + math.exp(-2 * c)) + 1e-9
            assert steps[:, k].min().item() >= 1 / (1 + math.exp(2 * c)) - 1e-9


def test_a_bias_of_operations_is_where_their_probabilities_start(spaces, controller, everything):
    space = spaces["Cells"](nodes=1)
    policy = controller(temperature=None, tanh_constant=1.1, operation_bias={"conv": 10.0}).policy(space)
    odds = math.exp(1.1 * math.tanh(10))
    sample = policy.evaluate(everything(space))
    for k, choice in enumerate(space.choices):
        expected = torch.full((space.size,), 0.5)
        if choice.kind == "operation":
            expected = torch.where(sample.architectures[:, k] == 0, odds / (1 + odds), 1 / (1 + odds))
        torch.testing.assert_close(sample.step_log_probs[:, k].exp(), expected)
    sample.log_prob[0].backward()
    assert any(parameter.grad.abs().sum() > 0 for name, parameter in policy.named_parameters() if "bias" in name)
    with pytest.raises(SettingError, match=r"operation_bias: no operation 'tanh'; there are conv, pool"):
        controller(operation_bias={"tanh": 1.0}).policy(space)


def test_the_divergence_of_skips_is_that_of_the_probability_drawn_from(spaces, controller, trained, everything):
    space = spaces["layers"]
    policy = trained(controller(**FREE, skip_target=0.4).policy(space))
    sample = policy.evaluate(everything(space))
    bits = [k for k, choice in enumerate(space.choices) if choice.kind == "skip"]
    p = sample.step_log_probs[:, bits].exp()
    on = torch.where(sample.architectures[:, bits] == 1, p, 1 - p)
    kl = on * (on / 0.4).log() + (1 - on) * ((1 - on) / 0.6).log()
    torch.testing.assert_close(sample.skip_kl, kl.sum(1) / 3)  # three layers have skips
    assert sample.skip_kl.min() > 0
    even = controller(skip_target=0.5).policy(space).evaluate(everything(space)).skip_kl
    assert even.abs().max() < 1e-6


def test_the_regulariser_of_skips_leads_to_its_target(spaces, controller):
    space = spaces["layers"]
    policy = controller(**FREE, skip_target=0.4).policy(space)
    optimizer = torch.optim.Adam(policy.parameters(), 0.1)
    for _ in range(40):
        kl = policy.sample(20, torch.Generator().manual_seed(0)).skip_kl.mean()
        optimizer.zero_grad()
        kl.backward()
        optimizer.step()
    assert kl < 1e-3
    bits = [k for k, choice in enumerate(space.choices) if choice.kind == "skip"]
    share = policy.sample(4000, torch.Generator().manual_seed(1)).architectures[:, bits].float().mean()
    assert share.item() == pytest.approx(0.4, abs=0.02)


def test_skips_that_are_not_free_do_not_count(spaces, controller, trained):
    space = spaces["layers"].restrict({"3/skip0": "on", "4/skip1": "off", "4/skip2": "off"})
    policy = trained(controller(**FREE).policy(space))
    sample = policy.sample(30, torch.Generator().manual_seed(0))
    free = [k for k, choice in enumerate(space.choices) if choice.kind == "skip" and len(choice.options) == 2]
    p = sample.step_log_probs[:, free].exp()
    on = torch.where(sample.architectures[:, free] == 1, p, 1 - p)
    kl = on * (on / 0.4).log() + (1 - on) * ((1 - on) / 0.6).log()
    torch.testing.assert_close(sample.skip_kl, kl.sum(1) / 3)
    nothing_free = space.restrict(dict.fromkeys([space.choices[k].name for k in free], "off"))
    sample = trained(controller().policy(nothing_free)).sample(5)
    assert (sample.skip_kl == 0).all()


def test_gradients_are_finite_where_options_are_illegal(controller, spaces):
    policy = controller().policy(spaces["few-skips"])
    sample = policy.sample(20, torch.Generator().manual_seed(0))
    loss = sample.log_prob.mean() + sample.entropies.mean() + sample.skip_kl.mean()
    gradients = torch.autograd.grad(loss, list(policy.parameters()), materialize_grads=True)
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.abs().sum() > 0 for gradient in gradients)


def test_best_takes_the_most_probable_option_every_time(space, controller, trained, everything):
    policy = trained(controller().policy(space))
    log_prob = policy.evaluate(everything(space)).log_prob.detach()
    mass = masses(space, log_prob)
    greedy = ()
    for choice in space.choices:
        greedy += (max(range(len(choice.options)), key=lambda option: mass[(*greedy, option)]),)
    assert policy.best() == greedy


def test_draws_are_a_function_of_the_seed(space, controller):
    policy = controller().policy(space)
    first, second, other = (policy.sample(20, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first.architectures, second.architectures)
    assert not torch.equal(first.architectures, other.architectures)
    assert first.tuples()[5] == tuple(first.architectures[5].tolist())


def test_a_policy_is_a_function_of_its_seed_and_leaves_the_global_one_alone(spaces, controller):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, second, other = (controller().policy(spaces["cells"], seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.start, other.start)


def test_a_state_dict_round_trips_as_plain_weights(space, controller, trained):
    policy = trained(controller().policy(space))
    file = io.BytesIO()
    torch.save({"controller": policy.controller.spec, "weights": policy.state_dict()}, file)
    file.seek(0)
    checkpoint = torch.load(file, weights_only=True)
    loaded = Controller.build(checkpoint["controller"]).policy(space, seed=9).double()
    loaded.load_state_dict(checkpoint["weights"])
    drawn = policy.sample(10, torch.Generator().manual_seed(0))
    again = loaded.sample(10, torch.Generator().manual_seed(0))
    assert torch.equal(drawn.architectures, again.architectures)
    assert torch.equal(drawn.log_prob, again.log_prob)


def test_a_controller_is_named_in_a_configuration_without_its_space():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--controller", type=Controller)
    init_args = {"hidden": 16, "temperature": None, "tanh_constant": 1.1, "operation_bias": {"conv": 10.0}}
    parsed = parser.parse_object({"controller": {"class_path": "LSTMController", "init_args": init_args}})
    spec = parsed.controller.as_dict()
    assert spec["class_path"] == "lightning_nas.LSTMController"
    assert spec["init_args"] == init_args | {"layers": 1, "operation_tanh_reduce": 1.0, "skip_target": 0.4}
    controller = Controller.build(spec)
    assert isinstance(controller, LSTMController)
    assert controller.spec == spec
    with pytest.raises(ArgumentError, match="width"):
        parser.parse_object({"controller": {"class_path": "LSTMController", "init_args": {"width": 16}}})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": 0.0}, "temperature: above 0 or null, got 0.0"),
        ({"tanh_constant": -1.0}, "tanh_constant: above 0 or null"),
        ({"operation_tanh_reduce": 0.0}, "operation_tanh_reduce: above 0"),
        ({"tanh_constant": None, "operation_tanh_reduce": 2.0}, "and 1 without tanh_constant, got 2.0"),
        ({"skip_target": 1.0}, "skip_target: between 0 and 1, got 1.0"),
    ],
)
def test_wrong_settings_are_named(controller, wrong, message):
    with pytest.raises(SettingError, match=message):
        controller(**wrong)


def test_sizes_beyond_floating_point_are_no_obstacle(controller):
    class Long(Space):
        """Two hundred numbers: all are zero if the first is."""

        start = "begin"

        def __init__(self):
            super().__init__(Choice(f"c{k}", tuple(map(str, range(64))), f"c{k}", kind="value") for k in range(200))

        def step(self, state, choice, option):
            if state == "begin":
                return "zeros" if option == "0" else "any"
            return state if state == "any" or option == "0" else None

    space = Long()
    assert space.size == 1 + 63 * 64**199 > 10**350
    policy = controller().policy(space)
    sample = policy.sample(3, torch.Generator().manual_seed(0))
    torch.testing.assert_close(sample.log_prob, torch.full((3,), -math.log(space.size)))
