"""The commands that need no trainer: draw, profile, export, list, and the studies."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lightning_nas.errors import SettingError
from lightning_nas.specs import first_sentence

if TYPE_CHECKING:  # and where the parser of a command asks what its arguments are
    from lightning_nas.data import DataModule
    from lightning_nas.evaluators import Evaluator
    from lightning_nas.spaces import Space
    from lightning_nas.strategies import Strategy
    from lightning_nas.studies.random_baseline import Command


def draw(architecture: str, out: str = "architecture.svg") -> None:
    """A picture of an architecture.

    Args:
        architecture: an architecture.json, or the name of a published architecture.
        out: the picture; its ending says the format: .svg, .png, .pdf or .dot.
    """
    from lightning_nas.pictures.draw import draw_architecture
    from lightning_nas.spaces.architecture_file import load_architecture

    found = load_architecture(architecture)
    try:
        draw_architecture(found.space, found.architecture, out, found.caption)
    except (OSError, ValueError) as error:
        raise SettingError(f"--out: {error}") from error
    print(out)


def profile(
    architecture: str,
    network: dict[str, Any] | None = None,
    inputs: dict[str, int] | None = None,
    batch_size: int = 1,
    latency_runs: int = 50,
    device: str = "cpu",
) -> None:
    """Parameters, FLOPs, activations and measured latency of an architecture's network.

    Args:
        architecture: an architecture.json, or the name of a published architecture.
        network: settings of the space's network, such as --network.channels 36 --network.cells 20.
        inputs: what the data are like, such as --inputs.image_size 224 or --inputs.vocabulary 30000; what is not given
            is CIFAR-10's or Penn Treebank's.
        batch_size: examples per forward pass whose latency is measured.
        latency_runs: timed forward passes, of which the median counts; 0: latency is not measured.
        device: where latency is measured, such as cpu or cuda.
    """
    import torch

    from lightning_nas.cli.networks import final_network, moved, settings_of
    from lightning_nas.costs.profile import profile as measure
    from lightning_nas.spaces.architecture_file import load_architecture

    if batch_size < 1 or latency_runs < 0:
        raise SettingError("--batch_size: at least 1; --latency_runs: 0 or more")
    found = load_architecture(architecture)
    child = moved(final_network(found, network, inputs), device)
    if torch.device(device).type == "meta" and latency_runs:
        raise SettingError("--device: nothing runs on meta, so set --latency_runs 0")
    try:
        costs = measure(child, child.example(batch_size), latency_runs)
    except RuntimeError as error:  # a network of the user's own, which is for other data than the usual ones
        reason = str(error).partition("\n")[0]
        raise SettingError(
            f"--inputs: what the network was found for, such as --inputs.channels 1 ({reason})"
        ) from error
    print("\n".join(filter(None, [found.space.describe(found.architecture), settings_of(child)])))
    print()
    print(costs.describe())


def export(
    architecture: str | None = None,
    ckpt_path: str | None = None,
    out: str = "network.onnx",
    network: dict[str, Any] | None = None,
    inputs: dict[str, int] | None = None,
    opset: int | None = None,
    calibration: int = 8,
    latency_runs: int = 20,
    batch_size: int = 1,
) -> None:
    """A network as a file that runs without this package, run beside the network to see that it computes the same.

    Args:
        architecture: an architecture.json, or the name of a published architecture; null: that of the retraining in
            --ckpt_path.
        ckpt_path: the checkpoint of a retraining, whose weights are taken, or of a search, in whose network the
            architecture has some; null: new weights.
        out: the file; its ending says the format: .onnx, or .pt2 for a program of torch.export.
        network: settings of a new network, such as --network.channels 36 --network.cells 20.
        inputs: what the data are like that a new network reads, such as --inputs.image_size 224; what is not given is
            CIFAR-10's or Penn Treebank's.
        opset: the version of ONNX's operators, 18 or more; null: the one that PyTorch prefers.
        calibration: training batches over which BatchNorm's averages are taken where the weights are a search's; 0:
            they stay the search's, which belong to no single architecture.
        latency_runs: timed passes of file and network in turns, of which the medians count; 0: latency is not measured.
        batch_size: examples per pass whose latency is measured.
    """
    from lightning_nas.cli.networks import network_to_export, settings_of
    from lightning_nas.export import export_network
    from lightning_nas.export.formats import format_of

    format_of(Path(out), opset)  # before anything is loaded
    found, child, weights = network_to_export(architecture, ckpt_path, network, inputs, calibration)
    exported = export_network(child, out, None, opset, latency_runs, batch_size)
    print(found.space.describe(found.architecture))
    print(settings_of(child))
    print(weights)
    print()
    print(exported.describe())


def list_() -> None:
    """Methods, spaces, data, strategies, evaluators, executors, configurations and published architectures."""
    from lightning_nas.catalogue import KINDS
    from lightning_nas.files import config_folder, packaged_configs
    from lightning_nas.spaces import PUBLISHED

    sections = {kind.title: kind.rows() for kind in KINDS}
    sections["configurations"] = [
        (name, (config_folder() / name).read_text(encoding="utf-8").splitlines()[0].lstrip("# "))
        for name in packaged_configs()
    ]
    sections["published architectures"] = [(name, each.describe()) for name, each in PUBLISHED.items()]
    width = max(len(name) for rows in sections.values() for name, _ in rows)
    for title, rows in sections.items():
        print(title)
        for name, text in rows:
            print(f"  {name:{width}}  {text}")


def study_random(
    run: "Command",
    search: str = "darts/quickstart.yaml",
    others: list[str] | None = None,
    retrain: str = "darts/quickstart_retrain.yaml",
    seeds: int = 5,
    folder: str | None = None,
) -> None:
    """Does a search beat random? For each seed what it finds, the best of random architectures under its own shared
    weights, what other searches find, and one random architecture are retrained alike and tested.

    What is done already in the folder is not done again, so an interrupted study continues where it stopped, also with
    more seeds. A folder is for one study: with other configurations, or the same ones edited, it is another folder.

    Args:
        run: runs a command line.
        search: configuration of the search.
        others: configurations of other searches in the same space, such as --others [random_search_ws/search.yaml].
        retrain: configuration of the retraining, the same for all.
        seeds: how many; they are 0, 1, ….
        folder: where the runs and study.csv are written; null: in runs/study-random-..., by what the configurations
            say.
    """
    from lightning_nas.files import find_config
    from lightning_nas.studies.random_baseline import compare_with_random

    if seeds < 2:
        raise SettingError(f"--seeds: at least 2 are needed for a spread, got {seeds}")
    configs = [find_config(config) for config in (search, *(others or ()))]
    place = None if folder is None else Path(folder)
    print(compare_with_random(configs[0], configs[1:], find_config(retrain), seeds, place, run).describe())


def study_gradients(ckpt_path: str, n_batches: int = 8, n_shuffles: int = 4) -> None:
    """Do validation batches agree on where the alphas should go? Cosines between the architecture gradients of disjoint
    batches, beside those of the same batches with shuffled labels.

    Args:
        ckpt_path: the checkpoint of a search that has alphas.
        n_batches: disjoint batches of the architecture part.
        n_shuffles: how often the labels of each batch are shuffled.
    """
    from lightning_nas.methods import load_search
    from lightning_nas.studies.gradients import gradient_agreement

    if n_batches < 2 or n_shuffles < 1:
        raise SettingError("--n_batches: at least 2; --n_shuffles: at least 1")
    print(gradient_agreement(*load_search(ckpt_path), n_batches, n_shuffles).describe())


def study_controller(
    ckpt_path: str,
    n_architectures: int = 100,
    n_batches: int = 4,
    retrain_weights: bool = True,
    device: Literal["cpu", "cuda", "mps"] = "cpu",
    folder: str | None = None,
) -> None:
    """What does a controller learn? Its architectures and hidden states beside those of an untrained one, and random.

    Args:
        ckpt_path: the checkpoint of an ENAS search.
        n_architectures: the number of architectures of each kind.
        n_batches: the number of batches of the architecture part that each architecture is scored on.
        retrain_weights: also trains shared weights with the untrained controller, for as many epochs as the search did,
            and scores all under both. They are kept: an interrupted study continues where it stopped.
        device: where it is computed.
        folder: where controller.csv and the pictures are written; null: in runs/study-controller-..., by the search and
            all settings.
    """
    from lightning_nas.cli.networks import moved
    from lightning_nas.cli.training import quiet
    from lightning_nas.methods import load_search
    from lightning_nas.studies import controller as controller_study

    quiet()
    method, data = load_search(ckpt_path)
    moved(method, device)
    epochs = controller_study.trained_epochs(ckpt_path) if retrain_weights else 0
    place = None if folder is None else Path(folder)
    study = controller_study.study_controller(method, data, place, n_architectures, n_batches, epochs)
    print(study.describe())


def study_search(
    space: "Space",
    evaluator: "Evaluator",
    strategies: "dict[str, Strategy]",
    n_trials: int | None = None,
    budget: float | None = None,
    seeds: int = 20,
    report: str | None = None,
    data: "DataModule | None" = None,
    processes: int = 1,
    folder: str | None = None,
) -> None:
    """Which strategy finds the better architectures? Strategies on one evaluator, each from many seeds: anytime curves,
    what was found in the end, and differences paired by seed.

    Args:
        space: the space in which all strategies search.
        evaluator: what decides between architectures, the same for all strategies.
        strategies: by the names that they have in the table; the others are compared with the first.
        n_trials: after how many a search ends; null: by the budget alone.
        budget: seconds that trials cost, after which none is begun; null: no limit.
        seeds: how many; they are 0, 1, ….
        report: the evaluator's metric that is shown of what was found; null: the score, which decides.
        data: for an evaluator that needs data.
        processes: how many run searches at the same time.
        folder: where search.csv and search.svg are written; null: in runs/study-search-..., by all other settings.
    """
    from lightning_nas.studies import strategies as study

    limit = study.Limit(n_trials, budget)
    place = None if folder is None else Path(folder)
    print(study.study_search(space, evaluator, strategies, limit, seeds, place, report, data, processes).describe())


COMMANDS: dict[str, Callable[..., None]] = {
    "draw": draw,
    "profile": profile,
    "export": export,
    "list": list_,
    "study random": study_random,
    "study gradients": study_gradients,
    "study controller": study_controller,
    "study search": study_search,
}

CONFIGURED = ("study search",)
"""The commands with so many settings that they come from a file."""


def run(argv: Sequence[str], main: "Command") -> None:
    """Parses one of the commands and runs it.

    Args:
        argv: the command and its arguments.
        main: runs a whole command line, for studies that consist of several.

    Raises:
        SettingError: for an unknown command or a wrong argument.
    """
    from lightning_nas.cli.parsing import parsed

    words = 2 if argv[0] == "study" else 1
    name = " ".join(argv[:words])
    if words == 2 and argv[1:2] in ([], ["-h"], ["--help"]):
        print("usage: python -m lightning_nas study WHICH ...\n")
        for study, function in COMMANDS.items():
            if study.startswith("study "):
                print(f"  {study.removeprefix('study '):12}{first_sentence(function)}")
        return
    if name not in COMMANDS:
        raise SettingError(f"there is no command {name!r}; see python -m lightning_nas --help")
    command = COMMANDS[name]
    given = {"run": main} if "run" in inspect.signature(command).parameters else {}
    command(**parsed(command, name, argv[words:], set(given), name in CONFIGURED), **given)
