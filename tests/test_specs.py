"""Specs: what an object says about how it was made must rebuild it, from plain values only."""

import copy
import io
import pickle
import sys
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import nn

from lightning_nas.errors import SettingError
from lightning_nas.spaces import DARTSCell, Space
from lightning_nas.specs import Configurable, check_arguments, class_path, subclasses


class Leaf(Configurable):
    def __init__(self, size: int, rate: float = 0.5, names: tuple[str, ...] = ("a", "b")) -> None:
        self.size, self.rate, self.names = size, rate, tuple(names)


class Tree(Configurable):
    """Takes its leaf as an object or as a spec, as every class of the package does."""

    def __init__(self, leaf: Any, settings: dict[str, Any] | None = None, others: Any = ()) -> None:
        self.leaf, self.settings, self.others = Leaf.build(leaf), settings, [Leaf.build(other) for other in others]


class Base(Configurable):
    def __init__(self, depth: int = 2, width: int = 8) -> None:
        self.depth, self.width = depth, width


class PassesOn(Base):
    """Hands what it does not know to its parent, and has another default for the width."""

    def __init__(self, height: int = 5, width: int = 16, **kwargs: Any) -> None:
        super().__init__(width=width, **kwargs)
        self.height = height


class Fixes(Base):
    """Leaves its users no say in the parent's arguments."""

    def __init__(self, height: int = 5) -> None:
        super().__init__(depth=7)
        self.height = height


class Network(Configurable, nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)


class NoArguments(Configurable):
    pass


class Outer:
    class Inner(Configurable):
        def __init__(self, size: int = 1) -> None:
            self.size = size


def test_a_spec_has_the_arguments_and_the_defaults() -> None:
    expected = {"size": 3, "rate": 0.5, "names": ["a", "b"]}
    assert Leaf(3).spec == {"class_path": f"{__name__}.Leaf", "init_args": expected}
    assert Leaf(rate=0.25, size=4, names=("c",)).spec["init_args"] == {"size": 4, "rate": 0.25, "names": ["c"]}
    assert Leaf(4, 0.25, ("c",)).spec == Leaf(rate=0.25, size=4, names=["c"]).spec


def test_a_class_of_the_package_has_its_short_path() -> None:
    assert class_path(DARTSCell) == "lightning_nas.DARTSCell"
    assert class_path(Space) == "lightning_nas.Space"
    assert class_path(Configurable) == "lightning_nas.specs.Configurable"


def test_nested_objects_become_nested_specs_and_are_rebuilt() -> None:
    tree = Tree(Leaf(3), {"decay": [0.1, None, True], "deep": {"leaf": Leaf(1)}}, [Leaf(5), Leaf(6, rate=0.75)])
    spec = tree.spec
    assert spec["init_args"]["leaf"] == Leaf(3).spec
    assert spec["init_args"]["settings"] == {"decay": [0.1, None, True], "deep": {"leaf": Leaf(1).spec}}
    rebuilt = Configurable.build(spec)
    assert isinstance(rebuilt, Tree)
    assert (rebuilt.leaf.size, [leaf.size for leaf in rebuilt.others], rebuilt.others[1].rate) == (3, [5, 6], 0.75)
    assert rebuilt.spec == spec


def test_an_object_is_built_from_a_spec_without_arguments() -> None:
    assert Base.build({"class_path": f"{__name__}.Base"}).spec == Base(2, 8).spec


def test_an_instance_is_returned_as_it_is() -> None:
    leaf = Leaf(3)
    assert Configurable.build(leaf) is leaf
    assert Leaf.build(leaf) is leaf


def test_arguments_that_reach_the_parent_through_kwargs_are_recorded() -> None:
    made = PassesOn(depth=9)
    assert made.spec["init_args"] == {"height": 5, "depth": 9, "width": 16}
    assert PassesOn().spec["init_args"] == {"height": 5, "depth": 2, "width": 16}  # the child's default, not 8
    rebuilt = Base.build(made.spec)
    assert (type(rebuilt), rebuilt.depth, rebuilt.width) == (PassesOn, 9, 16)
    assert rebuilt.spec == made.spec


def test_defaults_of_a_parent_that_cannot_be_reached_are_not_recorded() -> None:
    made = Fixes(height=6)
    assert made.spec["init_args"] == {"height": 6}
    rebuilt = Fixes.build(made.spec)
    assert (rebuilt.height, rebuilt.depth) == (6, 7)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (torch.zeros(2), "Tensor"),
        (nn.ReLU(), "ReLU"),
        ({"deep": [1, {2.0}]}, "set"),
        (len, "builtin_function_or_method"),
        (1j, "complex"),
        (DARTSCell, "type"),
    ],
    ids=["tensor", "module", "nested-set", "function", "complex", "class"],
)
def test_a_value_that_is_not_plain_is_refused_by_name(value: Any, kind: str) -> None:
    tree = Tree(Leaf(1), settings=value)
    with pytest.raises(TypeError, match=rf"^settings: .*\b{kind}\b"):
        _ = tree.spec


@pytest.mark.parametrize("value", [np.float64(0.25), np.str_("x")], ids=["float64", "str_"])
def test_numpy_values_do_not_get_into_a_checkpoint(value: Any) -> None:
    """They are subclasses of float and str, but ``weights_only=True`` refuses them: plain or refused, never kept."""
    file = io.BytesIO()
    torch.save(Tree(Leaf(1), settings={"value": value}).spec, file)
    file.seek(0)
    assert torch.load(file, weights_only=True)["init_args"]["settings"] == {"value": value.item()}


def test_a_spec_loads_with_weights_only() -> None:
    spec = Tree(Leaf(3), {"decay": [0.1, None, True]}, [Leaf(5)]).spec
    file = io.BytesIO()
    torch.save({"hyper_parameters": spec}, file)
    file.seek(0)
    assert torch.load(file, weights_only=True) == {"hyper_parameters": spec}


@pytest.mark.parametrize(
    "spec",
    [
        None,
        3,
        "Leaf",
        {},
        {"init_args": {"size": 1}},
        [1],
        *({"class_path": path} for path in (None, 3, "", ["x"], {})),
    ],
    ids=repr,
)
def test_build_refuses_what_is_no_spec(spec: Any) -> None:
    with pytest.raises(SettingError, match="Leaf"):
        Leaf.build(spec)


def test_build_refuses_an_object_of_another_class() -> None:
    with pytest.raises(SettingError, match="expected a Space or its spec"):
        Space.build(Leaf(1))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "path",
    [f"{__name__}.Leaf", "torch.nn.Linear", "os.system", "lightning_nas.specs.Configurable"],
    ids=["sibling", "module", "function", "parent"],
)
def test_build_refuses_a_class_that_is_no_subclass(path: str) -> None:
    with pytest.raises(SettingError, match=f"{path} is not a Space"):
        Space.build({"class_path": path, "init_args": {}})


def test_build_imports_nothing() -> None:
    """A spec may come from anyone's file, and to import a module is to run it."""
    assert "this" not in sys.modules
    with pytest.raises(SettingError, match=r"this\.Space is not a Space"):
        Space.build({"class_path": "this.Space", "init_args": {}})
    assert "this" not in sys.modules


def test_an_unknown_argument_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="sise"):
        Leaf(sise=1)  # type: ignore[call-arg]
    with pytest.raises((TypeError, SettingError), match="sise"):
        Leaf.build({"class_path": f"{__name__}.Leaf", "init_args": {"size": 1, "sise": 1}})
    with pytest.raises(TypeError, match="size"):
        Leaf()  # type: ignore[call-arg]


def test_a_class_without_arguments_takes_none() -> None:
    assert NoArguments().spec == {"class_path": f"{__name__}.NoArguments", "init_args": {}}
    with pytest.raises(TypeError):
        NoArguments(3)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        NoArguments(size=3)  # type: ignore[call-arg]


def test_a_class_inside_a_class_is_rebuilt() -> None:
    rebuilt = Configurable.build(Outer.Inner(4).spec)
    assert (type(rebuilt), rebuilt.spec) == (Outer.Inner, Outer.Inner(4).spec)


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))],
    ids=["copy", "deepcopy", "pickle"],
)
@pytest.mark.parametrize(
    "made", [Leaf(3, rate=0.1), PassesOn(depth=9), Tree(Leaf(3)), Network(4)], ids=lambda m: type(m).__name__
)
def test_copies_keep_the_spec(made: Configurable, copied: Any) -> None:
    copy_of_it = copied(made)
    assert copy_of_it is not made
    assert copy_of_it.spec == made.spec


def test_a_torch_module_can_be_configurable() -> None:
    network = Network.build({"class_path": f"{__name__}.Network", "init_args": {"width": 4}})
    assert network.linear.weight.shape == (4, 4)
    assert network.spec["init_args"] == {"width": 4}
    assert set(network.state_dict()) == {"linear.weight", "linear.bias"}  # the arguments are no weights


# -- arguments against a signature -----------------------------------------------------------------------------------


def settings(
    inputs: dict[str, int], channels: int = 16, form: Literal["search", "final"] = "search", rate: float = 0.1
) -> None:
    """A function as the networks' builders are."""


def test_arguments_are_checked_and_converted() -> None:
    assert check_arguments(settings, {}, "network") == {}
    checked = check_arguments(settings, {"rate": 1, "form": "final", "channels": 8}, "network", skip={"inputs"})
    assert checked == {"rate": 1.0, "form": "final", "channels": 8}
    assert type(checked["rate"]) is float
    assert check_arguments(Leaf, {"size": 3, "names": ["a"]}, "leaf")["names"] in (("a",), ["a"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"chanels": 8}, r"^network\.chanels: no such setting; there are channels, form, rate$"),
        ({"inputs": {"channels": 3}}, r"^network\.inputs: no such setting; there are channels, form, rate$"),
        ({"channels": "many"}, r"^network\.channels: expected int, got 'many'$"),
        ({"channels": 8.5}, r"^network\.channels: expected int, got 8.5$"),
        ({"channels": None}, r"^network\.channels: expected int, got None$"),
        ({"form": "finall"}, r"^network\.form: expected search or final, got 'finall'$"),
        ({"rate": [0.1]}, r"^network\.rate: expected float, got \[0\.1\]$"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        check_arguments(settings, arguments, "network", skip={"inputs"})


def test_subclasses_of_subclasses_are_found() -> None:
    assert set(subclasses(Base)) == {PassesOn, Fixes}
    assert {Base, PassesOn, Fixes, Outer.Inner, DARTSCell} < set(subclasses(Configurable))
