"""Each flag of Lightning's ``Trainer``, each precision and each callback, on each kind of run.

It works as Lightning documents it, or is refused in one line that says what to use instead, before anything is made.
The tables are complete: what a later Lightning adds fails here by its name.
"""

import csv
import functools
import inspect
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch import callbacks as lightning_callbacks

import lightning_nas.callbacks.summary  # noqa: F401  # whose class is asked for
from lightning_nas.cli.main import main
from lightning_nas.cli.training import CommandLine, Trainer
from lightning_nas.data import Digits
from lightning_nas.evaluators import FromScratch
from lightning_nas.methods import OneShotMethod
from lightning_nas.runs import outcome
from lightning_nas.spaces import NASBench201
from lightning_nas.strategies import RandomSearch
from lightning_nas.tasks import ImageClassification, LanguageModeling
from lightning_nas.training import Retrain
from lightning_nas.trials import TrialSearch
from lightning_nas.trials import outcome as trials_outcome
from tests.helpers.methods import CASES, Words
from tests.helpers.methods import trainer as quiet_trainer

# -- runs --------------------------------------------------------------------------------------------------------------

FEW = ["--trainer.max_epochs=2", "--trainer.limit_train_batches=2"]
VALIDATED = ["--trainer.limit_val_batches=1", "--trainer.check_val_every_n_epoch=1"]
SEARCH = ["--architecture_logger.n_random=0", "--architecture_logger.every_n_epochs=0", *FEW, *VALIDATED]
KINDS = {
    "search": [
        *("--config", "darts/quickstart.yaml", "--model.space.nodes=2", "--data.batch_size=16", *SEARCH),
        *("--model.space.operations=[none, skip_connect, sep_conv_3x3]", "--model.network={channels: 2, cells: 1}"),
    ],
    "enas": [
        *("--config", "enas/quickstart.yaml", "--model.space.nodes=1", "--data.batch_size=16", *SEARCH),
        *("--model.network.channels=4", "--model.n_candidates=1", "--model.samples_per_step=2"),
    ],
    "retrain": [
        *("--config", "darts/quickstart_retrain.yaml", "--model.network={channels: 2, cells: 1}", *FEW, *VALIDATED),
        *("--model.train_on=weights", "--data.batch_size=16"),
    ],
    "trials": [
        *("--config", "random_search/quickstart.yaml", "--data.batch_size=16", "--model.n_trials=2"),
        *("--model.evaluator.epochs=1", "--model.evaluator.network.channels=2"),
        *(f"--model.evaluator.trainer.limit_{part}_batches=1" for part in ("train", "val")),
    ],
}
"""Four steps of 16 images in two epochs; or two trials of one step each."""

THREE = ("search", "retrain", "trials")
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


class Record(pl.Callback):
    """What happens in a run."""

    def __init__(self, pause):
        self.pause = pause
        self.batches, self.epochs, self.gradients, self.states, self.dtypes = [], [], [], [], set()
        self.validated = self.sane = self.tested = 0
        self.inference = None
        self.loaders = []

    def on_train_start(self, trainer, pl_module):
        if hasattr(pl_module, "network"):
            self.hook = pl_module.network.register_forward_hook(
                lambda module, given, out: self.dtypes.add(first(out).dtype)
            )

    def on_train_end(self, trainer, pl_module):
        if hasattr(pl_module, "network"):
            self.hook.remove()

    def on_train_epoch_start(self, trainer, pl_module):
        self.epochs.append([])
        self.loaders.append(trainer.train_dataloader)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        time.sleep(self.pause)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.batches.append(batch)
        self.epochs[-1].append(batch)
        given = [p.grad for p in pl_module.parameters() if p.grad is not None]
        self.gradients += [torch.cat([gradient.flatten() for gradient in given])] if given else []
        self.states.append(
            {
                "deterministic": torch.are_deterministic_algorithms_enabled(),
                "benchmark": torch.backends.cudnn.benchmark,
                "anomaly": torch.is_anomaly_enabled(),
            }
        )

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self.inference = torch.is_inference_mode_enabled()
        self.sane += trainer.sanity_checking
        self.validated += not trainer.sanity_checking

    def on_test_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self.tested += 1


def first(out):
    return out if isinstance(out, torch.Tensor) else first(out[0])


@pytest.fixture(autouse=True)
def left_as_found(tmp_path, monkeypatch):
    """An empty folder to run in, and no trace of the trainer's global settings."""
    monkeypatch.chdir(tmp_path)
    environment = dict(os.environ)
    yield
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = False
    torch.autograd.set_detect_anomaly(False)


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs a kind of run with further flags, and draws no pictures, which take longer than the steps."""
    for picture in ("architecture", "scores", "weights"):
        monkeypatch.setattr(outcome, f"draw_{picture}", lambda *args, **kwargs: None)
    monkeypatch.setattr(trials_outcome, "draw_trials", lambda *args, **kwargs: None)

    def start(kind, *flags, command="fit", only_built=False, pause=0.0):
        made = SimpleNamespace(kind=kind, record=Record(pause), trainer=None, module=None)
        instantiate = CommandLine.instantiate_trainer

        def instantiate_trainer(self, **kwargs):
            made.trainer, made.module = instantiate(self, **kwargs), self.model
            made.trainer.callbacks.append(made.record)
            return made.trainer

        with monkeypatch.context() as patched:
            patched.setattr(CommandLine, "instantiate_trainer", instantiate_trainer)
            if only_built:
                nothing = functools.wraps(pl.Trainer.fit)(lambda self, *args, **kwargs: None)
                patched.setattr(Trainer, "fit", nothing)
            capsys.readouterr()
            made.status = main([command, *(KINDS[kind] if kind else []), *QUIET, *flags])
        made.out, made.err = capsys.readouterr()
        folders = sorted((tmp_path / "runs").glob("*-*")) if (tmp_path / "runs").exists() else []
        made.folder = folders[-1] if folders else None
        return made

    return start


def check_refused(made, words):
    """One line of all that is printed, and no folder."""
    assert made.status == 2
    errors = [line for line in made.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert words in errors[0], errors[0]
    assert "Traceback" not in made.err
    assert made.folder is None


def rows(made, name):
    """The values of a figure in metrics.csv."""
    with open(made.folder / "metrics.csv", newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def check_finished(made):
    """It came to its end: what it leaves is there, and the next command names files that exist."""
    assert made.status == 0, made.err
    assert (made.folder / "architecture.json").stat().st_size > 0
    next_command = made.out.rstrip().splitlines()[-1].strip()
    assert next_command.startswith("python -m lightning_nas ")
    for word in next_command.split():
        if word.startswith("runs/"):
            assert Path(word).exists()
    return True


# -- effects -----------------------------------------------------------------------------------------------------------


def same(a, b):
    """Whether batches are bit-equal."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    pairs = zip(a.values(), b.values(), strict=True) if isinstance(a, dict) else zip(a, b, strict=True)
    return all(same(x, y) for x, y in pairs) if isinstance(a, (dict, tuple, list)) else a == b


def steps(count):
    return lambda made: len(made.record.batches) == count


def held(name, value):
    """The trainer has it, for whom it concerns."""
    return lambda made: getattr(made.trainer, name) == value


def in_steps(name):
    return lambda made: all(state[name] for state in made.record.states) and made.record.states


def validated(count):
    return lambda made: made.record.validated == count


def no_checkpoint(made):
    assert not (made.folder / "checkpoints").exists()
    return "--ckpt_path" not in made.out and (made.folder / "architecture.json").exists()


def profiled(made):
    return len(made.trainer.profiler.recorded_durations["run_training_batch"]) == len(made.record.batches)


def fresh_loaders(made):
    kinds = made.record.loaders
    return len(kinds) == 2 and kinds[0] is not kinds[1] and not same(*(epoch[0] for epoch in made.record.epochs))


def every_epoch_the_same(made):
    one, other = made.record.epochs
    return len(one) == 1 and same(one, other)


def clipped_by_value(made):
    largest = max(float(gradient.abs().max()) for gradient in made.record.gradients)
    return largest == pytest.approx(1e-3)


def clipped_by_norm(made):
    return max(float(gradient.norm()) for gradient in made.record.gradients) == pytest.approx(1e-3, rel=1e-3)


def in_bfloat16(made):
    return made.trainer.precision == "bf16-mixed" and torch.bfloat16 in made.record.dtypes


def elsewhere(made):
    return [path.name for path in Path("elsewhere").iterdir()] == [f"{made.module.run_name}-1"]


def nothing_left(made):
    assert not list(Path().iterdir())
    return len(made.record.batches) == 1


def is_a(attribute, name):
    return lambda made: type(getattr(made.trainer, attribute)).__name__ == name


def without_hparams(made):
    return (made.folder / "config.yaml").exists() and not (made.folder / "hparams.yaml").exists()


def summary_of(text):
    return lambda made: text in made.out


NO_BATCHES = "model.evaluator.trainer"
OWN_STEPS = "a search takes its steps by itself; set a larger data.batch_size"
PLAIN_SGD = '--model.optimizer={"class_path": "SGD", "init_args": {"lr": 0.1, "clip": null, "schedule": null}}'

FLAGS = {
    # flag: value, then what is so in a search, a retraining, a search of trials; words of a refusal
    "accelerator": ("cpu", is_a("accelerator", "CPUAccelerator"), is_a("accelerator", "CPUAccelerator"), NO_BATCHES),
    "strategy": ("ddp", is_a("strategy", "DDPStrategy"), is_a("strategy", "DDPStrategy"), NO_BATCHES),
    "devices": ("2", held("world_size", 2), held("world_size", 2), "executor.n_workers"),
    "num_nodes": ("2", held("world_size", 2), held("world_size", 2), NO_BATCHES),
    "precision": ("bf16-mixed", in_bfloat16, in_bfloat16, "model.evaluator.trainer.precision"),
    "logger": ("false", *[lambda made: not made.trainer.loggers and not (made.folder / "metrics.csv").exists()] * 3),
    "callbacks": ("Timer", *[lambda made: made.trainer.callbacks[0].time_elapsed("train") > 0] * 3),
    "fast_dev_run": ("1", nothing_left, nothing_left, nothing_left),
    "max_epochs": ("3", steps(6), steps(6), steps(2)),
    "min_epochs": ("2", steps(4), steps(4), steps(2)),
    "max_steps": ("3", steps(3), steps(3), NO_BATCHES),
    "min_steps": ("3", steps(3), steps(3), NO_BATCHES),
    "max_time": ("{milliseconds: 300}", steps(1), steps(1), steps(1)),
    "limit_train_batches": ("1", steps(2), steps(2), steps(1)),
    "limit_val_batches": ("2", validated(4), validated(4), NO_BATCHES),
    "limit_test_batches": ("1", held("limit_test_batches", 1), held("limit_test_batches", 1), NO_BATCHES),
    "limit_predict_batches": ("1", *[held("limit_predict_batches", 1)] * 3),
    "overfit_batches": ("1", every_epoch_the_same, every_epoch_the_same, NO_BATCHES),
    "val_check_interval": ("1", validated(4), validated(4), NO_BATCHES),
    "check_val_every_n_epoch": ("2", validated(1), validated(1), NO_BATCHES),
    "num_sanity_val_steps": ("0", *[lambda made: made.record.sane == 0] * 3),
    "log_every_n_steps": (
        "1",
        *[lambda made: len(rows(made, "train/loss")) == 4] * 2,
        lambda made: len(rows(made, "trial/score")) == 2,
    ),
    "enable_checkpointing": ("false", no_checkpoint, no_checkpoint, no_checkpoint),
    "enable_progress_bar": ("true", *[lambda made: made.trainer.progress_bar_callback is not None] * 3),
    "enable_model_summary": (
        "true",
        summary_of("alphas       Parameter, "),
        summary_of("FLOPs per example"),
        lambda made: "parameters\n" not in made.out,
    ),
    "accumulate_grad_batches": ("2", OWN_STEPS, held("global_step", 2), NO_BATCHES),
    "gradient_clip_val": ("1e-3", "set model.optimizer.clip", clipped_by_norm, NO_BATCHES),
    "gradient_clip_algorithm": ("value", "set model.optimizer.clip", clipped_by_value, NO_BATCHES),
    "deterministic": ("true", in_steps("deterministic"), in_steps("deterministic"), NO_BATCHES),
    "benchmark": ("true", in_steps("benchmark"), in_steps("benchmark"), NO_BATCHES),
    "inference_mode": ("false", *[lambda made: made.record.inference is False] * 2, NO_BATCHES),
    "use_distributed_sampler": (
        "false",
        *[lambda made: not made.trainer._accelerator_connector.use_distributed_sampler] * 2,
        NO_BATCHES,
    ),
    "profiler": ("simple", profiled, profiled, profiled),
    "detect_anomaly": ("true", in_steps("anomaly"), in_steps("anomaly"), NO_BATCHES),
    "barebones": ("true", *["leave it out, or use the trainer from Python"] * 3),
    "plugins": (
        "AsyncCheckpointIO",
        *[lambda made: torch.load(made.folder / "checkpoints" / "last.ckpt")["epoch"] == 1] * 2,
        NO_BATCHES,
    ),
    "sync_batchnorm": ("true", *["every device normalises by its own batch"] * 3),
    "reload_dataloaders_every_n_epochs": ("1", fresh_loaders, fresh_loaders, steps(2)),
    "default_root_dir": ("elsewhere", elsewhere, elsewhere, elsewhere),
    "enable_autolog_hparams": ("false", without_hparams, without_hparams, without_hparams),
    "model_registry": ("mine", *[held("_model_registry", "mine")] * 3),  # where a callback of the user's uploads
}

WITH = {
    ("min_epochs", "search"): ["--trainer.max_time={seconds: 0}"],
    ("min_epochs", "retrain"): ["--trainer.max_time={seconds: 0}"],
    ("min_epochs", "trials"): ["--trainer.max_epochs=3", "--trainer.limit_train_batches=1"],
    ("max_epochs", "trials"): ["--model.n_trials=9", "--trainer.limit_train_batches=1", "--trainer.max_epochs=2"],
    ("min_steps", "search"): ["--trainer.max_time={seconds: 0}"],
    ("min_steps", "retrain"): ["--trainer.max_time={seconds: 0}"],
    ("gradient_clip_val", "retrain"): [PLAIN_SGD],
    ("gradient_clip_algorithm", "retrain"): ["--model.optimizer.clip=1e-3"],
}
"""Further flags under which an effect shows."""

BUILT = (
    *("devices", "num_nodes", "use_distributed_sampler"),  # take several processes; two devices have their own test
    *("limit_test_batches", "limit_predict_batches", "model_registry"),  # change nothing in what `fit` does
)
"""Flags of trainers that are built and not used."""


def test_every_flag_of_the_trainer_is_in_the_table():
    signature = inspect.signature(pl.Trainer.__init__).parameters
    assert set(FLAGS) == signature.keys() - {"self"}
    for name, (value, *effects) in FLAGS.items():
        assert len(effects) == 3, name
        assert value not in (str(signature[name].default), str(signature[name].default).lower()), name


@pytest.mark.parametrize("kind", THREE)
@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_works_or_is_refused(flag, kind, run):
    value, *effects = FLAGS[flag]
    effect = effects[THREE.index(kind)]
    further = WITH.get((flag, kind), [])
    given = [] if flag == "max_epochs" and kind == "trials" else [f"--trainer.{flag}={value}"]
    pause = 0.4 if flag == "max_time" else 0.0  # so that the first step takes longer
    made = run(kind, *given, *further, only_built=flag in BUILT, pause=pause)
    if isinstance(effect, str):
        check_refused(made, effect)
    else:
        assert made.status == 0, made.err
        assert effect(made)


ON_EVERY_EPOCH_THE_SAME = {"search": 1, "enas": 2, "retrain": 2}
"""Batches; two of ENAS are one of each phase."""


@pytest.mark.parametrize(("kind", "count"), ON_EVERY_EPOCH_THE_SAME.items())
def test_overfitted_batches_are_bit_equal_in_every_epoch(kind, count, run):
    made = run(kind, "--trainer.max_epochs=3", f"--trainer.overfit_batches={count}")
    one, *others = made.record.epochs
    assert [len(epoch) for epoch in made.record.epochs] == [count] * 3
    assert all(same(one, other) for other in others)
    if kind == "enas":
        assert [list(batch) for batch in one] == [["weights"], ["architecture"]]
    if count > 1:
        assert not same(*(next(iter(batch.values())) for batch in one))  # images are shifted, each in its own way
    plain = run(kind, "--trainer.max_epochs=3", f"--trainer.limit_train_batches={count}")
    assert same(plain.record.epochs[0], one)
    assert not same(plain.record.epochs[1], one)


@pytest.mark.parametrize("kind", [pytest.param("enas", marks=pytest.mark.slow), "retrain"])
def test_reloaded_batches_are_those_that_would_have_come(kind, run):
    reloaded, plain = run(kind, "--trainer.reload_dataloaders_every_n_epochs=1"), run(kind)
    assert same(reloaded.record.batches, plain.record.batches)


def test_ddp_on_one_device_computes_the_same(run):
    states = [run("search", *flags).module.state_dict() for flags in (["--trainer.strategy=ddp"], [])]
    assert same(*states)


@pytest.mark.parametrize("kind", [pytest.param("search", marks=pytest.mark.slow), "retrain"])
def test_validation_within_an_epoch_leaves_training_alone(kind, run):
    often, plain = run(kind, "--trainer.val_check_interval=1"), run(kind)
    names = [name for name in plain.module.state_dict() if "val_metrics" not in name]
    assert names
    assert all(torch.equal(often.module.state_dict()[name], plain.module.state_dict()[name]) for name in names)


# -- limits ------------------------------------------------------------------------------------------------------------

STOPPING = [f"--trainer.callbacks{each}" for each in ("=EarlyStopping", ".min_delta=1e9", ".patience=1")]
"""After the second epoch."""

FOLLOWED = "at least 1, since the learning rate follows it"
NOTHING = "above 0, or nothing is trained"


@pytest.mark.parametrize(
    ("kind", "flags", "words"),
    [
        *((kind, ["--trainer.max_epochs=-1"], FOLLOWED) for kind in ("search", "enas", "retrain")),
        *((kind, ["--trainer.max_epochs=null", "--trainer.max_steps=3"], FOLLOWED) for kind in ("search", "retrain")),
        ("retrain", ["--trainer.max_epochs=null", "--trainer.max_time={hours: 1}"], FOLLOWED),
        *((kind, ["--trainer.max_epochs=0"], NOTHING) for kind in THREE),
        *((kind, ["--trainer.limit_train_batches=0"], NOTHING) for kind in THREE),
        *((kind, ["--trainer.max_steps=0"], NOTHING) for kind in ("search", "retrain")),
        *((kind, ["--trainer.profiler=none"], "simple") for kind in THREE),
        (
            "search",
            ['--trainer.strategy={"class_path": "lightning.pytorch.strategies.ModelParallelStrategy"}'],
            "or ddp",
        ),
        ("search", ["--trainer.strategy=fsdp"], "fsdp"),
        ("retrain", ["--trainer.strategy=fsdp"], "fsdp"),
        ("retrain", ["--trainer.gradient_clip_val=1"], "set model.optimizer.clip"),
    ],
)
def test_a_limit_that_leaves_nothing_to_do_is_refused_at_once(kind, flags, words, run):
    check_refused(run(kind, *flags), words)


def test_without_max_epochs_there_are_a_thousand(run):
    made = run("retrain", "--trainer.max_epochs=null", *STOPPING, "--trainer.callbacks.monitor=train/loss")
    assert made.trainer.max_epochs == 1000
    assert len(made.record.epochs) == 2


def test_a_constant_rate_needs_no_max_epochs(run):
    assert steps(3)(run("retrain", PLAIN_SGD, "--trainer.max_epochs=-1", "--trainer.max_steps=3"))


def test_the_limit_of_test_batches_is_that_of_the_command_test(run):
    checkpoint = run("retrain").folder / "checkpoints" / "last.ckpt"
    made = run(None, f"--ckpt_path={checkpoint}", "--trainer.limit_test_batches=3", command="test")
    assert made.record.tested == 3


@pytest.mark.slow  # processes
@pytest.mark.parametrize("strategy", ["auto", "ddp_spawn"])
@pytest.mark.parametrize("kind", ["search", "enas", "retrain"])
def test_two_devices(kind, strategy, tmp_path):
    flags = [*KINDS[kind], *QUIET, "--trainer.devices=2", f"--trainer.strategy={strategy}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "lightning_nas", "fit", *flags]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    (folder,) = (tmp_path / "runs").iterdir()
    assert (folder / "architecture.json").exists()
    assert torch.load(folder / "checkpoints" / "last.ckpt")["global_step"] == 4


# -- precision ---------------------------------------------------------------------------------------------------------

IN_SEARCH, IN_RETRAINING = "32-true or bf16-mixed, got", "bf16-true or 64-true, got"
IN_TRIALS = "model.evaluator.trainer.precision"
PRECISIONS = {
    # what a network computes in, where it does
    "null": (torch.float32, torch.float32, None),
    "32-true": (torch.float32, torch.float32, None),
    "64-true": (IN_SEARCH, torch.float64, IN_TRIALS),
    "16-mixed": (torch.bfloat16, torch.bfloat16, IN_TRIALS),  # on a CPU Lightning takes bf16-mixed instead
    "bf16-mixed": (torch.bfloat16, torch.bfloat16, IN_TRIALS),
    "bf16-true": (IN_SEARCH, torch.bfloat16, IN_TRIALS),
    "16-true": (IN_SEARCH, IN_RETRAINING, IN_TRIALS),
    "transformer-engine": ("pip install", "pip install", "pip install"),
}


ALIKE = ("null", "16-mixed", "transformer-engine")
"""Like others, so that there is no need to try them every time."""


@pytest.mark.parametrize("kind", THREE)
@pytest.mark.parametrize("precision", [pytest.param(p, marks=[pytest.mark.slow] * (p in ALIKE)) for p in PRECISIONS])
def test_a_precision_runs_to_the_end_or_is_refused(precision, kind, run):
    expected = PRECISIONS[precision][THREE.index(kind)]
    compared = ["--architecture_logger.n_random=1", "--data.batch_size=128"]
    made = run(kind, f"--trainer.precision={precision}", *compared, "--trainer.limit_train_batches=1")
    if isinstance(expected, str):
        check_refused(made, expected)
        return
    check_finished(made)
    assert made.record.dtypes == ({expected} if expected else set())
    if kind == "search":
        assert len((made.folder / "random.csv").read_text().splitlines()) == 1 + 1 + 1


def test_trials_have_a_precision_of_their_own(run):
    check_finished(run("trials", "--model.evaluator.trainer.precision=bf16-mixed"))


# -- callbacks ---------------------------------------------------------------------------------------------------------

WORKS = None
MONITOR = {"search": "val/supernet_loss", "retrain": "val/loss", "trials": "best"}
NEEDS = {
    "EarlyStopping": ["monitor={monitor}"],
    "GradientAccumulationScheduler": ['scheduling={{"0": 2}}'],
    "ModelPruning": ["pruning_fn=l1_unstructured"],
    "OnExceptionCheckpoint": ["dirpath=kept"],
    "PathSearch": ["monitor={monitor}"],
    "StochasticWeightAveraging": ["swa_lrs=0.1"],
    "ThroughputMonitor": ["batch_size_fn=builtins.len"],
}
"""Arguments that have no default."""

BARS = ("ProgressBar", "RichProgressBar", "TQDMProgressBar")
UNTRAINED, LAYERS = "here all begin untrained", "prune the trained network instead"
SIZES, RATES = "set data.batch_size", "set the optimizer's lr"
CALLBACKS = {
    "BackboneFinetuning": (UNTRAINED, UNTRAINED, UNTRAINED),
    "BaseFinetuning": (UNTRAINED, UNTRAINED, UNTRAINED),
    "BasePredictionWriter": (WORKS, WORKS, WORKS),
    "BatchSizeFinder": (SIZES, SIZES, SIZES),
    "Callback": (WORKS, WORKS, WORKS),
    "Checkpoint": (WORKS, WORKS, WORKS),
    "DeviceStatsMonitor": ("psutil", "psutil", "psutil"),
    "EarlyStopping": (WORKS, WORKS, "set model.n_trials or model.budget"),
    "EMAWeightAveraging": (WORKS, WORKS, "has no weights to average"),
    "GradientAccumulationScheduler": ("set a larger data.batch_size", WORKS, "no gradients to accumulate"),
    "LambdaCallback": (WORKS, WORKS, WORKS),
    "LearningRateFinder": (RATES, RATES, RATES),
    "LearningRateMonitor": (WORKS, WORKS, "no learning rate to follow"),
    "ModelCheckpoint": (WORKS, WORKS, "last.ckpt and trials.jsonl are there without it"),
    "ModelPruning": (LAYERS, LAYERS, LAYERS),
    "ModelSummary": (WORKS, WORKS, WORKS),
    "OnExceptionCheckpoint": (WORKS, WORKS, WORKS),
    "ProgressBar": (WORKS, WORKS, WORKS),
    "RichModelSummary": (WORKS, WORKS, WORKS),
    "RichProgressBar": (WORKS, WORKS, WORKS),
    "SpikeDetection": ("a search returns none; leave it out", WORKS, "no loss to follow"),
    "StochasticWeightAveraging": ("use EMAWeightAveraging", "use EMAWeightAveraging", "has no weights to average"),
    "ThroughputMonitor": (WORKS, WORKS, "no batches to count"),
    "Timer": (WORKS, WORKS, WORKS),
    "TQDMProgressBar": (WORKS, WORKS, WORKS),
    "WeightAveraging": ("use EMAWeightAveraging", WORKS, "has no weights to average"),
    # of this package
    "ArchitectureLogger": ("its settings are architecture_logger",) * 3,
    "CloseOnException": ("needs trials",) * 3,
    "Interruption": ("needs folder",) * 3,
    "LastCheckpoint": ("for more checkpoints add a ModelCheckpoint",) * 3,
    "NonMonotoneAveraging": ("use EMAWeightAveraging", WORKS, "has no weights to average"),
    "OwnSearch": ("is abstract",) * 3,
    "PathSearch": ("in a LightningModule of your own",) * 3,
    "RelaxedSearch": ("in a LightningModule of your own",) * 3,
    "RunSettings": ("needs settings",) * 3,
    "Summary": (WORKS, WORKS, WORKS),
}


def subclasses(cls):
    return {cls, *(deeper for direct in cls.__subclasses__() for deeper in subclasses(direct))}


def test_every_callback_is_in_the_table():
    modules = ("lightning_nas.callbacks.", "lightning_nas.cli.", "lightning_nas.trials.", "lightning_nas.training.")
    ours = {cls.__name__ for cls in subclasses(pl.Callback) if cls.__module__.startswith(modules)}
    assert CALLBACKS.keys() == {*lightning_callbacks.__all__, *ours}


def slow_runs(table):
    """The rows of a table for each kind; slow are other kinds than retrainings where nothing else is said of them."""
    for name, expected in table.items():
        for kind, each in zip(THREE, expected, strict=True):
            marks = [pytest.mark.slow] if kind != "retrain" and each in (WORKS, expected[1]) else []
            yield pytest.param(name, kind, marks=marks)


@pytest.mark.parametrize(("callback", "kind"), slow_runs(CALLBACKS))
def test_a_single_callback_works_or_is_refused(callback, kind, run):
    given = [argument.format(monitor=MONITOR[kind]) for argument in NEEDS.get(callback, [])]
    flags = [f"--trainer.callbacks={callback}", *(f"--trainer.callbacks.{argument}" for argument in given)]
    made = run(kind, *flags, *(["--trainer.enable_progress_bar=true"] if callback in BARS else []))
    words = CALLBACKS[callback][THREE.index(kind)]
    if callback == "DeviceStatsMonitor" and lightning_callbacks.device_stats_monitor._PSUTIL_AVAILABLE:
        words = WORKS
    if words is not WORKS:
        check_refused(made, words)
    else:
        check_finished(made)
        assert callback in [type(each).__name__ for each in made.trainer.callbacks]


@pytest.mark.parametrize("callback", NEEDS)
def test_what_a_callback_needs_is_said(callback, run):
    argument = NEEDS[callback][0].partition("=")[0]
    check_refused(run("retrain", f"--trainer.callbacks={callback}"), f"trainer.callbacks: {callback} needs {argument}")


@pytest.mark.parametrize(
    ("kind", "flags", "there_are"),
    [
        ("search", ["monitor=nonsense"], "val/supernet_loss, val/supernet_accuracy, arch/entropy"),
        ("search", ["monitor=val/loss"], "val/supernet_loss"),
        ("enas", ["monitor=val/loss"], "controller/reward"),
        ("retrain", ["monitor=nonsense"], "train/loss, train/accuracy, val/loss, val/accuracy"),
    ],
)
@pytest.mark.parametrize("callback", ["EarlyStopping", "ModelCheckpoint"])
def test_a_figure_that_there_is_not_is_refused_at_once(callback, kind, flags, there_are, run):
    made = run(kind, f"--trainer.callbacks={callback}", *(f"--trainer.callbacks.{flag}" for flag in flags))
    check_refused(made, there_are)
    assert not made.record.batches


@pytest.mark.parametrize("flag", ["--model.train_on=all", "--trainer.limit_val_batches=0"])
@pytest.mark.parametrize("callback", ["EarlyStopping", "NonMonotoneAveraging"])
def test_validation_that_there_is_not_is_not_followed(callback, flag, run):
    monitor = ["--trainer.callbacks.monitor=val/loss"] if callback == "EarlyStopping" else []
    made = run("retrain", f"--trainer.callbacks={callback}", *monitor, flag)
    check_refused(made, "there are train/loss, train/accuracy" if monitor else "set model.train_on to weights")


def test_early_stopping_stops(run):
    made = run("search", "--trainer.max_epochs=9", *STOPPING, "--trainer.callbacks.monitor=val/supernet_loss")
    assert check_finished(made)
    assert len(made.record.epochs) == 2


@pytest.mark.parametrize("kind", [pytest.param("search", marks=pytest.mark.slow), "retrain"])
def test_checkpoints_of_the_users_stand_beside_ours(kind, run):
    best = f"--trainer.callbacks.monitor={MONITOR[kind]}"
    made = run(kind, "--trainer.callbacks=ModelCheckpoint", best, "--trainer.callbacks.filename=best")
    assert check_finished(made)
    assert {path.name for path in (made.folder / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}


@pytest.mark.parametrize(
    ("kind", "callback", "name"),
    [
        ("search", "EMAWeightAveraging", "alphas"),
        ("retrain", "EMAWeightAveraging", "network.stem.0.weight"),
        ("retrain", "WeightAveraging", "network.stem.0.weight"),
    ],
)
def test_averaged_weights_are_what_is_left(kind, callback, name, run):
    made = run(kind, f"--trainer.callbacks={callback}")
    left = torch.load(made.folder / "checkpoints" / "last.ckpt")
    assert not torch.equal(left["state_dict"][name], left["current_model_state"][name])
    assert torch.equal(left["state_dict"][name], made.module.state_dict()[name])


def test_accumulation_by_a_callback(run):
    scheduling = '--trainer.callbacks.scheduling={"0": 2}'
    assert run("retrain", "--trainer.callbacks=GradientAccumulationScheduler", scheduling).trainer.global_step == 2


def test_rates_are_logged(run):
    made = run("search", "--trainer.callbacks=LearningRateMonitor", "--trainer.log_every_n_steps=1")
    assert rows(made, "lr-SGD")[0] == 0.025
    assert rows(made, "lr-Adam")[0] == 0.02


@pytest.mark.parametrize(
    ("callbacks", "words"),
    [
        ("[ModelCheckpoint, ModelCheckpoint]", "more than one stateful callback of type `ModelCheckpoint`"),
        ("[LearningRateMonitor, Nonsense]", "there is no class Nonsense"),
        ("Nonsense", "there is no class Nonsense"),
        ("[EarlyStopping]", "EarlyStopping needs monitor"),
        ("TQDMProgressBar", "enable_progress_bar=False"),
    ],
)
def test_callbacks_that_cannot_be(callbacks, words, run):
    check_refused(run("retrain", f"--trainer.callbacks={callbacks}"), words)


def test_several_callbacks(run):
    made = run("retrain", "--trainer.callbacks+=LearningRateMonitor", "--trainer.callbacks+=Timer")
    assert check_finished(made)
    names = [type(each).__name__ for each in made.trainer.callbacks]
    assert {"LearningRateMonitor", "Timer", "LastCheckpoint"} <= set(names)


def test_a_run_continues_with_its_callbacks(run):
    checkpoint = run("retrain", "--trainer.callbacks=Timer").folder / "checkpoints" / "last.ckpt"
    more = run(None, f"--ckpt_path={checkpoint}", "--trainer.max_epochs=4")
    assert len(more.record.epochs) == 2
    assert type(more.trainer.callbacks[0]).__name__ == "Timer"  # whose interval is a constant that YAML does not know


# -- loggers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["retrain", *(pytest.param(k, marks=pytest.mark.slow) for k in ("search", "trials"))])
def test_a_logger_writes_elsewhere_and_the_run_stays_in_its_folder(kind, run):
    made = run(kind, "--trainer.logger=CSVLogger", "--trainer.logger.save_dir=logs")
    assert check_finished(made)
    assert list(Path("logs").rglob("metrics.csv"))
    assert (made.folder / "checkpoints" / "last.ckpt").exists()
    assert f"{made.folder.name}/" in made.out.splitlines()[-1]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["CSVLogger"], "trainer.logger: CSVLogger needs save_dir"),
        (["TensorBoardLogger"], "trainer.logger: TensorBoardLogger needs save_dir"),
        (["Nonsense"], "trainer.logger: there is no class Nonsense"),
    ],
)
def test_a_logger_that_cannot_be(flags, words, run):
    check_refused(run("retrain", f"--trainer.logger={flags[0]}"), words)


@pytest.mark.parametrize(
    ("logger", "module"),
    [("TensorBoardLogger", "tensorboard"), ("MLFlowLogger", "mlflow"), ("CometLogger", "comet_ml")],
)
def test_a_logger_whose_package_is_missing(logger, module, run):
    try:
        __import__(module)
    except ImportError:
        pass
    else:
        pytest.skip(f"{module} is installed")
    save_dir = ["--trainer.logger.save_dir=."] if logger == "TensorBoardLogger" else []
    made = run("retrain", f"--trainer.logger={logger}", *save_dir)
    check_refused(made, f"trainer: {logger}: ")
    assert "pip install" in made.err
    assert "Expected" not in made.err


# -- figures -----------------------------------------------------------------------------------------------------------


def logged(module, data):
    """The names of the figures after three epochs, without what Lightning appends to them."""
    trainer = quiet_trainer(max_epochs=3, num_sanity_val_steps=0)
    trainer.fit(module, data)
    return {name.removesuffix("_step").removesuffix("_epoch") for name in trainer.callback_metrics}


FIGURES = ["darts-rnn", "random-search-ws-rnn", "enas-macro", "snas", "gdas", "p-darts", "spos"]  # enas-macro has skips
OTHERS = [pytest.param(case, marks=pytest.mark.slow) for case in ("darts-first", "enas-micro", "enas-rnn")]


@pytest.mark.parametrize("case", [*FIGURES, *OTHERS])
def test_a_method_logs_the_figures_that_it_declares(case):
    method = CASES[case].build()
    assert isinstance(method, OneShotMethod)
    assert logged(method, CASES[case].data(0)) == set(method.figures)


def test_every_method_has_its_figures_compared():
    assert {type(CASES[case].build()) for case in FIGURES} == {type(case.build()) for case in CASES.values()}


@pytest.mark.parametrize("train_on", ["all", "weights"])
@pytest.mark.parametrize(
    ("architecture", "network"), [("darts_v2", {"channels": 2, "cells": 1}), ("darts_ptb_v2", None)]
)
def test_a_retraining_logs_the_figures_that_it_declares(architecture, network, train_on):
    images = network is not None
    task, data = (ImageClassification(), Digits(batch_size=128)) if images else (LanguageModeling(), Words())
    module = Retrain(architecture, task, network or {"hidden": 6}, train_on=train_on, drop_path=0.0)
    assert logged(module, data) == set(module.figures)


def test_trials_log_the_figures_that_they_declare():
    trained = FromScratch(
        ImageClassification(), {"channels": 2, "cells": 1}, epochs=1, trainer={"limit_train_batches": 1}
    )
    method = TrialSearch(NASBench201(), RandomSearch(), trained, n_trials=2)
    assert logged(method, Digits(batch_size=128)) == set(method.figures)
