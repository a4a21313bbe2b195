"""Published architectures as data: what is said of each is so."""

import pytest
import torch

from lightning_nas.costs.profile import profile
from lightning_nas.files import packaged_configs
from lightning_nas.spaces import PUBLISHED


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_network_of_that_size_has_these_costs(name):
    published = PUBLISHED[name]
    space, architecture, _ = published.build()
    with torch.device("meta"):
        network = space.restrict(architecture).network(dict(space.usual_inputs), form="final", **published.size)
        costs = profile(network, network.example())
    assert costs.n_params == published.n_params
    assert published.multiply_adds in (None, costs.multiply_adds)


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_is_an_architecture_of_its_space(name):
    space, architecture, citation = PUBLISHED[name].build()
    assert space.legal(architecture)
    assert space.from_names(space.to_names(architecture)) == architecture
    assert str(PUBLISHED[name].year) in citation


@pytest.mark.parametrize("name", PUBLISHED)
def test_its_line_says_how_to_retrain_it(name):
    published = PUBLISHED[name]
    assert published.config in packaged_configs()
    assert published.describe().startswith(published.citation)
    assert f"{published.n_params:,} parameters" in published.describe()
    assert published.describe().endswith(published.config)
