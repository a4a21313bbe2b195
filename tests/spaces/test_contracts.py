"""What holds for every space with a network. A new space is covered by being listed in ``CASES``."""

import pytest

from lightning_nas.spaces import (
    DARTSCell,
    DARTSRecurrentCell,
    ENASMacro,
    ENASMicro,
    ENASRecurrentCell,
    NASBench201,
    NASNetCell,
    ProxylessMobile,
    ShuffleBlocks,
)
from lightning_nas.spaces.own.space import OwnSpace
from lightning_nas.testing import SpaceCase, SpaceContract
from lightning_nas.testing.space import IMAGES
from tests.helpers.own_networks import OWN

SMALL = {"channels": 4, "cells": 4}
TEXT = {"vocabulary": 11}
SEARCH = ("search",)


def own(name, restrict=None, **settings):
    """A network of a user's own."""
    space = OWN[name].space()
    return SpaceCase(space.restrict(restrict) if restrict else space, {}, OWN[name].inputs, SEARCH, **settings)


CASES = {
    "darts": SpaceCase(DARTSCell(), {"channels": 4, "cells": 4}),
    "darts-drop-path": SpaceCase(DARTSCell(nodes=2), {"channels": 2, "cells": 3}, drop_path=0.4),
    "darts-normal-only": SpaceCase(DARTSCell(kinds=["normal"]), {"channels": 4, "cells": 2, "auxiliary": True}),
    "darts-3-nodes-few-operations": SpaceCase(
        DARTSCell(nodes=3, operations=["skip_connect", "none", "avg_pool_3x3", "conv_7x1_1x7"]),
        {"channels": 2, "cells": 3, "stem": "imagenet"},
        {**IMAGES, "channels": 1, "image_size": 17},
    ),
    "darts-restricted": SpaceCase(
        DARTSCell(nodes=3).restrict({"normal/0->2": ["none", "dil_conv_5x5"], "reduce/1->2": ["max_pool_3x3"]}),
        {"channels": 2, "cells": 3},
    ),
    "darts-sparse": SpaceCase(DARTSCell(nodes=2, sparse=True), {"channels": 2, "cells": 3}),
    "darts-edge-all": SpaceCase(DARTSCell(nodes=2, kept=None), {"channels": 2, "cells": 3, "pool_norm": True}),
    "nasnet": SpaceCase(NASNetCell(nodes=3, operations=["skip_connect", "sep_conv_3x3", "max_pool_3x3"]), SMALL),
    "nasnet-drop-path": SpaceCase(
        NASNetCell(nodes=2, operations=["skip_connect", "avg_pool_3x3"]), {"channels": 2, "cells": 3}, drop_path=0.4
    ),
    "nasnet-restricted": SpaceCase(
        NASNetCell(kinds=["normal"], nodes=3, operations=["skip_connect", "conv_7x1_1x7"]).restrict(
            {"normal/3/input_1": "2", "normal/4/input_2": ["0", "3"]}
        ),
        {"channels": 4, "cells": 2, "stem": "imagenet"},
        {**IMAGES, "image_size": 17},
    ),
    "nas-bench-201": SpaceCase(NASBench201(), {"channels": 3, "cells": 1}),
    "enas-macro": SpaceCase(ENASMacro(layers=6), {"channels": 2}),
    "enas-macro-drop-path": SpaceCase(
        ENASMacro(layers=6, operations=["sep_conv_5x5", "conv_3x3", "max_pool_3x3"]), {"channels": 3}, drop_path=0.4
    ),
    "enas-macro-restricted": SpaceCase(
        ENASMacro(layers=6).restrict({"4/operation": "avg_pool_3x3", "5/skip_0": "off", "6/skip_2": "on"}),
        {"channels": 2, "dropout": 0.0},
        {**IMAGES, "channels": 1, "image_size": 7},
    ),
    "mobile": SpaceCase(
        ProxylessMobile(first=(4, 4), widths=(4, 6), blocks=(2, 2), strides=(1, 2), stem_stride=1, last=8), {}
    ),
    "mobile-drop-path": SpaceCase(
        ProxylessMobile((3, 2), (2, 4), (2, 1), (1, 2), 2, 5, ["mbconv6_7x7", "mbconv3_3x3"]),
        {"dropout": 0.3},
        {**IMAGES, "channels": 1, "image_size": 9},
        drop_path=0.4,
    ),
    "mobile-restricted": SpaceCase(
        ProxylessMobile((4, 4), (4, 6), (2, 2), (1, 2), 1, 8).restrict(
            {"block_1": "zero", "block_2": ["mbconv3_5x5", "zero"], "block_3": ["mbconv6_3x3", "mbconv3_7x7"]}
        ),
        {},
    ),
    "shuffle": SpaceCase(ShuffleBlocks(4, (8, 12), (2, 2), (1, 2), 1, 8), {"dropout": 0.0}),
    "shuffle-drop-path": SpaceCase(
        ShuffleBlocks(4, (10, 12), (3, 1), (2, 1), 2, 16, ["shuffle_x", "shuffle_7x7"]),
        {},
        {**IMAGES, "channels": 1, "image_size": 9},
        drop_path=0.4,
    ),
    "shuffle-scales": SpaceCase(
        ShuffleBlocks(4, (8, 12), (2, 2), (1, 2), 1, 8, scales=(0.5, 1.0, 1.25)), {"dropout": 0.0}
    ),
    "shuffle-scales-restricted": SpaceCase(
        ShuffleBlocks(4, (8, 12), (2, 1), (2, 1), 1, 8, ["shuffle_3x3", "shuffle_x"], (0.5, 1.0, 1.5)).restrict(
            {"scale_1": "100%", "scale_2": ["50%", "100%"], "block_3": "shuffle_x"}
        ),
        {},
    ),
    "enas-micro": SpaceCase(ENASMicro(nodes=3), {"channels": 2, "layers": 1}),
    "enas-micro-factorized": SpaceCase(
        ENASMicro(nodes=2, operations=["sep_conv_3x3", "skip_connect", "max_pool_3x3"]),
        {"channels": 3, "layers": 3, "reduction": "factorized", "dropout": 0.0},
        {**IMAGES, "image_size": 9},
    ),
    "enas-micro-strided-drop-path": SpaceCase(
        ENASMicro(nodes=2, operations=["skip_connect", "avg_pool_3x3", "dil_conv_3x3"]),
        {"channels": 2, "layers": 3, "reduction": "strided"},
        {**IMAGES, "image_size": 9},
        drop_path=0.4,
    ),
    "enas-micro-restricted": SpaceCase(
        ENASMicro(nodes=3, operations=["skip_connect", "none", "max_pool_3x3"]).restrict(
            {"normal/3/input_1": "1", "normal/4/input_2": ["0", "3"], "reduce/3/input_2": "0", "reduce/2/input_1": "1"}
        ),
        {"channels": 2, "layers": 1},
    ),
    "enas-micro-auxiliary": SpaceCase(
        ENASMicro(nodes=2, operations=["skip_connect", "sep_conv_3x3"]),
        {"channels": 2, "layers": 1, "auxiliary": True},
        {**IMAGES, "image_size": 32},
    ),
    "nas-bench-201-drop-path": SpaceCase(NASBench201(), {"channels": 2, "cells": 1}, drop_path=0.4),
    "darts-rnn": SpaceCase(DARTSRecurrentCell(), {"hidden": 6, "word_dropout": 0.1}, TEXT, all_shared=True),
    "darts-rnn-restricted": SpaceCase(
        DARTSRecurrentCell(nodes=5, operations=["relu", "none", "identity", "tanh"]).restrict(
            {"0->2": ["none", "tanh"], "1->3": "relu", "2->4": "none", "0->5": "none", "2->5": ["relu", "identity"]}
        ),
        {"hidden": 5, "hidden_dropout": 0.0},
        TEXT,
        all_shared=True,
    ),
    "enas-rnn": SpaceCase(ENASRecurrentCell(nodes=7), {"hidden": 5}, TEXT),
    "enas-rnn-plain": SpaceCase(
        ENASRecurrentCell(nodes=5, activations=["identity", "relu", "tanh"], highway=False), {"hidden": 5}, TEXT
    ),
    "enas-rnn-by-activation": SpaceCase(
        ENASRecurrentCell(nodes=4, share="pair_and_activation"), {"hidden": 5, "batch_norm": False}, TEXT
    ),
    "enas-rnn-by-activation-restricted": SpaceCase(
        ENASRecurrentCell(nodes=6, share="pair_and_activation", highway=False).restrict(
            {"1/activation": "relu", "2/input": "0", "4/input": ["1", "3"], "5/activation": ["tanh", "sigmoid"]}
        ),
        {"hidden": 6, "word_dropout": 0.0, "input_dropout": 0.0, "hidden_dropout": 0.0, "output_dropout": 0.0},
        TEXT,
    ),
    "own-example": own("example"),
    "own-nested": own("nested"),
    "own-nested-restricted": own("nested", {"block": ["deep", "same"], "block/deep/2/pair/0": ["1", "2"]}),
    "own-shared": own("shared"),
    "own-inputs": own("inputs", all_shared=True),
    "own-repeated": own("repeated"),
    "own-widths": own("widths", all_shared=True),
    "own-widths-restricted": own("widths", {"width": ["4", "5"], "kernel": ["1", "5"], "along": "3"}, all_shared=True),
    "own-transformer": own("transformer"),
    "own-recurrent": own("recurrent", one_graph=False),
    "own-built": SpaceCase(OwnSpace(OWN["nested"].network()), {}, OWN["nested"].inputs, SEARCH, drawn=False),
}


VARIANTS = {
    *("darts-normal-only", "darts-restricted", "darts-edge-all", "darts-sparse", "darts-drop-path"),
    *("enas-micro-factorized", "enas-micro-auxiliary", "enas-micro-strided-drop-path", "enas-macro-restricted"),
    *("own-nested-restricted", "own-widths-restricted", "own-shared", "own-repeated", "own-inputs"),
}
"""Cases whose space has another one in the fast suite."""


class TestSpaces(SpaceContract):
    cases = {name: case for name, case in CASES.items() if name not in VARIANTS}  # noqa: RUF012


@pytest.mark.slow
class TestVariants(SpaceContract):
    cases = {name: CASES[name] for name in sorted(VARIANTS)}  # noqa: RUF012
