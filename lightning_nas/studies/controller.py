"""What does a controller learn? Its architectures beside those of an untrained one and random ones.

That a trained controller draws architectures which score higher under the shared weights may say that they are better,
or that the weights were trained mostly on them. So all are also scored under weights that were trained while the
controller stayed as it began.
"""

import dataclasses
import hashlib
import itertools
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lightning_nas.controllers import Policy, Sample
from lightning_nas.data import DataModule
from lightning_nas.errors import SettingError
from lightning_nas.files import write_table
from lightning_nas.methods import ENAS, OneShotMethod
from lightning_nas.pictures.draw import draw_hidden_states, draw_scores
from lightning_nas.seeding import derive_seed
from lightning_nas.spaces import Architecture
from lightning_nas.studies.folder import StudyFolder
from lightning_nas.supernets import Scorer
from lightning_nas.training import Adam
from lightning_nas.training.checkpoints import checkpoint_settings, restore

N_HIDDEN = 100
"""Architectures whose hidden states are compared: an effective rank grows with their number."""


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Architectures drawn from one distribution.

    Attributes:
        architectures: in the order drawn.
        log_probs: the log-probability of each under the distribution that it was drawn from, in nats.
        scores: the scores of each, by the policy that the shared weights were trained with.
    """

    architectures: list[Architecture]
    log_probs: list[float]
    scores: dict[str, list[float]]


@dataclasses.dataclass(frozen=True)
class ControllerStudy:
    """What :func:`study_controller` found.

    Attributes:
        drawn: from ``trained`` and ``untrained``, the two policies, and ``random``, uniformly.
        hidden: the hidden states of the steps that decide something, ``(n, steps, width)``, of both policies for
            architectures that they drew, and as they read the random ones.
        uniform: whether the untrained policy is uniform over architectures.
        score_name: the name of the task's score.
        n_batches: that each architecture was scored on.
        epochs: the epochs of the weights that were trained with the untrained policy; 0: there are none.
        folder: where the files lie.
    """

    drawn: dict[str, Drawn]
    hidden: dict[str, Tensor]
    uniform: bool
    score_name: str
    n_batches: int
    epochs: int
    folder: Path

    def describe(self) -> str:
        """The tables, and what they are of."""
        trained = self.drawn["trained"]
        n, n_choices = len(trained.architectures), len(trained.architectures[0])
        lines = [
            f"{n} architectures of each policy: validation {self.score_name} under shared weights, all on the same "
            f"{self.n_batches} batches, mean ± standard deviation",
            _row("", [f"weights of {policy}" for policy in trained.scores]),
        ]
        lines += [_row(name, map(_spread, drawn.scores.values())) for name, drawn in self.drawn.items()]
        lines += ["how different they are", _row("", ["unique", f"Hamming of {n_choices} choices", "entropy in nats"])]
        for name, drawn in self.drawn.items():
            share, distance = unique_share(drawn.architectures), hamming_distance(drawn.architectures)
            lines.append(_row(name, [f"{share:.0%}", f"{distance:.2f}", f"{-statistics.fmean(drawn.log_probs):.2f}"]))
        length, steps = self.hidden["trained"].shape[:2]
        lines.append(f"hidden states of {length} architectures at {steps} steps")
        lines.append(_row("", ["standard deviation", "root mean square", "effective rank"]))
        for name, h in self.hidden.items():
            figures = [f"{deviation(h).mean():.4f}", f"{h.square().mean().sqrt():.4f}", f"{effective_rank(h):.1f}"]
            lines.append(_row(name, figures))
        uniform = "uniform, as random is" if self.uniform else "not uniform: the controller has an operation_bias"
        lines.append(f"The untrained policy is {uniform}.")
        if self.epochs:
            lines.append(
                f"Weights of untrained: {self.epochs} epochs of the same search on one device, policy untrained."
            )
        lines += [
            "All scores are of shared weights, not of trained networks. That a trained policy scores higher under",
            "weights trained with it does not by itself say that its architectures are better.",
            f"every architecture {self.folder / 'controller.csv'}",
            f"pictures           {self.folder / 'controller.svg'}, {self.folder / 'hidden.svg'}",
        ]
        return "\n".join(lines)


def _row(name: str, cells: Iterable[str]) -> str:
    return f"  {name:24}" + "".join(f"{cell:>24}" for cell in cells)


def _spread(scores: Sequence[float]) -> str:
    finite = _finite(scores)
    if len(finite) < 2:
        return f"{len(finite)} finite"
    return f"{statistics.fmean(finite):.4f} ± {statistics.stdev(finite):.4f}"


def _finite(scores: Sequence[float]) -> list[float]:
    return [score for score in scores if math.isfinite(score)]


# -- figures ---------------------------------------------------------------------------------------------------------


def unique_share(architectures: Sequence[Architecture]) -> float:
    """How many different architectures there are, divided by how many were drawn."""
    return len(set(architectures)) / len(architectures)


def hamming_distance(architectures: Sequence[Architecture]) -> float:
    """The number of choices in which two of the architectures differ, its mean over all pairs."""
    pairs = math.comb(len(architectures), 2)
    equal = sum(math.comb(n, 2) for options in zip(*architectures, strict=True) for n in Counter(options).values())
    return len(architectures[0]) - equal / pairs


def deviation(hidden: Tensor) -> Tensor:
    """For each step the standard deviation of a unit over architectures, its mean over units: ``(n, steps, width)`` to
    ``(steps,)``."""
    return hidden.std(0).mean(1)


def effective_rank(hidden: Tensor) -> float:
    """How many directions the hidden states of architectures differ in: the exponential of the entropy of the singular
    values, divided by their sum, of the centred matrix with a row for each architecture (Roy and Vetterli 2007).

    Args:
        hidden: the hidden states, ``(n, steps, width)``.

    Returns:
        from 1 to n - 1; 0 where all rows are equal.
    """
    rows = hidden.double().flatten(1)
    values = torch.linalg.svdvals(rows - rows.mean(0))
    noise = rows.abs().max() * max(rows.shape) * torch.finfo(rows.dtype).eps
    values = values[values > noise]
    shares = values / values.sum()
    return float((-shares * shares.log()).sum().exp()) if len(values) else 0.0


# -- the study -------------------------------------------------------------------------------------------------------


def study_controller(
    method: OneShotMethod,
    data: DataModule,
    folder: Path | None,
    n_architectures: int = 100,
    n_batches: int = 4,
    epochs: int = 0,
) -> ControllerStudy:
    """Compares the policy of a search with an untrained one, the same that the search began with, and with random.

    Writes ``controller.csv``, a row for each architecture and the weights it was scored under, with the log-probability
    under the distribution it was drawn from; ``controller.svg``, histograms of scores; and ``hidden.svg``, the hidden
    states of both policies for architectures that they drew. The search is left as it was.

    Hidden states are those of all steps that decide something, not of the last one alone: at each they show what is
    left of the choices before. A policy whose architectures are alike has hidden states that are alike, whatever it
    remembers; so both are also measured as they read the same random architectures.

    Args:
        method: a search with a controller and its network.
        data: that it was trained on; the test part is not touched.
        folder: where to write, weights trained with the untrained policy too; None: in ``runs/``, by the search and all
            settings. The weights have a folder of their own then, in which studies of other numbers find them.
        n_architectures: the number of architectures of each kind.
        n_batches: the number of batches of the architecture part that each is scored on.
        epochs: the epochs of weights that are trained with the untrained policy; 0: there are none.

    Raises:
        SettingError: if the search is not an ENAS, there are too few architectures or batches, or the folder cannot be
            used or holds another study.
    """
    if not isinstance(method, ENAS):
        raise SettingError(f"ckpt_path: of an ENAS, whose controller is studied; this is of a {type(method).__name__}")
    if n_architectures < 2:
        raise SettingError(f"--n_architectures: at least 2, got {n_architectures}")
    if n_batches < 1:
        raise SettingError(f"--n_batches: at least 1, got {n_batches}")
    name = method.name.lower()
    again = {"model": method.spec, "data": data.spec, "untrained_epochs": epochs, "device": method.device.type}
    settings = again | {
        "digest_of_weights": _digest(method),
        "n_architectures": n_architectures,
        "n_batches": n_batches,
    }
    place = StudyFolder.open(folder, "controller", name, settings, ("controller.csv", "*.svg", "untrained_*"))
    place.make()
    untrained = method.policy.controller.policy(method.space, method.seed).to(method.device)
    policies = {"trained": method.policy, "untrained": untrained}
    searches = {"trained": method}  # by the policy that their shared weights were trained with
    if epochs:
        kept = place
        if folder is None:  # they are what costs hours, and depend on less than the tables do
            kept = StudyFolder.open(None, "controller-weights", name, again, ("untrained_*",))
            kept.make()
        searches["untrained"] = train_with_untrained(method, data, epochs, kept.path)

    samples = {name: _sample(policy, n_architectures, method.seed, name) for name, policy in policies.items()}
    rng = Random(derive_seed(method.seed, "controller study", "random"))
    random = [method.space.random(rng) for _ in range(n_architectures)]
    architectures = {name: sample.tuples() for name, sample in samples.items()} | {"random": random}
    log_probs = {name: sample.log_prob.tolist() for name, sample in samples.items()}
    log_probs["random"] = [-math.log(method.space.size)] * n_architectures
    scores: dict[str, dict[str, list[float]]] = {name: {} for name in architectures}
    for weights, search in searches.items():
        evaluate = Scorer.of(search, data, n_batches)
        ranked = evaluate.rank(itertools.chain(*architectures.values()))
        for name, drawn in architectures.items():
            scores[name][weights] = [ranked[architecture] for architecture in drawn]

    given = torch.tensor(random[:N_HIDDEN], device=method.device)
    hidden = {name: _decisive(policies[name], sample)[:N_HIDDEN] for name, sample in samples.items()}
    with torch.no_grad():
        for name, policy in policies.items():
            hidden[f"{name}, reading random"] = _decisive(policy, policy.evaluate(given))
    study = ControllerStudy(
        drawn={name: Drawn(architectures[name], log_probs[name], scores[name]) for name in architectures},
        hidden=hidden,
        uniform=not any((untrained.controller.operation_bias or {}).values()),
        score_name=method.task.score,
        n_batches=len(evaluate.validation),
        epochs=epochs,
        folder=place.path,
    )
    _write(study, method)
    return study


def _digest(method: ENAS) -> str:
    """Tells the weights of one search from those of another, though both have the same settings."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in method.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def _sample(policy: Policy, n: int, seed: int, name: str) -> Sample:
    generator = torch.Generator(policy.start.device).manual_seed(derive_seed(seed, "controller study", name))
    return policy.sample(n, generator)


def _decisive(policy: Policy, sample: Sample) -> Tensor:
    """The hidden states of the steps that decide something."""
    return sample.hidden[:, sorted(set(policy.step_of.values()))].cpu()


def train_with_untrained(method: ENAS, data: DataModule, epochs: int, folder: Path) -> ENAS:
    """The search once more from new, on one device, while its controller stays as it began.

    Batches and seeds are those of the search. An epoch has just one step of the controller, with one architecture and
    learning rate 0, so it leaves everything as it is.

    Args:
        method: the search whose controller is studied.
        data: that it was trained on.
        epochs: how many, each of the whole weights part.
        folder: where the checkpoint is written, after every epoch. Training continues from one that is there.

    Raises:
        SettingError: if that checkpoint is of another search.
    """
    held = {"controller_optimizer": Adam(0.0).spec, "controller_steps": 1, "samples_per_step": 1}
    again = type(method)(**{**method.hparams, **held})
    last = folder / f"untrained_{epochs}_epochs" / "last.ckpt"
    if last.exists() and checkpoint_settings(str(last)) != {"model": again.spec, "data": data.spec}:
        raise SettingError(f"--folder: the weights in {last} are of another search; choose another folder")
    done = trained_epochs(last) if last.exists() else 0
    if done == epochs:
        restore(again, data, str(last))
    else:
        trainer = pl.Trainer(
            accelerator=method.device.type,
            devices=1,
            max_epochs=epochs,
            limit_val_batches=0,
            callbacks=[
                ModelCheckpoint(last.parent, "last", save_on_train_epoch_end=True, enable_version_counter=False)
            ],
            logger=False,
            enable_model_summary=False,
        )
        trainer.fit(again, datamodule=data, ckpt_path=last if done else None)
    return again.eval().to(method.device)


def trained_epochs(ckpt_path: str | Path) -> int:
    """For how many epochs the search in a checkpoint was trained; one that was interrupted counts as a whole."""
    return int(torch.load(ckpt_path, weights_only=True, map_location="cpu", mmap=True)["epoch"]) + 1


def _write(study: ControllerStudy, method: ENAS) -> None:
    header = ["drawn_from", "weights_of", "score", "log_prob", *(choice.name for choice in method.space.choices)]
    rows = [
        [name, weights, score, log_prob, *method.space.to_names(architecture).values()]
        for name, drawn in study.drawn.items()
        for weights, scores in drawn.scores.items()
        for architecture, log_prob, score in zip(drawn.architectures, drawn.log_probs, scores, strict=True)
    ]
    write_table(study.folder / "controller.csv", header, rows)

    groups = {name: _finite(drawn.scores["trained"]) for name, drawn in study.drawn.items()}
    if study.epochs:
        groups["untrained, own weights"] = _finite(study.drawn["untrained"].scores["untrained"])
    groups = {name: scores for name, scores in groups.items() if scores}
    draw_scores(groups, study.folder / "controller.svg", f"validation {study.score_name} under shared weights")
    draw_hidden_states(
        {f"{name} policy": study.hidden[name].tolist() for name in ("trained", "untrained")},
        study.folder / "hidden.svg",
        f"{type(method).__name__}, seed {method.seed}: hidden states at the steps that decide something",
    )
