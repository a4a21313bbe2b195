"""The contracts on classes of a user's own: they pass what is right and fail what is wrong."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = """
import random

from lightning_nas.testing import MethodCase, MethodContract, SpaceCase, SpaceContract, StrategyCase, StrategyContract
from lightning_nas import ImageClassification
from my_package import LastFirst, MySearch, Stripes, TwoLayers, TwoLayersNetwork

INPUTS = {"channels": 1, "image_size": 6, "num_classes": 2}


class TestMySpace(SpaceContract):
    cases = {"two layers": SpaceCase(TwoLayers(), {"channels": 2}, INPUTS)}


class TestMyStrategy(StrategyContract):
    cases = {"last first": StrategyCase(LastFirst, TwoLayers(), seeded=False)}


class TestMyMethod(MethodContract):
    def build(**settings):
        few = {"n_candidates": 2, "n_batches": 1, "n_finalists": 1, "network": {"channels": 2}}
        return MySearch(TwoLayers(), ImageClassification(), **few | settings)

    cases = {
        "my search": MethodCase(
            build, lambda workers: Stripes(16), weight_steps=8, architecture_steps=0, neither=("steps",)
        )
    }


class Leaky(TwoLayersNetwork):
    def forward(self, x, gates=None, drop_path=0.0):
        out = super().forward(x, gates, drop_path)
        return out + 1e-3 * sum(layer.weight.sum() for layer in self.layers.values())  # of those that do not run too


class LeakySpace(TwoLayers):
    def network(self, inputs, form="search", channels=4):
        return Leaky(self, inputs, channels)


class Forgetful(LastFirst):
    rng = random.Random(0)

    def propose(self, number):
        return self.space.random(self.rng)  # what it draws depends on what was drawn before


class TestWrongSpace(SpaceContract):
    cases = {"leaky": SpaceCase(LeakySpace(), {"channels": 2}, INPUTS)}


class TestWrongStrategy(StrategyContract):
    cases = {"forgetful": StrategyCase(Forgetful, TwoLayers())}
"""


def test_they_pass_what_is_right_and_fail_what_is_wrong(tmp_path):
    (tmp_path / "test_mine.py").write_text(TESTS)
    own = ROOT / "tests" / "helpers" / "own_folder"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", "test_mine.py"]
    ran = subprocess.run(
        [*command, "-rA", "-o", f"pythonpath={own} {ROOT}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    lines = ran.stdout.splitlines()
    passed = [line for line in lines if line.startswith("PASSED")]
    failed = [line for line in lines if line.startswith("FAILED")]
    assert ran.returncode == 1, ran.stdout[-3000:]
    assert {line.split("::")[1] for line in failed} == {"TestWrongSpace", "TestWrongStrategy"}, ran.stdout[-3000:]
    right = ("TestMySpace", "TestMyStrategy", "TestMyMethod")
    counts = {name: sum(f"::{name}::" in line for line in passed) for name in right}
    assert counts == {"TestMySpace": 20, "TestMyStrategy": 8, "TestMyMethod": 5}
    assert any("test_child_hard_path_and_one_hot_gates_are_the_same_function" in line for line in failed)
