"""What a space compiles from its rule, against enumeration of all combinations."""

import copy
import dataclasses
import inspect
import itertools
import math
import pickle
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from lightning_nas.errors import SettingError
from lightning_nas.spaces import Architecture, Choice, Space
from lightning_nas.spaces.base import Network


class WithoutRule(Space):
    """No rule: 2 × 3 × 4 architectures."""

    def __init__(self) -> None:
        super().__init__(
            Choice(name, options, name)
            for name, options in [("norm", ("batch", "layer")), ("width", ("8", "16", "32")), ("op", tuple("abcd"))]
        )


class StoppingChain(Space):
    """Layers up to ``stop``, ``absent`` after it. No two poolings in a row, and a pooling is no last layer."""

    start = "begin"

    def __init__(self, layers: int = 4) -> None:
        self.layers = layers
        super().__init__(
            Choice(f"layer{k}", ("conv", "pool", "stop", "absent"), f"layer{k}", kind="value") for k in range(layers)
        )

    def step(self, state: str, choice: Choice, option: str) -> str | None:
        if state == "stopped" or option == "absent":
            return "stopped" if (state, option) == ("stopped", "absent") else None
        if state == "pool" and option != "conv":
            return None
        if option == "pool" and choice is self.choices[-1]:
            return None
        return "stopped" if option == "stop" else option


class TwoOfEach(Space):
    """Two nodes with three and four incoming edges, each of them with exactly two that are not ``none``."""

    start = 0

    def __init__(self) -> None:
        super().__init__(
            Choice(f"{source}->{node}", ("none", "conv", "pool"), str(node), sources=(source,))
            for node in (3, 4)
            for source in range(node)
        )

    def step(self, live: int, choice: Choice, option: str) -> int | None:
        live += option != "none"
        if choice.last_of_node:
            return 0 if live == 2 else None
        return live if live <= 2 else None


class DigitSum(Space):
    """Digits with a given sum: to change one, others far away have to change."""

    start = 0

    def __init__(self, digits: int = 4, total: int = 5) -> None:
        self.total = total
        super().__init__(Choice(f"digit{k}", tuple("0123"), f"digit{k}", kind="value") for k in range(digits))

    def step(self, so_far: int, choice: Choice, option: str) -> int | None:
        so_far += int(option)
        if choice is self.choices[-1]:
            return so_far if so_far == self.total else None
        return so_far


class OrderedInputs(Space):
    """An input choice for each node; the second input comes after the first."""

    start = -1

    def __init__(self) -> None:
        super().__init__(
            Choice(
                f"{node}/{which}", tuple(f"s{i}" for i in range(node)), str(node), "input", sources=tuple(range(node))
            )
            for node in (3, 4)
            for which in ("first", "second")
        )

    def step(self, first: int, choice: Choice, option: str) -> int | None:
        source = choice.sources[choice.options.index(option)]
        if choice.last_of_node:
            return -1 if source > first else None
        return source


SPACES: dict[str, Space] = {
    "free": WithoutRule(),
    "chain": StoppingChain(),
    "two-edges": TwoOfEach(),
    "total": DigitSum(),
    "inputs": OrderedInputs(),
    "restricted": TwoOfEach().restrict({"0->3": ["conv", "pool"], "1->4": "none", "2->4": ["none", "pool"]}),
}

SIZES = {
    "free": 24,
    "chain": 12,
    "two-edges": 12 * 24,  # of 3 and of 4 edges two, with two operations each
    "total": 40,
    "inputs": 18,  # two of 3 sources, two of 4
    "restricted": 8 * 8,
}


def combinations(space: Space, length: int | None = None) -> Iterator[Architecture]:
    """All combinations of options of the first choices, legal or not, in lexicographic order."""
    return itertools.product(*(range(len(choice.options)) for choice in space.choices[:length]))


def enumerate_slowly(space: Space) -> list[Architecture]:
    """The legal architectures: the rule applied to every combination of options."""
    legal = []
    for combination in combinations(space):
        state = space.start
        for choice, option in zip(space.choices, combination, strict=True):
            state = space.step(state, choice, choice.options[option])
            if state is None:
                break
        else:
            legal.append(combination)
    return legal


def distance(a: Architecture, b: Architecture) -> int:
    return sum(x != y for x, y in zip(a, b, strict=True))


def p_value(draws: Counter[Architecture], probabilities: dict[Architecture, float]) -> float:
    """Of the chi-square test that the draws have these probabilities; 0 if something impossible was drawn."""
    if set(draws) - set(probabilities):
        return 0.0
    observed = [draws[key] for key in probabilities]
    expected = [sum(observed) * probability for probability in probabilities.values()]
    assert min(expected) >= 5, "too few draws for the test to hold"
    return float(chisquare(observed, expected).pvalue)


@pytest.fixture(params=SPACES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def space(name: str) -> Space:
    return SPACES[name]


@pytest.fixture
def everything(space: Space) -> list[Architecture]:
    return enumerate_slowly(space)


# -- choices ---------------------------------------------------------------------------------------------------------


def test_last_of_node_is_set() -> None:
    assert [choice.last_of_node for choice in TwoOfEach().choices] == [False, False, True, False, False, False, True]
    assert all(choice.last_of_node for choice in WithoutRule().choices)


@pytest.mark.parametrize("bad", ["", "a.b"])
def test_names_that_cannot_name_a_module_are_refused(bad: str) -> None:
    with pytest.raises(ValueError, match=r"^choices: .*cannot name a module"):
        Space([Choice(bad, ("x", "y"), "n")])
    with pytest.raises(ValueError, match=r"^options of first: .*cannot name a module"):
        Space([Choice("first", ("x", bad), "n")])


def test_names_that_occur_twice_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^choices: 'first' occurs more than once"):
        Space([Choice("first", ("x",), "n"), Choice("first", ("y",), "n")])
    with pytest.raises(ValueError, match=r"^options of first: 'x' occurs more than once"):
        Space([Choice("first", ("x", "y", "x"), "n")])


def test_a_space_that_only_describes_says_so() -> None:
    with pytest.raises(SettingError, match="WithoutRule describes architectures only"):
        WithoutRule().network({})
    with pytest.raises(SettingError, match="WithoutRule does not say how"):
        WithoutRule().graph((0, 0, 0))


def test_values_are_numbers_behind_the_options() -> None:
    width = Choice("width", ("narrow", "wide"), "1", kind="value", values=(8, 16))
    part = Space([width]).restrict({"width": "wide"})
    assert part.choices[0].values == (16,)
    for wrong in ((8,), (8, 8), (8, math.inf)):
        with pytest.raises(ValueError, match="values of width"):
            dataclasses.replace(width, values=wrong)


def test_a_space_says_why_its_choices_cannot_be_relaxed() -> None:
    space = Sliced()
    assert "option of width can run" in space.no_relaxation
    assert space.restrict({"width": "3"}).no_relaxation == ""
    assert WithoutRule().no_relaxation == ""


# -- compiled from the rule ------------------------------------------------------------------------------------------


def test_size(name: str, space: Space, everything: list[Architecture]) -> None:
    assert space.size == len(everything) == SIZES[name]


def test_has_rule(name: str, space: Space) -> None:
    assert space.has_rule == (name != "free")


def test_iteration_is_lexicographic_and_complete(space: Space, everything: list[Architecture]) -> None:
    assert list(space) == everything  # which is sorted, and has nothing twice


def test_allowed_is_what_some_legal_architecture_goes_on_with(space: Space, everything: list[Architecture]) -> None:
    for length in range(len(space.choices)):
        following: dict[Architecture, set[int]] = {}
        for architecture in everything:
            following.setdefault(architecture[:length], set()).add(architecture[length])
        for prefix in combinations(space, length):
            if prefix in following:
                assert space.allowed(prefix) == tuple(sorted(following[prefix]))
            else:
                first_illegal = next(
                    k for k in range(length) if prefix[: k + 1] not in {a[: k + 1] for a in everything}
                )
                with pytest.raises(ValueError, match=f"illegal at {space.choices[first_illegal].name}$"):
                    space.allowed(prefix)


def test_allowed_needs_a_next_choice(space: Space, everything: list[Architecture]) -> None:
    with pytest.raises(ValueError, match=f"there are {len(space.choices)} choices"):
        space.allowed(everything[0])


@pytest.mark.parametrize("option", [-1, 4])
def test_allowed_refuses_a_prefix_out_of_range(option: int) -> None:
    with pytest.raises(ValueError, match="digit1"):
        DigitSum().allowed((0, option))


def test_legal(space: Space, everything: list[Architecture]) -> None:
    known = set(everything)
    assert [space.legal(combination) for combination in combinations(space)] == [
        combination in known for combination in combinations(space)
    ]
    first = everything[0]
    assert not space.legal(first[:-1])
    assert not space.legal((*first, 0))
    assert not space.legal((*first[:-1], len(space.choices[-1].options)))
    assert not space.legal((first[0] - len(space.choices[0].options), *first[1:]))  # Python would count from the end


def test_a_space_without_choices_has_one_architecture() -> None:
    space = Space([])
    assert (space.size, list(space), space.random(Random(0)), space.only) == (1, [()], (), ())


def test_only() -> None:
    space = StoppingChain()
    assert space.restrict((0, 1, 0, 2)).only == (0, 0, 0, 0)
    with pytest.raises(ValueError, match="12 architectures"):
        _ = space.only


@pytest.mark.parametrize("layers", [1, 2, 64, 200])
def test_big_sizes_are_exact(layers: int) -> None:
    free = Space([Choice(f"layer{k}", tuple("abcdefg"), "n") for k in range(layers)])
    assert free.size == 7**layers
    bits = DigitSum(layers, layers // 2).restrict({f"digit{k}": ["0", "1"] for k in range(layers)})
    assert bits.size == math.comb(layers, layers // 2)  # for 200 layers far more than the 53 bits of a float


def test_a_big_space_is_sampled_and_walked_from_the_start() -> None:
    space = DigitSum(200, 300)
    first = next(iter(space))
    assert first == (0,) * 100 + (3,) * 100  # the lexicographically first that still reaches 300
    rng = Random(0)
    for drawn in [space.random(rng), space.random(rng, by="choice"), space.mutate(first, rng)]:
        assert space.legal(drawn)
        assert sum(drawn) == 300


# -- sampling --------------------------------------------------------------------------------------------------------


def test_random_is_uniform_over_architectures(space: Space, everything: list[Architecture]) -> None:
    rng = Random(1)
    draws = Counter(space.random(rng) for _ in range(20 * len(everything)))
    assert p_value(draws, {architecture: 1 / len(everything) for architecture in everything}) > 0.001


def test_random_by_choice_is_uniform_over_allowed_options(space: Space, everything: list[Architecture]) -> None:
    probabilities = {}
    for architecture in everything:
        options = [{a[k] for a in everything if a[:k] == architecture[:k]} for k in range(len(architecture))]
        probabilities[architecture] = 1 / math.prod(len(each) for each in options)
    rng = Random(2)
    draws = Counter(space.random(rng, by="choice") for _ in range(math.ceil(6 / min(probabilities.values()))))
    assert p_value(draws, probabilities) > 0.001


def test_the_two_ways_to_draw_differ_in_a_chain() -> None:
    """By choice a third of the chains stop at once; of the 12 architectures only one does."""
    space, rng = StoppingChain(), Random(3)
    stops = sum(space.random(rng, by="choice")[0] == 2 for _ in range(3000))
    assert abs(stops - 1000) < 3 * math.sqrt(3000 * 1 / 3 * 2 / 3)
    draws = Counter(space.random(rng, by="choice") for _ in range(2000))
    assert p_value(draws, dict.fromkeys(enumerate_slowly(space), 1 / 12)) < 1e-12


def test_the_prior_says_what_is_drawn_by() -> None:
    space = StoppingChain()
    draws = {by: [space.random(Random(seed), by=by) for seed in range(20)] for by in ("architecture", "choice")}
    assert [space.random(Random(seed)) for seed in range(20)] == draws["architecture"] != draws["choice"]
    space.prior = "choice"
    assert [space.random(Random(seed)) for seed in range(20)] == draws["choice"]


def test_random_depends_on_the_generator_alone(space: Space) -> None:
    def draw(seed: int) -> list[Architecture]:
        rng = Random(seed)
        return [space.random(rng) for _ in range(10)] + [space.random(rng, by="choice") for _ in range(10)]

    assert draw(0) == draw(0)
    assert draw(0) != draw(1)


# -- mutation --------------------------------------------------------------------------------------------------------


def nearest_slowly(
    everything: list[Architecture], parent: Architecture, choice: int, option: int
) -> list[Architecture]:
    there = [architecture for architecture in everything if architecture[choice] == option]
    low = min(distance(parent, architecture) for architecture in there)
    return [architecture for architecture in there if distance(parent, architecture) == low]


def test_mutate_gives_a_nearest_legal_architecture(space: Space, everything: list[Architecture]) -> None:
    rng = Random(4)
    possible = [sorted({architecture[k] for architecture in everything}) for k in range(len(space.choices))]
    for parent in rng.sample(everything, 10):
        for choice, options in enumerate(possible):
            if options == [parent[choice]]:
                with pytest.raises(ValueError, match=f"no alternative .* in {space.choices[choice].name}$"):
                    space.mutate(parent, rng, choice)
                continue
            for _ in range(5):
                child = space.mutate(parent, rng, choice)
                assert child[choice] != parent[choice]
                assert child in nearest_slowly(everything, parent, choice, child[choice])


def test_mutate_draws_choice_option_and_ties_uniformly(space: Space, everything: list[Architecture]) -> None:
    """The whole distribution of children of one parent, by enumeration."""
    parent = everything[len(everything) // 3]
    alternatives = [sorted({a[k] for a in everything} - {parent[k]}) for k in range(len(space.choices))]
    changeable = [k for k, options in enumerate(alternatives) if options]
    probabilities: dict[Architecture, float] = {}
    for k in changeable:
        for option in alternatives[k]:
            ties = nearest_slowly(everything, parent, k, option)
            for child in ties:
                share = 1 / len(changeable) / len(alternatives[k]) / len(ties)
                probabilities[child] = probabilities.get(child, 0.0) + share
    assert sum(probabilities.values()) == pytest.approx(1)
    rng = Random(5)
    draws = Counter(space.mutate(parent, rng) for _ in range(math.ceil(6 / min(probabilities.values()))))
    assert p_value(draws, probabilities) > 0.001


def test_ties_of_a_mutation_are_uniform_where_branches_are_unequal() -> None:
    """Choosing tied options one choice after the other would favour the branch with fewer ways to continue."""
    space, parent = DigitSum(5, 6), (3, 1, 1, 1, 0)
    ties = nearest_slowly(enumerate_slowly(space), parent, 0, 1)
    assert ties == [(1, 1, 1, 1, 2), (1, 1, 1, 3, 0), (1, 1, 3, 1, 0), (1, 3, 1, 1, 0)]
    rng = Random(6)
    children = [space.mutate(parent, rng, choice=0) for _ in range(1200)]
    draws = Counter(child for child in children if child[0] == 1)
    assert p_value(draws, dict.fromkeys(ties, 1 / len(ties))) > 0.001


def test_mutate_by_hand() -> None:
    """An empty chain whose first layer becomes a convolution stops next; a pooling needs a convolution before that."""
    children = {StoppingChain().mutate((2, 3, 3, 3), Random(seed), choice=0) for seed in range(40)}
    assert children == {(0, 2, 3, 3), (1, 0, 2, 3)}


def test_mutate_refuses_what_is_no_architecture() -> None:
    with pytest.raises(ValueError, match=r"not an architecture of this space: \(0, 0, 0, 0\)"):
        DigitSum().mutate((0, 0, 0, 0), Random(0))


def test_mutate_needs_an_alternative() -> None:
    space = DigitSum().restrict((0, 0, 2, 3))
    with pytest.raises(ValueError, match="no alternative to choose from in the space"):
        space.mutate(space.only, Random(0))
    with pytest.raises(ValueError, match="no alternative to choose from in digit1"):
        space.mutate(space.only, Random(0), choice=1)


@pytest.mark.parametrize("space", [WithoutRule(), DigitSum()], ids=["without-rule", "with-rule"])
@pytest.mark.parametrize("past", [-1, 4])
def test_mutate_refuses_a_choice_out_of_range(space: Space, past: int) -> None:
    """A negative index must not count from the end: the result would be the parent, or no architecture at all."""
    with pytest.raises((ValueError, IndexError)):
        space.mutate(next(iter(space)), Random(0), choice=past)


# -- crossover -------------------------------------------------------------------------------------------------------


def test_crossover_is_the_nearest_mix_of_two_parents(space: Space, everything: list[Architecture]) -> None:
    rng = Random(7)
    for _ in range(100):
        one, other = rng.choice(everything), rng.choice(everything)
        seed = rng.random()
        child = space.crossover(one, other, Random(seed))
        drawing = Random(seed)
        wanted = [drawing.choice(pair) for pair in zip(one, other, strict=True)]
        mixes = [a for a in everything if all(o in pair for o, *pair in zip(a, one, other, strict=True))]
        far = {a: sum(o != w for o, w in zip(a, wanted, strict=True)) for a in mixes}
        assert far[child] == min(far.values())  # in particular: legal, and every option from a parent
        assert space.crossover(one, one, rng) == one


def test_crossover_takes_each_option_from_either_parent_alike() -> None:
    space, rng = WithoutRule(), Random(8)
    one, other = (0, 1, 3), (1, 1, 0)
    draws = Counter(space.crossover(one, other, rng) for _ in range(2000))
    assert p_value(draws, dict.fromkeys(itertools.product((0, 1), (1,), (3, 0)), 1 / 4)) > 0.001


def test_equally_near_mixes_are_equally_likely() -> None:
    """Of the four mixes of the first two digits, two have the sum and are left alone, and two go to either of these."""
    space, rng = DigitSum(2, 3), Random(9)
    draws = Counter(space.crossover((1, 2), (2, 1), rng) for _ in range(2000))
    assert p_value(draws, {(1, 2): 1 / 2, (2, 1): 1 / 2}) > 0.001


def test_crossover_refuses_what_is_no_architecture() -> None:
    with pytest.raises(ValueError, match="not an architecture"):
        DigitSum().crossover((0, 0, 2, 3), (0, 0, 0, 0), Random(0))


# -- scores ----------------------------------------------------------------------------------------------------------


def test_derive_is_the_best_of_all(space: Space, everything: list[Architecture]) -> None:
    rng = Random(7)
    for _ in range(20):
        scores = [[rng.gauss(0, 1) for _ in choice.options] for choice in space.choices]
        best = max(everything, key=lambda architecture: sum(scores[k][o] for k, o in enumerate(architecture)))
        assert space.derive(scores) == best


def test_derive_takes_tensors() -> None:
    scores = [torch.tensor([1.0, 2.0]), torch.tensor([0.0, 3.0, 1.0]), torch.tensor([0.0, 0.0, -1.0, 0.5])]
    assert WithoutRule().derive(scores) == (1, 1, 3)


def test_derive_gives_ties_to_the_first(space: Space, everything: list[Architecture]) -> None:
    assert space.derive([[0.0] * len(choice.options) for choice in space.choices]) == everything[0]
    rng = Random(8)
    for _ in range(20):  # scores of few values, all exact in binary: many ties
        scores = [[float(rng.randrange(2)) for _ in choice.options] for choice in space.choices]
        totals = [sum(scores[k][option] for k, option in enumerate(architecture)) for architecture in everything]
        assert space.derive(scores) == everything[totals.index(max(totals))]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_derive_refuses_scores_that_are_not_finite(space: Space, bad: float) -> None:
    scores = [[0.0] * len(choice.options) for choice in space.choices]
    scores[1][-1] = bad
    with pytest.raises(ValueError, match=f"scores of {space.choices[1].name} are not finite"):
        space.derive(scores)
    with pytest.raises(ValueError, match=f"scores of {space.choices[1].name} are not finite"):
        space.derive([torch.tensor(row) for row in scores])


@pytest.mark.parametrize("change", ["choice-short", "choice-long", "option-short", "option-long"])
def test_derive_refuses_scores_that_do_not_fit(change: str) -> None:
    scores = [[0.0] * 2, [0.0] * 3, [0.0] * 4]
    if change == "choice-short":
        scores.pop()
    elif change == "choice-long":
        scores.append([0.0])
    elif change == "option-short":
        scores[1].pop()
    else:
        scores[1].append(1.0)
    with pytest.raises(ValueError):  # noqa: PT011
        WithoutRule().derive(scores)


# -- gates -----------------------------------------------------------------------------------------------------------


def test_gates_and_one_hot() -> None:
    space = WithoutRule()
    assert space.gates((1, 0, 3)) == {"norm": 1, "width": 0, "op": 3}
    one_hot = space.one_hot((1, 0, 3), dtype=torch.float64)
    assert {name: gate.tolist() for name, gate in one_hot.items()} == {  # type: ignore[union-attr]
        "norm": [0.0, 1.0],
        "width": [1.0, 0.0, 0.0],
        "op": [0.0, 0.0, 0.0, 1.0],
    }
    assert all(gate.dtype == torch.float64 for gate in one_hot.values())  # type: ignore[union-attr]


def test_resolve_runs_what_has_a_weight() -> None:
    weights = torch.tensor([0.25, 0.0, -0.5, 0.0], requires_grad=True)
    gates = {"op": weights, "norm": 1, "width": torch.tensor([0.0, 0.0, 0.0])}
    resolved = WithoutRule().resolve(gates)
    assert list(resolved) == ["norm", "width", "op"]  # in the space's order
    assert resolved["norm"] == [("layer", None)]
    assert resolved["width"] == []
    assert [(option, weight.item()) for option, weight in resolved["op"]] == [("a", 0.25), ("c", -0.5)]  # type: ignore[union-attr]
    (gradient,) = torch.autograd.grad(sum(3 * weight for _, weight in resolved["op"]), weights)  # type: ignore[misc]
    assert gradient.tolist() == [3.0, 0.0, 3.0, 0.0]


def test_resolve_keeps_a_weight_that_is_not_a_number() -> None:
    """A diverged search must show in the loss, not as an edge that is silently left out."""
    resolved = WithoutRule().resolve({"norm": torch.tensor([math.nan, 0.0]), "width": 0, "op": 0})
    assert [option for option, _ in resolved["norm"]] == ["batch"]


def test_resolve_agrees_for_hard_and_one_hot_gates(space: Space, everything: list[Architecture]) -> None:
    for architecture in everything[::7]:
        names = [[option] for option in space.to_names(architecture).values()]
        for gates in (space.gates(architecture), space.one_hot(architecture)):
            assert [[option for option, _ in running] for running in space.resolve(gates).values()] == names


def test_a_choice_that_is_not_relaxable_has_a_one_hot_gate() -> None:
    space = Sliced()
    gates = {"operation": torch.tensor([0.2, 0.8])}
    assert space.resolve({**gates, "width": torch.tensor([0.0, 1.0, 0.0])})["width"] == [("3", None)]
    for wrong in ([0.0, 0.5, 0.5], [0.0, 0.5, 0.0], [0.0, 0.0, 0.0]):
        with pytest.raises(ValueError, match="width is not relaxable: its gate has to be one-hot"):
            space.resolve({**gates, "width": torch.tensor(wrong)})


def test_resolve_without_gates_needs_a_single_architecture() -> None:
    space = WithoutRule()
    resolved = space.restrict((1, 0, 3)).resolve(None)
    assert resolved == {"norm": [("layer", None)], "width": [("8", None)], "op": [("d", None)]}
    with pytest.raises(ValueError, match="24 architectures"):
        space.resolve(None)


def test_resolve_names_the_missing_gates() -> None:
    with pytest.raises(ValueError, match=r"no gate for norm, op$"):
        WithoutRule().resolve({"width": 0})


@pytest.mark.parametrize(
    "shape", [(2,), (4,), (1, 3), (3, 1), (0,), ()], ids=lambda shape: "x".join(map(str, shape)) or "scalar"
)
@pytest.mark.parametrize("other", [0, torch.ones(2)], ids=["beside-hard", "beside-weights"])
def test_resolve_refuses_weights_of_the_wrong_shape(shape: tuple[int, ...], other: Any) -> None:
    with pytest.raises(ValueError, match="width has 3 options"):
        WithoutRule().resolve({"norm": other, "width": torch.ones(shape), "op": 0})


@pytest.mark.parametrize("option", [-1, 3])
def test_resolve_refuses_an_option_out_of_range(option: int) -> None:
    with pytest.raises(ValueError, match="width"):
        WithoutRule().resolve({"norm": 0, "width": option, "op": 0})


# -- parts of a space ------------------------------------------------------------------------------------------------


def names_of(space: Space) -> set[tuple[str, ...]]:
    return {tuple(space.to_names(architecture).values()) for architecture in space}


def test_restrict_keeps_exactly_the_architectures_with_these_options(space: Space) -> None:
    rng, before = Random(9), names_of(space)
    tried = 0
    for _ in range(12):
        wanted = {
            choice.name: rng.sample(choice.options, rng.randint(1, len(choice.options)))
            for choice in rng.sample(space.choices, 2)
        }
        position = {choice.name: k for k, choice in enumerate(space.choices)}
        left = {names for names in before if all(names[position[c]] in options for c, options in wanted.items())}
        if not left:
            with pytest.raises(ValueError, match="no legal architecture is left"):
                space.restrict(wanted)
            continue
        tried += 1
        part = space.restrict(wanted)
        assert type(part) is type(space)
        assert names_of(part) == left
        assert part.size == len(left)
        assert all(part.legal(part.random(rng)) for _ in range(5))
        for choice, full in zip(part.choices, space.choices, strict=True):
            assert choice.options == tuple(o for o in full.options if o in wanted.get(choice.name, full.options))
    assert tried >= 3
    assert names_of(space) == before  # the space itself is as it was


def test_restrict_recompiles_what_was_compiled_before() -> None:
    fewer = {"0->3": "none", "0->4": ["none", "conv"]}
    fresh, used = TwoOfEach().restrict(fewer), TwoOfEach()
    used.mutate(used.random(Random(0)), Random(0))  # compiles everything that is kept
    part = used.restrict(fewer)
    assert part.allowed() == fresh.allowed() == (0,)
    assert part.size == fresh.size
    for seed in range(30):
        parent = part.random(Random(seed))
        assert parent == fresh.random(Random(seed))
        assert part.mutate(parent, Random(seed)) == fresh.mutate(parent, Random(seed)) != parent


def test_restrict_to_an_architecture(space: Space, everything: list[Architecture]) -> None:
    for architecture in everything[::5]:
        part = space.restrict(architecture)
        assert part.size == 1
        assert part.to_names(part.only) == space.to_names(architecture)


def test_restrict_twice_is_restrict_to_both(space: Space) -> None:
    first, second = space.choices[0], space.choices[-1]
    one = {first.name: list(first.options[-2:])}
    other = {second.name: list(second.options[-2:])}
    twice = space.restrict(one).restrict(other)
    assert names_of(twice) == names_of(space.restrict({**one, **other}))
    assert twice.spec == space.restrict({**one, **other}).spec


def test_restrict_narrows_the_sources_with_the_options() -> None:
    part = OrderedInputs().restrict({"4/first": ["s3", "s0", "s1"], "4/second": ["s3"]})
    assert part.choices[2].options == ("s0", "s1", "s3")
    assert part.choices[2].sources == (0, 1, 3)
    assert part.choices[3].sources == (3,)
    assert names_of(part) == {names for names in names_of(OrderedInputs()) if names[2] != "s2" and names[3] == "s3"}
    assert TwoOfEach().restrict({"1->3": "conv"}).choices[1].sources == (1,)  # an edge still leaves its state


def test_restrict_refuses_contradictions() -> None:
    for wanted in (
        {"0->3": "none", "1->3": "none"},  # one edge is not two
        {"0->3": "conv", "1->3": "pool", "2->3": "conv"},
        {"1->4": []},
    ):
        with pytest.raises(ValueError, match="no legal architecture is left"):
            TwoOfEach().restrict(wanted)


def test_restrict_refuses_unknown_names() -> None:
    with pytest.raises(ValueError, match="unknown choice '9->3'"):
        TwoOfEach().restrict({"0->3": "conv", "9->3": "conv"})
    with pytest.raises(ValueError, match="0->3: no option 'sconv'; it has none, conv, pool"):
        TwoOfEach().restrict({"0->3": ["conv", "sconv"]})
    with pytest.raises(ValueError, match="not an architecture of this space"):
        TwoOfEach().restrict((0,) * 7)


# -- networks --------------------------------------------------------------------------------------------------------


class Sliced(Space):
    """An operation, and how many of its outputs are used."""

    def __init__(self) -> None:
        super().__init__(
            [
                Choice("operation", ("linear", "shifted"), "1"),
                Choice("width", ("2", "3", "5"), "1", kind="value", values=(2, 3, 5), relaxable=False),
            ]
        )

    def network(self, inputs: dict[str, int], scale: float = 1.0, form: str = "search") -> "SlicedNetwork":
        return SlicedNetwork(self, inputs)


class SlicedNetwork(Network):
    def __init__(self, space: Space, inputs: dict[str, int]) -> None:
        super().__init__()
        operation, width = space.choices
        self.space, self.inputs = space, inputs
        self.layers = torch.nn.ModuleDict(
            {o: torch.nn.Linear(inputs["features"], int(max(width.values)), o == "shifted") for o in operation.options}
        )


def test_a_network_notes_its_settings() -> None:
    network = Sliced().network({"features": 2}, 0.5, form="final")
    assert network.settings == {"scale": 0.5, "form": "final"}
    assert network.inputs == {"features": 2}
    assert list(inspect.signature(Sliced().network).parameters) == ["inputs", "scale", "form"]


def test_child_state_is_what_a_child_has_of_the_weights() -> None:
    space = Sliced()
    network = space.network({"features": 2})
    random_state = torch.get_rng_state()
    state = network.child_state((1, 1))
    assert torch.equal(torch.get_rng_state(), random_state)
    layer = network.layers["shifted"]
    assert state.keys() == {"layers.shifted.weight", "layers.shifted.bias"}
    assert torch.equal(state["layers.shifted.weight"], layer.weight[:3])
    assert torch.equal(state["layers.shifted.bias"], layer.bias[:3])
    child = space.restrict((1, 1)).network({"features": 2})
    child.load_state_dict(state)
    assert torch.equal(child.layers["shifted"].weight, layer.weight[:3])


# -- encodings -------------------------------------------------------------------------------------------------------


def test_encodings_are_different_for_all_architectures(space: Space, everything: list[Architecture]) -> None:
    encoded = torch.stack([space.encode(architecture) for architecture in everything])
    assert len(encoded.unique(dim=0)) == len(everything)


def test_a_choice_with_values_is_one_number_and_any_other_one_hot() -> None:
    space = Sliced()
    assert [space.encode((0, k)).tolist() for k in range(2)] == [[1.0, 0.0, 0.0], [1.0, 0.0, pytest.approx(1 / 3)]]
    assert space.encode((1, 2)).tolist() == [0.0, 1.0, 1.0]
    part = space.restrict({"operation": "shifted", "width": ["3", "5"]})
    assert part.encode((0, 1)).tolist() == [0.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="not an architecture"):
        part.encode((1, 1))


# -- specs and copies ------------------------------------------------------------------------------------------------


def assert_same(one: Space, other: Space) -> None:
    assert type(one) is type(other)
    assert one.choices == other.choices
    assert one.size == other.size
    assert one.spec == other.spec


def test_a_space_is_rebuilt_from_its_spec(space: Space) -> None:
    rebuilt = Space.build(space.spec)
    assert_same(rebuilt, space)
    assert list(rebuilt) == list(space)


def test_a_spec_has_the_arguments_and_the_restriction() -> None:
    space = StoppingChain(3)
    assert space.spec == {"class_path": f"{__name__}.StoppingChain", "init_args": {"layers": 3}}
    part = space.restrict({"layer0": "conv", "layer1": ["pool", "conv", "stop", "absent"]})
    assert part.spec == {**space.spec, "restrict": {"layer0": ["conv"]}}  # layer1 has lost nothing


def test_a_restricted_space_survives_any_number_of_rebuilds() -> None:
    part = StoppingChain().restrict({"layer0": ["conv", "pool"]}).restrict({"layer1": "conv"})
    again = Space.build(part.spec)
    assert_same(again, part)
    assert_same(Space.build(again.spec), part)
    child = again.restrict(again.random(Random(0)))
    assert_same(Space.build(child.spec), child)


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda space: pickle.loads(pickle.dumps(space))],
    ids=["copy", "deepcopy", "pickle"],
)
@pytest.mark.parametrize("rebuilt", [False, True], ids=["", "rebuilt"])
def test_copies_are_the_same_space(space: Space, copied: Any, rebuilt: bool) -> None:
    space = Space.build(space.spec) if rebuilt else space
    assert_same(copied(space), space)
    assert list(copied(space)) == list(space)


# -- names -----------------------------------------------------------------------------------------------------------


def test_names_round_trip(space: Space, everything: list[Architecture]) -> None:
    for architecture in everything:
        names = space.to_names(architecture)
        assert list(names) == [choice.name for choice in space.choices]
        assert [choice.options.index(names[choice.name]) for choice in space.choices] == list(architecture)
        assert space.from_names(dict(reversed(names.items()))) == architecture  # whatever the order in the file


def test_to_names_refuses_what_is_no_architecture() -> None:
    for bad in [(0, 0, 0, 0), (0, 0, 2), (0, 0, 2, 3, 0), (0, 0, 2, 4), (-1, 0, 2, 0)]:
        with pytest.raises(ValueError, match="not an architecture of this space"):
            DigitSum().to_names(bad)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer9": "conv"}, "choices.layer9: StoppingChain has no such choice"),
        ({"layer2": None}, "choices.layer2: missing"),
        ({"layer1": "sconv"}, "choices.layer1: no option 'sconv'; it has conv, pool, stop, absent"),
        ({"layer1": 0}, "choices.layer1: no option 0; it has"),
        ({"layer1": ["conv"]}, r"choices.layer1: no option \['conv'\]; it has"),
        ({"layer3": "conv"}, "choices.layer3: conv is illegal after the choices before it"),
        ({"layer0": "absent"}, "choices.layer0: absent is illegal after the choices before it"),
        ({"layer2": "pool"}, "choices.layer3: stop is illegal|choices.layer3: absent is illegal"),
    ],
    ids=["unknown", "missing", "option", "number", "list", "illegal-last", "illegal-first", "illegal-later"],
)
def test_from_names_says_which_choice_is_wrong(change: dict[str, Any], message: str) -> None:
    names: dict[str, Any] = {"layer0": "conv", "layer1": "conv", "layer2": "stop", "layer3": "absent"} | change
    with pytest.raises(ValueError, match=f"^{message}"):
        StoppingChain().from_names({name: option for name, option in names.items() if option is not None})


def test_hostile_names_are_cut_in_the_message() -> None:
    names = {"norm": "batch", "width": "8", "op": "a"}
    for hostile in ({**names, "x" * 10_000: "a"}, {**names, "op": "x" * 10_000}):
        with pytest.raises(ValueError, match=r"^choices") as error:
            WithoutRule().from_names(hostile)
        assert len(str(error.value)) < 200


def test_describe() -> None:
    assert WithoutRule().describe((1, 0, 3)) == "norm: layer, width: 8, op: d"
