"""P-DARTS: its stages, how dropout falls, which operations go, and how few skips are kept."""

import math
from itertools import combinations
from random import Random

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_nas.callbacks import ArchitectureLogger
from lightning_nas.errors import SettingError
from lightning_nas.methods import PDARTS, load_search
from lightning_nas.methods.p_darts import derive_with_few_skips, skip_dropout_at
from lightning_nas.operations import DARTS_OPERATIONS
from lightning_nas.spaces import DARTSCell, ENASMicro, NASBench201
from lightning_nas.spaces.architecture_file import load_architecture
from lightning_nas.spaces.published import PUBLISHED
from lightning_nas.tasks import ImageClassification
from lightning_nas.training import SGD, Adam, Cosine
from tests.helpers.methods import Planted, digits, pdarts, snapshot, trainer

INPUTS = {"channels": 3, "image_size": 32, "num_classes": 10}


def candidates(method):
    """For each choice the operations that have a weight, in the order of the space."""
    return {
        choice.name: [option for option, there in zip(choice.options, row, strict=False) if there]
        for choice, row in zip(method.space.choices, method.present.tolist(), strict=True)
    }


def count(switches, channels, cells, classes=10):
    """The parameters of a search network from its operations alone: convolutions without bias, no scale and shift but
    the stem's."""

    def operation(name, width, stride):
        size = int(name[-1]) ** 2 if "conv" in name else 0
        if name == "skip_connect":
            return width**2 if stride == 2 else 0
        return {"sep": 2, "dil": 1}.get(name[:3], 0) * (size * width + width**2)

    total = 3 * channels * (9 * 3 + 2)  # the stem
    before_last = last = 3 * channels
    for k in range(cells):
        kind = "reduce" if k in (cells // 3, 2 * cells // 3) else "normal"
        channels *= 2 if kind == "reduce" else 1
        total += (before_last + last) * channels
        for name, options in switches.items():
            if name.startswith(kind):
                source = int(name.split("/")[1].split("->")[0])
                total += sum(operation(o, channels, 2 if kind == "reduce" and source < 2 else 1) for o in options)
        before_last, last = last, 4 * channels
    return total + (last + 1) * classes


# -- stages ----------------------------------------------------------------------------------------------------------


def test_the_papers_stages():
    method = PDARTS(DARTSCell(), ImageClassification(), {"channels": 16}, INPUTS)
    torch.manual_seed(0)
    drawn = []
    for number, (cells, n_operations) in enumerate([(5, 8), (11, 5), (17, 3)]):
        assert (method.stage, len(method.network.cells), method.n_epochs) == (number, cells, 25)
        now = candidates(method)
        assert [len(options) for options in now.values()] == [n_operations] * 28
        assert sum(p.numel() for p in method.network.parameters()) == count(now, 16, cells)
        weights = method.probabilities().detach()
        assert ((weights > 0).sum(1) == n_operations).all()
        assert weights.sum(1).tolist() == pytest.approx([1.0] * 28)
        drawn.append(method.alphas.detach()[:, :3].clone())
        assert float(method.alphas.detach()[method.present].std()) == pytest.approx(1e-3, rel=0.25)
        with torch.no_grad():
            method.alphas.normal_()
        if number < 2:
            logits = [row[there].tolist() for row, there in zip(method.alphas.detach(), method.present, strict=True)]
            method.next_stage()
            for (name, options), values in zip(now.items(), logits, strict=True):
                ranked = sorted(zip(values, options, strict=True), reverse=True)
                assert set(candidates(method)[name]) == {option for _, option in ranked[: (5, 3)[number]]}
    assert not any(torch.equal(a, b) for a, b in combinations(drawn, 2))  # new alphas, not those of the stage before
    assert sum("none" not in options for options in candidates(method).values()) > 5
    architecture = method.best()
    assert [name != "none" for name in method.space.to_names(architecture).values()].count(True) == 16


def test_the_optimisers_are_the_papers():
    method = PDARTS(DARTSCell(), ImageClassification())
    assert method.optimizer.spec == SGD(0.025, 0.9, False, 3e-4, Cosine(0.0), 5.0).spec
    assert method.alphas_optimizer.spec == Adam(6e-4, (0.5, 0.999), weight_decay=1e-3, clip=5.0).spec
    assert [stage.epochs for stage in method.stages] == [25] * 3
    assert (method.warmup_epochs, method.max_skips) == (10, 2)


class Record(pl.Callback):
    """By epoch, with what dropout the network runs, and whether the alphas move."""

    def __init__(self):
        self.dropout, self.moved = {}, {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.before = pl_module.alphas.detach().clone()
        if not pl_module.network._forward_pre_hooks:  # a new one

            def note(module, args, kwargs):
                if module.training:
                    self.dropout.setdefault(trainer.current_epoch, set()).add(kwargs.get("skip_dropout"))

            pl_module.network.register_forward_pre_hook(note, with_kwargs=True)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        moved = not torch.equal(self.before, pl_module.alphas.detach())
        self.moved.setdefault(trainer.current_epoch, set()).add(moved)


def test_dropout_and_the_alphas_follow_the_epoch_of_the_stage():
    record = Record()
    stages = {"stages": [{"cells": 1}, {"cells": 2}], "operations": [2], "skip_dropout": [0.0, 0.6]}
    method = PDARTS(
        DARTSCell(nodes=1), ImageClassification(), {"channels": 2}, **stages, epochs=3, warmup_epochs=1, max_skips=None
    )
    trainer(max_epochs=6, callbacks=[record]).fit(method, digits())
    later = {3: {0.6 * 2 / 3}, 4: {0.6}, 5: {0.6 * math.exp(-0.2)}}
    assert record.dropout == {0: {None}, 1: {None}, 2: {None}} | later  # with a rate of 0 there is no dropout
    assert record.moved == {epoch: {epoch % 3 > 0} for epoch in range(6)}


def test_how_dropout_falls():
    values = [skip_dropout_at(0.7, epoch, 25, 10) for epoch in (0, 9, 10, 24)]
    assert values == pytest.approx([0.672, 0.42, 0.7, 0.7 * math.exp(-2.8)])
    assert [skip_dropout_at(0.0, epoch, 25, 10) for epoch in range(25)] == [0.0] * 25


# -- few skips -------------------------------------------------------------------------------------------------------


def few_skips_by_hand(switches, weights, limit):
    """The released code's way, edge by edge: ``none`` counts nothing, an edge is its strongest operation, a node keeps
    its two strongest edges; while there are too many skips the weakest kept one counts nothing."""
    weights = {edge: {o: 0.0 if o == "none" else w for o, w in row.items()} for edge, row in weights.items()}
    while True:
        best = {edge: max((o for o in switches[edge] if o != "none"), key=weights[edge].get) for edge in switches}
        kept = []
        for node in range(2, 6):
            into = [(source, node) for source in range(node)]
            kept += sorted(into, key=lambda edge: weights[edge][best[edge]])[-2:]
        skips = [edge for edge in kept if best[edge] == "skip_connect"]
        if len(skips) <= limit:
            return {edge: best[edge] if edge in kept else "none" for edge in switches}
        weights[min(skips, key=lambda edge: weights[edge]["skip_connect"])]["skip_connect"] = 0.0


def test_no_cell_has_more_skips_than_it_may():
    rng = Random(0)
    space = DARTSCell(kinds=["normal"])
    edges = [(choice.sources[0], choice.output) for choice in space.choices]
    restricted = 0
    for _ in range(1000):
        switches = {
            edge: {"skip_connect", *rng.sample(sorted({*DARTS_OPERATIONS} - {"skip_connect"}), 2)} for edge in edges
        }
        names = {f"normal/{a}->{b}": sorted({*options, "none"}) for (a, b), options in switches.items()}
        part = space.restrict(names)
        logits = {
            edge: {o: rng.gauss(0, 1) + (o == "skip_connect") for o in options} for edge, options in switches.items()
        }
        total = {edge: sum(map(math.exp, row.values())) for edge, row in logits.items()}
        weights = {edge: {o: math.exp(v) / total[edge] for o, v in row.items()} for edge, row in logits.items()}
        rows = [[weights[e].get(o, 0.0) for o in c.options] for e, c in zip(edges, part.choices, strict=True)]
        found = list(part.to_names(derive_with_few_skips(part, rows, 2)).values())
        assert found.count("skip_connect") <= 2
        assert found == list(few_skips_by_hand(switches, weights, 2).values())
        restricted += list(part.to_names(part.derive(rows)).values()).count("skip_connect") > 2
    assert restricted > 900


def test_operation_and_edges_are_chosen_again():
    space = DARTSCell(kinds=["normal"], nodes=2, operations=("none", "skip_connect", "sep_conv_3x3"))
    weights = [[0.0, 0.6, 0.4], [0.0, 0.7, 0.3], [0.4, 0.5, 0.1], [0.6, 0.1, 0.3], [0.5, 0.05, 0.45]]

    def derived(limit):
        return space.describe(derive_with_few_skips(space, weights, limit)).removeprefix("normal: ")

    assert derived(3) == "skip_connect(0) skip_connect(1) | skip_connect(0) sep_conv_3x3(2)"
    assert derived(2) == "skip_connect(0) skip_connect(1) | sep_conv_3x3(1) sep_conv_3x3(2)"  # another edge
    assert derived(1) == "sep_conv_3x3(0) skip_connect(1) | sep_conv_3x3(1) sep_conv_3x3(2)"  # another operation
    assert derived(0) == "sep_conv_3x3(0) sep_conv_3x3(1) | sep_conv_3x3(1) sep_conv_3x3(2)"
    assert weights[2] == [0.4, 0.5, 0.1]
    alone = space.restrict({"normal/0->2": "skip_connect", "normal/1->2": "skip_connect"})
    rows = [[1.0], [1.0], *weights[2:]]
    assert alone.describe(derive_with_few_skips(alone, rows, 0)).startswith("normal: skip_connect(0) skip_connect(1)")


def test_a_reduction_cell_may_have_skips():
    space = DARTSCell(nodes=1, operations=("none", "skip_connect", "sep_conv_3x3"))
    architecture = derive_with_few_skips(space, [[0.0, 0.9, 0.1]] * 4, 0)
    assert list(space.to_names(architecture).values()) == ["sep_conv_3x3"] * 2 + ["skip_connect"] * 2


# -- a search --------------------------------------------------------------------------------------------------------


def test_what_a_later_stage_leaves_loads_alone(tmp_path):
    files = [ArchitectureLogger(every_n_epochs=1, n_random=2, retrain_config="p_darts/retrain.yaml")]
    files += [ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)]
    method, run = pdarts(), trainer(max_epochs=3, callbacks=files, enable_checkpointing=True, default_root_dir=tmp_path)
    run.fit(method, digits())
    found = load_architecture(tmp_path / "architecture.json")
    assert found.space.spec == pdarts().space.spec  # the whole space, not what the last stage has of it
    assert found.space.to_names(found.architecture) == method.space.to_names(method.best())
    assert {path.name for path in (tmp_path / "pictures").iterdir()} >= {"epoch_002_cells.svg", "epoch_002_weights.svg"}

    for epoch, n_operations in enumerate((4, 3, 2)):
        loaded, data = load_search(tmp_path / f"epoch={epoch}.ckpt")
        assert (loaded.stage, len(loaded.network.cells)) == (epoch, epoch + 1)
        assert {len(options) for options in candidates(loaded).values()} == {n_operations}
    assert not torch.equal(loaded.alphas, pdarts(seed=1, inputs=data.inputs).alphas[:, :2])
    state = {name: value for name, value in snapshot(method).items() if "metrics" not in name}
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in state.items())
    assert loaded.best() == method.best()


@pytest.mark.slow
def test_the_planted_task_through_three_stages():
    operations = ("none", "skip_connect", "max_pool_3x3", "dil_conv_5x5")
    space = DARTSCell(kinds=["normal"], nodes=1, operations=operations)
    space = space.restrict({"normal/0->2": "skip_connect"})
    for seed in range(5):
        method = PDARTS(
            space,
            ImageClassification(),
            {"channels": 8},
            seed=seed,
            stages=[{"cells": 2}, {"cells": 3}, {"cells": 4}],
            operations=[3, 2],
            epochs=5,
            warmup_epochs=1,
            optimizer=SGD(0.05, momentum=0.9, weight_decay=3e-4, schedule=Cosine(), clip=5.0),
            alphas_optimizer=Adam(0.02, betas=(0.5, 0.999), clip=5.0),
        )
        trainer(max_epochs=15, limit_val_batches=0).fit(method, Planted())
        assert "dil_conv_5x5" in candidates(method)["normal/1->2"]
        assert method.space.to_names(method.best())["normal/1->2"] == "dil_conv_5x5", seed


# -- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"operations": [5]}, r"operations: a number for each of the 3 stages but the first, .* got \[5\]"),
        ({"operations": [3, 5]}, r"operations: .*falling"),
        ({"operations": [8, 3]}, r"operations: .*less than the 8 of the space"),
        ({"operations": [3, 1]}, r"operations: .*2 or more"),
        ({"skip_dropout": [0.0, 0.4]}, r"skip_dropout: for each of the 3 stages a probability .* got \[0\.0, 0\.4\]"),
        ({"skip_dropout": [0.0, 0.4, 1.0]}, r"skip_dropout: .*below 1"),
        ({"warmup_epochs": 25}, r"warmup_epochs: from 0 to below epochs \(25\), got 25"),
        ({"max_skips": -1}, r"max_skips: 0 or more, or null, got -1"),
        ({"stages": [{"depth": 3}] * 3}, r"stages\.depth: no such setting; there are channels, cells"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(SettingError, match=message):
        PDARTS(DARTSCell(), ImageClassification(), **settings)


def test_spaces_without_dropout_of_skips_are_searched_without_it():
    micro = ENASMicro(nodes=1, operations=["skip_connect", "sep_conv_3x3", "max_pool_3x3"])
    settings = {"stages": [{"layers": 1}, {"layers": 1}], "operations": [2], "epochs": 1, "warmup_epochs": 0}
    with pytest.raises(SettingError, match=r"skip_dropout: networks of ENASMicro .* set it to \[0, 0\]"):
        PDARTS(micro, ImageClassification(), {"channels": 4}, INPUTS, skip_dropout=[0.0, 0.5], **settings)
    for space, network in ((micro, {"channels": 4}), (NASBench201(), {"channels": 2})):
        per_stage = settings | ({} if space is micro else {"stages": [{"cells": 1}] * 2})
        method = PDARTS(space, ImageClassification(), network, skip_dropout=[0, 0], **per_stage)
        trainer(max_epochs=2, limit_train_batches=1).fit(method, digits())
        assert {len(candidates(method)[c.name]) for c in space.choices if c.kind == "operation"} == {2}
        assert space.legal(space.from_names(method.space.to_names(method.best())))


def test_the_published_cell():
    space, architecture, _ = PUBLISHED["pdarts"].build()
    names = space.to_names(architecture)
    assert sum(names[c.name] == "skip_connect" for c in space.choices if c.cell == "normal") == 2
    child = space.restrict(architecture)
    expected = {(36, 20, False): 3_433_798, (36, 20, True): 3_910_224, (16, 8, False): 292_026, (8, 8, False): 85_026}
    with torch.device("meta"):
        for (channels, cells, auxiliary), n_params in expected.items():
            network = child.network(INPUTS, channels=channels, cells=cells, auxiliary=auxiliary, form="final")
            assert sum(p.numel() for p in network.parameters()) == n_params
        imagenet = {"channels": 3, "image_size": 224, "num_classes": 1000}
        network = child.network(imagenet, channels=48, cells=14, stem="imagenet", form="final")
        assert sum(p.numel() for p in network.parameters()) == 4_944_352
