"""The commands that need no trainer: draw, profile, list, and the studies."""

import inspect
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from lightning_nas.errors import SettingError, one_line

if TYPE_CHECKING:  # and where the parser of a command asks what its arguments are
    from lightning_nas.data import DataModule
    from lightning_nas.evaluators import Evaluator
    from lightning_nas.spaces import Space
    from lightning_nas.strategies import Strategy


def draw(architecture: str, out: str = "architecture.svg") -> None:
    """A picture of an architecture.

    Args:
        architecture: an architecture.json, or the name of a published architecture.
        out: the picture; its ending says the format: .svg, .png, .pdf or .dot.
    """
    from lightning_nas.analysis.draw import draw_architecture
    from lightning_nas.architecture import load_architecture

    found = load_architecture(architecture)
    caption = found.method if found.seed is None else f"{found.method}, seed {found.seed}"
    try:
        draw_architecture(found.space, found.architecture, out, caption)
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

    from lightning_nas.analysis.profile import profile as measure
    from lightning_nas.architecture import load_architecture
    from lightning_nas.specs import check_arguments

    if batch_size < 1 or latency_runs < 0:
        raise SettingError("--batch_size: at least 1; --latency_runs: 0 or more")
    found = load_architecture(architecture)
    usual = found.space.usual_inputs
    for name, number in (inputs or {}).items():
        if name not in usual:
            raise SettingError(f"--inputs.{name}: no such setting; there are {', '.join(usual)}")
        if number < 1:
            raise SettingError(f"--inputs.{name}: at least 1, got {number}")
    space = found.space.restrict(found.architecture)
    settings = check_arguments(space.network, network or {}, "--network", skip={"inputs", "form"})
    child = space.network({**usual, **(inputs or {})}, form="final", **settings)
    try:
        child = child.to(torch.device(device))
    except (RuntimeError, AssertionError, ImportError) as error:
        raise SettingError(f"--device: {device}: {str(error).splitlines()[0]}") from error
    if torch.device(device).type == "meta" and latency_runs:
        raise SettingError("--device: nothing runs on meta, so set --latency_runs 0")
    defaults = inspect.signature(space.network).parameters
    shown = {n: settings.get(n, p.default) for n, p in defaults.items() if n not in ("inputs", "form")}
    print(found.space.describe(found.architecture))
    print("network: " + ", ".join(f"{name} {value}" for name, value in shown.items()))
    print()
    print(measure(child, child.example(batch_size), latency_runs).describe())


def list_() -> None:
    """Methods, spaces, data, strategies, evaluators, executors, configurations and published architectures."""
    from lightning_nas import cli
    from lightning_nas.files import config_folder
    from lightning_nas.methods import Method
    from lightning_nas.spaces import PUBLISHED, Space
    from lightning_nas.specs import subclasses

    def classes(base: type) -> list[tuple[str, str]]:
        found = {cls.__name__: cls for cls in subclasses(base)}
        return [(name, _first_sentence(found[name])) for name in cli.offered(base)]

    configs = sorted(config_folder().rglob("*.yaml"))
    sections = {
        "methods": classes(Method),
        "spaces": classes(Space),
        "data": classes(cli.DataModule),
        "strategies": classes(cli.Strategy),
        "evaluators": classes(cli.Evaluator),
        "executors": classes(cli.Executor),
        "configurations": [
            (str(path.relative_to(config_folder())), path.read_text(encoding="utf-8").splitlines()[0].lstrip("# "))
            for path in configs
        ],
        "published architectures": [(name, build()[2]) for name, build in PUBLISHED.items()],
    }
    width = max(len(name) for rows in sections.values() for name, _ in rows)
    for title, rows in sections.items():
        print(title)
        for name, text in rows:
            print(f"  {name:{width}}  {text}")


def _first_sentence(documented: object) -> str:
    sentence = re.split(r"(?<=[.?]) ", " ".join((documented.__doc__ or "").strip().split("\n\n")[0].split()))[0]
    return sentence.rstrip(".")


def study_random(
    search: str = "quickstart/darts.yaml",
    others: list[str] | None = None,
    retrain: str = "quickstart/retrain.yaml",
    seeds: int = 5,
    folder: str = "runs/study",
) -> None:
    """Does a search beat random? For each seed what it finds, the best of random architectures under its own shared
    weights, what other searches find, and one random architecture are retrained alike and tested.

    What is done already in the folder is not done again, so an interrupted study goes on where it stopped.

    Args:
        search: configuration of the search.
        others: configurations of other searches in the same space, such as --others [random_search_ws.yaml].
        retrain: configuration of the retraining, the same for all.
        seeds: how many; they are 0, 1, ….
        folder: where the runs and study.csv are written.
    """
    from lightning_nas.analysis.study import compare_with_random
    from lightning_nas.files import find_config

    if seeds < 2:
        raise SettingError(f"--seeds: at least 2 are needed for a spread, got {seeds}")
    configs = [find_config(config) for config in (search, *(others or ()))]
    print(compare_with_random(configs[0], configs[1:], find_config(retrain), seeds, Path(folder)).describe())


def study_gradients(ckpt_path: str, n_batches: int = 8, n_shuffles: int = 4) -> None:
    """Do validation batches agree on where the alphas should go? Cosines between the architecture gradients of disjoint
    batches, beside those of the same batches with shuffled labels.

    Args:
        ckpt_path: the checkpoint of a search that has alphas.
        n_batches: disjoint batches of the architecture part.
        n_shuffles: how often the labels of each batch are shuffled.
    """
    from lightning_nas.analysis.gradients import gradient_agreement
    from lightning_nas.checkpoints import load_search

    if n_batches < 2 or n_shuffles < 1:
        raise SettingError("--n_batches: at least 2; --n_shuffles: at least 1")
    print(gradient_agreement(*load_search(ckpt_path), n_batches, n_shuffles).describe())


def study_controller(
    ckpt_path: str,
    n_architectures: int = 100,
    n_batches: int = 4,
    retrain_weights: bool = True,
    device: Literal["cpu", "cuda", "mps"] = "cpu",
    folder: str = "runs/study-controller",
) -> None:
    """What does a controller learn? Its architectures and hidden states beside those of an untrained one, and random.

    Args:
        ckpt_path: the checkpoint of an ENAS search.
        n_architectures: of each kind.
        n_batches: of the architecture part, that each architecture is scored on.
        retrain_weights: also trains shared weights with the untrained controller, for as many epochs as the search did,
            and scores all under both. They are kept in the folder: an interrupted study goes on where it stopped.
        device: where it is computed.
        folder: where controller.csv and the pictures are written.
    """
    import torch

    from lightning_nas.analysis import controller_study
    from lightning_nas.checkpoints import load_search
    from lightning_nas.cli import quiet

    quiet()
    method, data = load_search(ckpt_path)
    try:
        method.to(torch.device(device))
    except (RuntimeError, AssertionError) as error:
        raise SettingError(f"--device: {device}: {str(error).splitlines()[0]}") from error
    epochs = controller_study.trained_epochs(ckpt_path) if retrain_weights else 0
    study = controller_study.study_controller(method, data, Path(folder), n_architectures, n_batches, epochs)
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
    folder: str = "runs/study-search",
) -> None:
    """Which strategy finds the better architectures? Strategies on one evaluator, each from many seeds: anytime curves,
    what was found in the end, and differences paired by seed.

    Args:
        space: the search space.
        evaluator: what decides between architectures, the same for all strategies.
        strategies: by the names that they have in the table; the others are compared with the first.
        n_trials: after how many a search ends; null: by the budget alone.
        budget: seconds that trials cost, after which none is begun; null: no limit.
        seeds: how many; they are 0, 1, ….
        report: the evaluator's metric that is shown of what was found; null: the score, which decides.
        data: for an evaluator that needs data.
        processes: how many run searches at the same time.
        folder: where search.csv and search.svg are written.
    """
    from lightning_nas.analysis import search_study

    limit = search_study.Limit(n_trials, budget)
    print(
        search_study.study_search(
            space, evaluator, strategies, limit, seeds, Path(folder), report, data, processes
        ).describe()
    )


COMMANDS: dict[str, Callable[..., None]] = {
    "draw": draw,
    "profile": profile,
    "list": list_,
    "study random": study_random,
    "study gradients": study_gradients,
    "study controller": study_controller,
    "study search": study_search,
}

CONFIGURED = ("study search",)
"""The commands whose settings are so many that they come from a file."""


def run(argv: Sequence[str]) -> None:
    """Parses one of the commands and runs it.

    Raises:
        SettingError: for an unknown command or a wrong argument.
    """
    from jsonargparse import ArgumentParser

    words = 2 if argv[0] == "study" else 1
    name = " ".join(argv[:words])
    if words == 2 and argv[1:2] in ([], ["-h"], ["--help"]):
        print("usage: python -m lightning_nas study WHICH ...\n")
        for study, function in COMMANDS.items():
            if study.startswith("study "):
                print(f"  {study.removeprefix('study '):12}{_first_sentence(function)}")
        return
    if name not in COMMANDS:
        raise SettingError(f"there is no command {name!r}; see python -m lightning_nas --help")
    command = COMMANDS[name]
    parser = ArgumentParser(
        prog=f"python -m lightning_nas {name}",
        description=inspect.cleandoc(command.__doc__ or "").partition("\n\n")[0],
    )
    configured = name in CONFIGURED
    if configured:
        import lightning_nas.cli  # noqa: F401  # what is imported there has a short class name here too

        parser.add_argument("--config", action="config", help="a file with these settings")
    parser.add_function_arguments(command, as_positional=not configured)
    parser.error = _refuse  # type: ignore[method-assign]
    arguments = parser.parse_args(list(argv[words:]))
    if configured:
        arguments = parser.instantiate_classes(arguments)
        del arguments["config"]
    command(**arguments.as_dict())


def _refuse(message: str, *args: object, **kwargs: object) -> NoReturn:
    raise SettingError(one_line(message))
