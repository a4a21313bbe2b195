"""Scores beside those that NASLib published for cells of NAS-Bench-201 on CIFAR-10."""

import ast
import gzip
import json
import os
from pathlib import Path

import pytest

from lightning_nas import NASBench201, Proposal, SynFlow, ZeroCost

FILE = Path(os.environ.get("LIGHTNING_NAS_DATA", "nowhere")) / "zerocost_nasbench201.json.gz"
EDGES = ("0->1", "0->2", "0->3", "1->2", "1->3", "2->3")
OPERATIONS = ("skip_connect", "none", "nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3")


@pytest.mark.skipif(not FILE.is_file(), reason="LIGHTNING_NAS_DATA names no folder with zerocost_nasbench201.json.gz")
def test_synflow_is_the_published_one_but_for_the_weights_drawn():
    published = json.loads(gzip.decompress(FILE.read_bytes()))["nasbench201"]["cifar10"]
    space, evaluator = NASBench201(), ZeroCost(SynFlow())
    evaluator.open(space, None)
    for number, (name, known) in enumerate(list(published.items())[:12]):
        options = [OPERATIONS[digit] for digit in ast.literal_eval(name)]
        found = evaluator(Proposal(space.from_names(dict(zip(EDGES, options, strict=True)))), number).metrics
        assert found["n_params"] == pytest.approx(1e6 * known["params"], abs=0.5)
        assert found["synflow"] == pytest.approx(known["synflow"], abs=0.3)
