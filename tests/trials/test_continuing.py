"""A search of trials continues from its checkpoint: from where it stands, and after all has been checked."""

import json
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest

from lightning_nas.callbacks import ArchitectureLogger
from lightning_nas.cli.main import main
from lightning_nas.data import NoData
from lightning_nas.errors import SettingError
from lightning_nas.evaluators import TabularBenchmark
from lightning_nas.runs.folder import RunFolder
from lightning_nas.spaces import DARTSCell, ENASMicro, NASBench201, NASNetCell, OwnSpace
from lightning_nas.strategies import AgingEvolution, RandomSearch
from lightning_nas.trials import TrialSearch
from lightning_nas.trials.locked_file import LockedFile
from lightning_nas.trials.retraining import retrain_config
from tests.helpers.own_network import Net

OPERATIONS = ["skip_connect", "nor_conv_3x3"]
SPACE = NASBench201(OPERATIONS)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the parser, as in Lightning's command line


def write_table(path, n_lines=64):
    rows = [f"{k:06b},{k.bit_count()},{1 + k % 3}" for k in range(n_lines)]
    path.write_text("\n".join(["arch,valid,seconds", *rows]) + "\n")


@pytest.fixture
def table(tmp_path):
    write_table(tmp_path / "table.csv")
    return TabularBenchmark(str(tmp_path / "table.csv"), "valid", cost="seconds", digits="arch")


def search(table, **settings):
    return TrialSearch(SPACE, **({"strategy": RandomSearch(), "evaluator": table} | settings))


class Steps(pl.Callback):
    """Notes which steps the trainer counts, and of how many."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append((batch_idx, trainer.num_training_batches))


def fit(folder, module, ckpt_path=None, **settings):
    steps = Steps()
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    checkpoints = pl.callbacks.ModelCheckpoint(folder / "checkpoints", filename="last")
    trainer = pl.Trainer(max_epochs=1, default_root_dir=folder, callbacks=[checkpoints, steps], **quiet, **settings)
    trainer.fit(module, NoData(), ckpt_path=ckpt_path)
    return steps.seen


def lines(folder):
    return [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("settings", "expected"), [({}, range(7, 12)), ({"round_size": 3}, range(2, 4))])
def test_the_bar_goes_on_from_where_the_search_stands(settings, expected, table, tmp_path):
    first = fit(tmp_path / "run", search(table, n_trials=7, **settings))
    assert [number for number, _ in first] == list(range(len(first)))
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    seen = fit(tmp_path / "more", search(table, n_trials=12, **settings), checkpoint)
    assert seen == [(number, expected.stop) for number in expected]
    assert len(lines(tmp_path / "more")) == 1 + 12


def test_a_user_who_limits_the_steps_of_a_run_gets_as_many(table, tmp_path):
    fit(tmp_path / "run", search(table, n_trials=7))
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert len(fit(tmp_path / "more", search(table, n_trials=20), checkpoint, limit_train_batches=3)) == 3


def test_failed_trials_are_run_again_where_the_search_continues(table, tmp_path):
    write_table(tmp_path / "table.csv", n_lines=32)  # half of the cells are missing
    first = search(table, n_trials=20, strategy=AgingEvolution(5, 2), max_failures=20)
    fit(tmp_path / "run", first)
    assert first.trials.n_failed > 0
    write_table(tmp_path / "table.csv")
    table._space = None  # else the table stays as it was read
    mended = search(table, n_trials=20, strategy=AgingEvolution(5, 2), max_failures=20, retry_failed=True)
    seen = fit(tmp_path / "more", mended, tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert mended.trials.n_failed == 0
    assert len(lines(tmp_path / "more")) == 1 + 20 + first.trials.n_failed
    assert seen == [(20, 21)]  # all of them in one round
    assert {trial.number: trial.score for trial in mended.trials.history} == {
        trial.number: sum(trial.architecture) for trial in mended.trials.history
    }


def test_what_is_reused_is_counted_and_said(table, tmp_path):
    module = search(table, n_trials=40, strategy=AgingEvolution(5, 2), reuse=True)
    fit(tmp_path / "run", module)
    n_reused = sum("same_as" in line for line in lines(tmp_path / "run"))
    assert n_reused == 40 - len({trial.architecture for trial in module.trials.history}) > 0
    said = module.conclude(None, RunFolder(tmp_path / "run"), 0).describe()
    assert f"trials       40, {n_reused} reused; " in said


# -- refused before anything is made ---------------------------------------------------------------------------------


@pytest.fixture
def run(table, tmp_path, monkeypatch):
    """A search by the command line, in runs/; returns the command that continues it."""
    monkeypatch.chdir(tmp_path)
    settings = {"model.evaluator.path": "table.csv", "model.evaluator.guide": "valid", "model.evaluator.digits": "arch"}
    settings |= {"model.n_trials": "8", "model.space.operations": json.dumps(OPERATIONS)}
    flags = [f"--{name}={value}" for name, value in settings.items()]
    command = ["fit", "--config=random_search/quickstart", "--model.evaluator=TabularBenchmark", "--data=NoData"]
    quiet = ["--trainer.enable_progress_bar=false", "--architecture_logger.n_random=0"]
    assert main([*command, *flags, *quiet]) == 0
    return ["fit", "--ckpt_path=runs/randomsearch-1/checkpoints/last.ckpt", "--model.n_trials=12"]


def damaged(log):
    log.write_text(log.read_text().replace('"told": 3', '"told": x'))


def taken_out(log):
    log.write_text("".join(line for line in log.open() if '"number": 3' not in line))


@pytest.mark.parametrize(
    ("accident", "message"),
    [
        (damaged, "runs/randomsearch-1/trials.jsonl: line 5: Expecting value: "),
        (
            taken_out,
            "runs/randomsearch-1/trials.jsonl: line 5: told: expected a whole number up to 3; put the file",
        ),
        (
            lambda log: log.unlink(),
            "ckpt_path: next to the checkpoint's folder there is no runs/randomsearch-1/tria",
        ),
        (LockedFile, "runs/randomsearch-1/trials.jsonl: another search is writing to it; wait for its end"),
        (lambda log: (log.parents[2] / "table.csv").unlink(), "table.csv: cannot be read as a table (No such file"),
    ],
    ids=["damaged", "taken out", "missing", "in use", "no table"],
)
def test_a_continuation_that_is_refused_leaves_nothing(accident, message, run, tmp_path, capsys):
    kept = accident(tmp_path / "runs" / "randomsearch-1" / "trials.jsonl")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != "__pycache__"}
    assert main(run) == 2
    assert f"error: {message}" in capsys.readouterr().err
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != "__pycache__"}
    before.pop(tmp_path / "runs"), after.pop(tmp_path / "runs")  # an empty folder came and went
    assert after == before
    del kept


def test_a_search_whose_evaluator_refuses_leaves_no_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config=random_search/quickstart", "--data=NoData"]) == 2
    assert "error: model.evaluator: FromScratch trains networks, which needs data" in capsys.readouterr().err
    assert not list(tmp_path.glob("runs/*"))


# -- what comes next -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "named", "expected"),
    [
        (DARTSCell(), "darts/retrain.yaml", "darts/retrain.yaml"),
        (NASNetCell(), "darts/retrain.yaml", "darts/retrain.yaml"),
        (NASBench201(), "darts/retrain.yaml", "nas_bench_201/retrain.yaml"),
        (SPACE, "darts/retrain", "nas_bench_201/retrain.yaml"),
        (ENASMicro(), "darts/retrain.yaml", "enas/retrain.yaml"),
        (ENASMicro(), "nas_bench_201/quickstart_retrain.yaml", "enas/quickstart_retrain.yaml"),
        (OwnSpace(Net), "darts/retrain.yaml", "own/retrain.yaml"),
    ],
)
def test_what_is_found_is_retrained_by_a_configuration_of_its_space(space, named, expected):
    assert retrain_config(named, space) == expected


def test_a_configuration_of_the_users_own_is_kept(tmp_path):
    (tmp_path / "retrain.yaml").write_text("model: {init_args: {network: {auxiliary: true}}}")
    assert retrain_config(str(tmp_path / "retrain.yaml"), SPACE) == str(tmp_path / "retrain.yaml")


def test_the_next_command_has_the_configuration_of_the_space(table, tmp_path):
    logger = ArchitectureLogger(retrain_config="darts/retrain.yaml")
    module = search(table, n_trials=3)
    module.check(pl.Trainer(callbacks=[logger], default_root_dir=tmp_path, logger=False, accelerator="cpu"), NoData())
    found = SimpleNamespace(run=RunFolder(tmp_path), next_step="retrain", found=SimpleNamespace(space=module.space))
    assert "fit --config nas_bench_201/retrain.yaml --model.architecture" in logger.next_command(found, NoData())
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_two_searches_of_one_folder_are_refused(table, tmp_path):
    held = LockedFile(tmp_path / "run" / "trials.jsonl")
    with pytest.raises(SettingError, match="another search is writing to it"):
        fit(tmp_path / "run", search(table, n_trials=3))
    held.close()
