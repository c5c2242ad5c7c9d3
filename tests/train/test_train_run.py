import json
import re
import shutil
from pathlib import Path

import evaluation_trees as trees
import pytest
import torch
from click.testing import CliRunner
from train_fakes import FakeLoader, use_fakes
from train_process import metrics, same

import train
from configs import strict
from tracker.config import ModelConfig
from tracker.training.checkpoint import read
from tracker.training.config import FREE_KEYS, TrainConfig, free_keys
from tracker.training.evaluation_results import FIGURES, Result, append_results
from tracker.training.meter import TIMES

ROOT = Path(train.__file__).parent
KEYS = [
    "step", "epoch", "samples", "loss", "cm_cls", "cm_reg", "fm_cls", "fm_reg", "grad_norm", "lr",
    *TIMES,
]  # fmt: skip
STEPS = 10  # of 4 an epoch


@pytest.fixture(autouse=True)
def _torch_is_left_as_it_was(monkeypatch):
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    for name in ("RANK", "WORLD_SIZE", "FAKE_FAIL", "FAKE_SLOW"):
        monkeypatch.delenv(name, raising=False)
    yield
    torch.set_rng_state(state)
    torch.set_num_threads(threads)


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Run train.py with the fakes; the defaults can be overridden by later --set."""
    use_fakes(monkeypatch.setattr)
    (tmp_path / "tiny.yaml").write_text(
        "data: {pairs_per_epoch: 18}\n"
        "train:\n  batch_size: 4\n  warmup_steps: 6\n  lr: 0.5\n  momentum: 0.9\n"
        "  threads: 1\n  log_every: 3\n  checkpoint_every: 0\n  epochs: 9\n"
    )
    monkeypatch.chdir(tmp_path)

    def start(*arguments, code=0):
        result = CliRunner().invoke(train.main, ["--config", "tiny.yaml", *map(str, arguments)])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return start


def test_a_run_leaves_its_records(start):
    result = start("--steps", STEPS, "--data", "somewhere")
    out = Path("runs/tiny")
    lines = metrics(out, times=True)
    assert [line["step"] for line in lines] == [3, 6, 9, 10]
    assert [line["epoch"] for line in lines] == [0, 1, 2, 2]
    assert [line["samples"] for line in lines] == [12, 24, 36, 40]
    assert all(list(line) == KEYS for line in lines[:3])
    assert list(lines[3]) == [*KEYS[:3], "partial", *KEYS[3:]]
    assert lines[0]["lr"] == pytest.approx(0.5 * (1 - (1 - 2 / 6) * 29 / 30))
    assert lines[-1]["lr"] == 0.5
    names = {path.name for path in out.iterdir()}
    assert names == {
        ".lock", "config.yaml", "run.json", "metrics.jsonl", "tensorboard", "latest.pth",
        "epoch_1.pth", "epoch_2.pth", "step_00000010.pth", "best.pth", "best.json",
    }  # fmt: skip
    assert strict.load(train.RunConfig, out / "config.yaml").data.path == "somewhere"
    assert "not on disk: coco" in (out / "config.yaml").read_text()
    record = json.loads((out / "run.json").read_text())
    assert record["init"] == {"source": "fake weights", "warning": None}
    assert record["data"]["datasets"]["lasot"]["index_sha256"] == "a"
    assert record["world_size"] == 1
    assert record["versions"]["torch"] == torch.__version__.split("+")[0]
    for text in (
        "from the start, to step 10", "first weights: fake weights",
        "Warning: no coco: going on with lasot 1", "Done: 10 steps",
    ):  # fmt: skip
        assert text in result.stdout
    assert result.stderr == ""


def test_a_line_of_metrics_is_the_mean_of_its_steps(start):
    start("--steps", 6, "--out", "each", "--set", "train.log_every=1")
    start("--steps", 6, "--out", "three")
    each, three = metrics("each"), metrics("three")
    for name in KEYS[3:9]:
        means = [sum(line[name] for line in each[i : i + 3]) / 3 for i in (0, 3)]
        assert [line[name] for line in three] == pytest.approx(means, rel=1e-6)


@pytest.mark.parametrize("stop", range(1, STEPS))
def test_stopped_at_any_step_and_resumed_nothing_differs(start, stop):
    start("--steps", STEPS, "--out", "whole")
    start("--steps", stop, "--out", "parts")
    result = start("--steps", STEPS, "--out", "parts")
    assert f"going on after step {stop}, to step {STEPS}" in result.stdout
    assert same(read(Path("whole/latest.pth")), read(Path("parts/latest.pth")))
    assert metrics("parts") == metrics("whole")


@pytest.mark.parametrize("amp", ["off", "bf16"])
@pytest.mark.parametrize("stop", [3, 4])  # within the epoch of the heads, and at its end
def test_another_optimizer_and_precision_resume_as_well(start, amp, stop):
    keys = ["train.optimizer=adamw", "train.momentum=0", "train.lr=0.01", f"train.amp={amp}"]
    options = [part for key in keys for part in ("--set", key)]
    start("--steps", 7, "--out", "whole", *options)
    start("--steps", stop, "--out", "parts", *options)
    start("--steps", 7, "--out", "parts", *options)
    assert same(read(Path("whole/latest.pth")), read(Path("parts/latest.pth")))


def test_killed_between_checkpoints_the_lines_since_are_made_again(start, monkeypatch):
    start("--steps", STEPS, "--out", "whole", "--set", "train.checkpoint_every=3")
    monkeypatch.setenv("FAKE_FAIL", "0:7:bug")
    with pytest.raises(ZeroDivisionError):
        start("--out", "parts", "--set", "train.checkpoint_every=3")
    assert read(Path("parts/latest.pth"))["meta"]["step"] == 6
    with Path("parts/metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "loss": 1}\n{"st')
    monkeypatch.delenv("FAKE_FAIL")
    start("--steps", STEPS, "--out", "parts", "--set", "train.checkpoint_every=3")
    assert same(read(Path("whole/latest.pth")), read(Path("parts/latest.pth")))
    assert metrics("parts") == metrics("whole")


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_ends_the_step_and_writes_a_checkpoint(start, monkeypatch, name, code):
    start("--steps", STEPS, "--out", "whole")
    monkeypatch.setenv("FAKE_FAIL", f"0:4:{name}")
    result = start("--out", "parts", code=code)
    assert f"Stopped by {name} after step 6" in result.stderr
    monkeypatch.delenv("FAKE_FAIL")
    start("--steps", STEPS, "--out", "parts")
    assert same(read(Path("whole/latest.pth")), read(Path("parts/latest.pth")))


def test_checkpoints_between_epochs_are_those_asked_for(start):
    start("--steps", 7, "--set", "train.checkpoint_every=2", "--set", "train.keep=9")
    names = {path.name for path in Path("runs/tiny").glob("*_*.pth")}
    assert names == {"epoch_1.pth", *(f"step_0000000{n}.pth" for n in (2, 6, 7))}


def test_time_makes_checkpoints_too_and_changes_nothing_else(start):
    start("--steps", 6, "--out", "whole")
    start("--steps", 6, "--out", "often", "--set", "train.checkpoint_minutes=1e-9")
    names = {path.name for path in Path("often").glob("*_*.pth")}
    assert names == {"epoch_1.pth", "step_00000005.pth", "step_00000006.pth"}
    assert metrics("often") == metrics("whole")


def test_a_damaged_newest_checkpoint_falls_back_with_a_warning(start):
    start("--steps", STEPS, "--out", "whole")
    start("--steps", STEPS, "--out", "parts")
    Path("parts/step_00000010.pth").write_bytes(b"half")
    result = start("--steps", STEPS, "--out", "parts")
    assert "Warning: parts/step_00000010.pth: damaged" in result.stderr
    assert Path("parts/step_00000010.pth.damaged").read_bytes() == b"half"
    assert "going on after step 8" in result.stdout
    assert same(read(Path("whole/latest.pth")), read(Path("parts/latest.pth")))


def test_a_finished_run_says_so(start):
    start("--steps", 5)
    before = Path("runs/tiny/metrics.jsonl").read_bytes()
    assert start("--steps", 5).stdout == "runs/tiny: finished, 5 steps are done and 5 asked for.\n"
    assert "finished, 5 steps are done and 3 asked for" in start("--steps", 3).stdout
    assert Path("runs/tiny/metrics.jsonl").read_bytes() == before


def test_steps_end_with_the_epochs(start):
    result = start("--steps", 1000, "--set", "train.epochs=2")
    assert "Done: 8 steps" in result.stdout
    assert "finished, 8 steps are done and 8" in start("--set", "train.epochs=2").stdout
    assert "going on after step 8, to step 12" in start("--set", "train.epochs=3").stdout


def test_another_configuration_in_the_folder_is_refused(start):
    start("--steps", 5)
    result = start("--set", "train.lr=0.25", "--set", "data.seed=8", code=1)
    assert result.stderr == (
        "Error: runs/tiny/step_00000005.pth is of another configuration: data.seed was 7, now 8; "
        "train.lr was 0.5, now 0.25; give another --out, or the same configuration\n"
    )
    free = ["data.path=x", "data.threads=3", "data.prefetch=9", "train.log_every=1"]
    free += ["train.threads=2", "train.checkpoint_every=3", "train.keep=1"]
    free += ["train.checkpoint_minutes=3", "data.remote.connections=2"]
    free += ["model.track.match.window=0.3", "model.track.match.proposals.keep=5"]
    start("--steps", 6, *(part for key in free for part in ("--set", key)))
    assert metrics("runs/tiny")[-1]["step"] == 6


def test_the_keys_that_may_differ_exist():
    keys = strict.flat(strict.dump(train.RunConfig()))
    for free in FREE_KEYS:
        assert any(key == free or key.startswith(f"{free}.") for key in keys), free


def test_the_epochs_of_a_cosine_may_not_differ():
    assert "train.epochs" in free_keys(TrainConfig())
    assert set(FREE_KEYS) - set(free_keys(TrainConfig(lr_schedule="cosine"))) == {"train.epochs"}


def test_resume_never_and_from_a_path(start):
    start("--steps", 5)
    assert "holds a run of 5 steps" in start("--resume", "never", code=1).stderr
    other, whole = ("--out", "other", "--resume", "runs/tiny/latest.pth"), ("--out", "whole")
    start("--steps", 8, *other)
    start("--steps", 8, *whole, "--resume", "never")
    contents = [read(Path(name, "latest.pth")) for name in ("whole", "other")]
    assert [one["meta"].pop("begun") for one in contents] == [
        {"resume": "never", "step": 0},
        {"resume": str(Path("runs/tiny/latest.pth").absolute()), "step": 5},
    ]
    assert same(*contents)
    # the same commands again, as after a failure of a machine
    result = start("--steps", 9, *other)
    assert "other, going on after step 8" in result.stdout
    assert "begun from runs/tiny/latest.pth: going on from its epoch_2.pth" in result.stderr
    start("--steps", 10, "--out", "other")
    assert "finished, 10 steps" in start("--steps", 10, *other).stdout
    result = start("--steps", 9, *whole, "--resume", "never")
    assert "whole, going on after step 8" in result.stdout
    assert "Warning: --resume never has begun the run of this folder: going on" in result.stderr
    # other runs are not mixed with these
    assert "holds a run of 10 steps" in start("--out", "other", "--resume", "never", code=1).stderr
    result = start(*whole, "--resume", "runs/tiny/latest.pth", code=1)
    assert "holds a run of 9 steps that was begun anew, which --resume runs/tiny" in result.stderr
    start("--steps", 12)
    result = start("--steps", 20, *other, code=1)
    assert "begun from " in result.stderr
    assert "latest.pth of step 5, which --resume runs/tiny/latest.pth (step 12)" in result.stderr
    Path("runs/tiny").rename("moved")
    assert "latest.pth, now lost: going on from" in start("--steps", 11, *other).stderr
    Path("moved").rename("runs/tiny")
    result = start("--resume", "none.pth", code=1)
    assert result.stderr == "Error: none.pth: no such checkpoint\n"
    other = [
        "--resume",
        "runs/tiny/latest.pth",
        "--out",
        "third",
        "--config",
        "siamfc_alexnet.yaml",
    ]
    assert start(*other, code=1).stderr.startswith(
        "Error: runs/tiny/latest.pth is of the model spm_alexnet, this run is of siamfc_alexnet; "
    )
    torch.save({"w": torch.zeros(1)}, "weights.pth")
    assert "--set model.init=weights.pth" in start("--resume", "weights.pth", code=1).stderr


def test_a_resumed_run_keeps_the_warning_of_its_first_weights(start, monkeypatch):
    report = train.InitReport(source="random", warning="no ImageNet weights")
    monkeypatch.setattr(train, "initialise", lambda model, config: report)
    start("--steps", 2)

    def forbidden(model, config):
        raise AssertionError("a resumed run needs no first weights")

    monkeypatch.setattr(train, "initialise", forbidden)
    assert "Warning: no ImageNet weights" in start("--steps", 3).stdout
    record = json.loads(Path("runs/tiny/run.json").read_text())
    assert record["init"]["warning"] == "no ImageNet weights"
    assert [one["step"] for one in record["starts"]] == [0, 2]


def test_other_data_are_refused_unless_they_are_allowed(start, monkeypatch):
    start("--steps", 2)
    monkeypatch.setattr(FakeLoader, "data", "b")
    assert start("--steps", 3, code=1).stderr == "Error: these are other data\n"
    result = start("--steps", 3, "--allow-data-change")
    assert "Warning: other data, as --allow-data-change allows: these are other" in result.stderr
    starts = json.loads(Path("runs/tiny/run.json").read_text())["starts"]
    assert [one.get("data_change") for one in starts] == [None, ["these are other data"]]
    assert start("--steps", 4).stderr == ""  # from now on these are the run's
    change = ["--allow-data-change", "--set", "data.weights.lasot=1"]
    assert "is of another configuration: data.weights.coco was" in start(*change, code=1).stderr


def test_the_best_epoch_is_that_of_the_lowest_training_loss(start):
    start("--steps", 16, "--set", "train.keep_epochs=1", "--set", "train.log_every=1")
    out = Path("runs/tiny")
    losses = {}
    for line in metrics(out):
        losses.setdefault(4 * line["epoch"] + 4, []).append(line["loss"])
    means = {str(step): sum(values) / 4 for step, values in losses.items()}
    found = json.loads((out / "best.json").read_text())
    assert found["judged"] == pytest.approx(means, rel=1e-6)
    lowest = min(means, key=means.get)
    assert (found["step"], found["by"]) == (int(lowest), "training loss")
    kept = {f"epoch_{int(lowest) // 4}.pth", "epoch_4.pth"}
    assert {path.name for path in out.glob("epoch_*.pth")} == kept
    assert read(out / "best.pth")["meta"]["step"] == int(lowest)


def test_a_stop_within_an_epoch_changes_nothing_in_what_is_best(start):
    start("--steps", 9, "--out", "whole")
    for steps in (2, 5, 7, 9):
        start("--steps", steps, "--out", "parts")
    files = [Path(name, "best.json").read_text() for name in ("whole", "parts")]
    assert files[0] == files[1]


def test_an_epoch_whose_judging_was_killed_is_judged_at_the_next_start(start, monkeypatch):
    start("--steps", 8, "--out", "whole")

    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    for steps in (4, 8):
        with monkeypatch.context() as patch:
            patch.setattr(train.Saver, "judge", die)
            with pytest.raises(Killed):
                start("--steps", steps, "--out", "parts")
        for name in ("best.pth", "best.json") if steps == 4 else ():
            assert not Path("parts", name).exists()
        assert "finished" in start("--steps", steps, "--out", "parts").stdout
        assert read(Path("parts/best.pth"))["meta"]["step"] <= steps
    files = [Path(name, "best.json").read_text() for name in ("whole", "parts")]
    assert files[0] == files[1]


def test_the_loss_does_not_displace_what_an_evaluation_found(start):
    trees.otb(Path("otb"), "Boy", 3)
    start("--steps", 4)
    figures = dict.fromkeys(FIGURES, 0.25)
    result = Result(step=4, epoch=1, dataset="otb", split="all", figures=figures, seconds=1.0)
    append_results(Path("runs/tiny/evaluations.jsonl"), [result])
    best = Path("runs/tiny/best.json")
    assert json.loads(best.read_text())["by"] == "training loss"
    evaluate = "train.evaluate={every: 99, root: otb, split: all}"  # none is due in these steps
    start("--steps", 5, "--set", evaluate)
    found = json.loads(best.read_text())
    assert (found["by"], found["judged"]) == ("otb all auc", {"4": 0.25})
    warning = start("--steps", 12).stderr
    assert warning.count("best.pth stays the best by otb all auc, with which a training loss") == 1
    assert json.loads(best.read_text()) == found
    best.unlink()  # what the evaluations have found is still known
    start("--steps", 13, "--set", evaluate)
    assert json.loads(best.read_text()) == found


def test_where_an_evaluation_judges_the_loss_does_not(start):
    trees.otb(Path("otb"), "Boy", 3)
    evaluate = "train.evaluate={every: 99, root: otb, split: all}"  # none is due in these steps
    start("--steps", 5, "--set", evaluate)
    assert not Path("runs/tiny/best.json").exists()


def test_data_of_another_grid_are_refused(start, monkeypatch):
    monkeypatch.setattr(FakeLoader, "grid", "corner")
    result = start(code=1)
    assert result.stderr.startswith("Error: the data are of the grid 'corner' and model.grid is")
    assert not Path("runs").exists()


@pytest.mark.parametrize("lag", [0, 2])
def test_a_loss_that_is_not_finite_ends_the_run_and_saves_its_batch(start, monkeypatch, lag):
    monkeypatch.setattr(train, "lag_of", lambda device: lag)
    monkeypatch.setenv("FAKE_FAIL", "0:6:nan")
    result = start("--set", "train.log_every=100", code=1)
    first, second = result.stderr.splitlines()
    assert first == (
        "Error: step 7 was left out: loss nan, cm_reg nan, fm_reg nan, grad_norm nan; epoch 1, "
        "samples 8 to 11. The batch is runs/tiny/left_out/step_00000007_rank0.pt. Look at them: "
        "python -m loaders show --config runs/tiny/config.yaml --epoch 1 --samples 8:12 "
        "--out bad.png"
    )
    assert "1 such steps, train.max_bad_steps is 0; the last checkpoint is of step 4" in second
    assert [path.name for path in Path("runs/tiny").glob("*_*.pth")] == ["epoch_1.pth"]
    saved = torch.load("runs/tiny/left_out/step_00000007_rank0.pt", weights_only=True)
    assert saved["batch"]["sample"].tolist() == [8, 9, 10, 11]
    assert saved["batch"]["template"].dtype == torch.uint8
    assert saved["batch"]["search_box"].isnan().all()


@pytest.mark.parametrize("lag", [0, 2])
def test_some_steps_may_be_left_out(start, monkeypatch, lag):
    """Stopped between them and resumed: the budget is that of the whole run."""
    monkeypatch.setattr(train, "lag_of", lambda device: lag)
    monkeypatch.setenv("FAKE_FAIL", "0:2:nan 0:6:nan 0:7:nan")
    two = ("--set", "train.max_bad_steps=2")
    result = start("--steps", 7, "--out", "whole", *two)
    assert "Warning: step 3 was left out" in result.stderr
    assert "(2 of 2 that may be)" in result.stderr
    start("--steps", 5, "--out", "parts", *two)
    start("--steps", 7, "--out", "parts", *two)
    assert same(read(Path("whole/latest.pth")), read(Path("parts/latest.pth")))
    assert metrics("parts") == metrics("whole")
    lines = metrics("parts")
    assert [line.get("left_out") for line in lines] == [1, None, 1]
    assert [line.get("partial") for line in lines] == [None, None, True]
    result = start("--steps", 8, "--out", "parts", *two, code=1)
    assert (
        "3 such steps, train.max_bad_steps is 2; the last checkpoint is of step 7" in result.stderr
    )
    start("--steps", 8, "--out", "parts", "--set", "train.max_bad_steps=3")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--steps", "0"], 2, "Invalid value for '--steps'"),
        (["--step-s", "1"], 2, "No such option"),
        (["extra"], 2, "unexpected extra argument"),
        (["--set", "train.epoch=1"], 1, "--set train.epoch: unknown key; did you mean 'epochs'?"),
        (["--set", "train.lr=0"], 1, "--set train.lr: should be greater than 0, got 0"),
        (["--set", "data.search_px=127"], 1, "255 px; data.search_px is 127"),
        (["--set", "train.batch_size=19"], 1, "is larger than data.pairs_per_epoch 18"),
        (["--set", "train.amp=fp16"], 1, "train.amp 'fp16' needs a CUDA device"),
        (["--config", "spm.yaml"], 1, "spm.yaml: no such config file; shipped are"),
    ],
)
def test_bad_input_is_a_clear_line(start, monkeypatch, arguments, code, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = start(*arguments, code=code)
    assert message in result.stderr
    assert result.stdout == ""
    if code == 1:
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("\n") == 1


def test_without_data_the_error_says_how_to_get_some(start, monkeypatch):
    monkeypatch.undo()
    result = CliRunner().invoke(train.main, ["--config", "spm_alexnet.yaml", "--data", "/no/data"])
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "python -m packer lasot" in result.stderr
    assert "python -m packer demo" in result.stderr


def test_help_ends_with_an_example(start):
    result = start("--help")
    assert result.stdout.rstrip().endswith("--steps 100")
    for option in ("--config", "--data", "--out", "--steps", "--set", "--resume"):
        assert option in result.stdout


def test_the_shipped_configuration_is_the_published_one():
    config = strict.load(train.RunConfig, "spm_alexnet.yaml")
    assert config == train.RunConfig()
    assert config.train == TrainConfig(
        epochs=50, batch_size=32, lr=0.01, momentum=0.0, weight_decay=1e-4, warmup_steps=100,
        warmup_divisor=30, lr_steps=(25, 45), lr_decay=0.1, heads_only_epochs=1, clip_norm=20,
    )  # fmt: skip
    assert config.data.weights == {"coco": 0.15, "got10k": 0.3, "lasot": 0.3, "trackingnet": 0.25}
    assert config.data.pairs_per_epoch == 320_000


@pytest.mark.parametrize("name", ["spm_r18c4", "siamrpn_alexnet", "siamrpn_alexnet_dw"])
def test_other_models_are_trained_as_spm(name):
    config = strict.load(train.RunConfig, f"{name}.yaml")
    assert config == train.RunConfig(model=ModelConfig(name=name))


def test_siamfc_trains_everything_from_the_start():
    config = strict.load(train.RunConfig, "siamfc_alexnet.yaml")
    assert config.model == ModelConfig(name="siamfc_alexnet")
    assert config.train == TrainConfig(heads_only_epochs=0)


def test_a_section_of_another_model_is_a_clear_line(start):
    arguments = ["--config", "siamfc_alexnet.yaml", "--set"]
    result = start(*arguments, "model.fine.assign.best_iou=0.46", code=1)
    key = "--set model.fine.assign.best_iou"
    assert f"{key}: siamfc_alexnet has no 'fine': leave it out (model.name: " in result.stderr
    assert result.stderr.count("\n") == 1


def test_every_default_of_a_run_can_be_dumped_and_loaded(tmp_path):
    (tmp_path / "c.yaml").write_text(strict.dump(train.RunConfig()))
    assert strict.load(train.RunConfig, tmp_path / "c.yaml") == train.RunConfig()


def test_nothing_imports_train():
    pattern = re.compile(r"^\s*(?:import|from)\s+train\b(?!\.)", re.MULTILINE)
    packages = ("configs", "shards", "packer", "loaders", "tracker", "benchmarks")
    files = [path for name in packages for path in (ROOT / name).rglob("*.py")]
    assert files
    assert not [str(path) for path in files if pattern.search(path.read_text(encoding="utf-8"))]


def test_it_stays_readable():
    lines = Path(train.__file__).read_text(encoding="utf-8").splitlines()
    assert len(lines) < 350


SPM_TERMS = ["cm_cls", "cm_reg", "fm_cls", "fm_reg"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("spm_alexnet", SPM_TERMS),
        ("spm_r18c4", SPM_TERMS),
        ("siamrpn_alexnet", ["cls", "reg"]),
        ("siamrpn_alexnet_dw", ["cls", "reg"]),
        ("siamfc_alexnet", ["cls"]),
    ],
)
def test_every_model_trains_and_resumes_on_packed_data(packed, tmp_path, monkeypatch, name, terms):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(packed / "lasot", "shards/lasot")

    def start(out, steps):
        small = ["model.width=0.05", "model.init=random", "train.batch_size=4", "train.threads=1"]
        small += ["data.pairs_per_epoch=12", "train.log_every=1", "data.backend=cpu"]
        arguments = ["--config", f"{name}.yaml", "--data", "shards", "--out", out]
        arguments += ["--steps", str(steps), *(p for key in small for p in ("--set", key))]
        result = CliRunner().invoke(train.main, arguments)
        assert result.exit_code == 0, result.output
        return result

    result = start("whole", 5)
    assert "Warning: no coco, got10k, trackingnet in shards" in result.stdout
    start("parts", 2)
    start("parts", 5)
    assert metrics("whole") == metrics("parts")
    assert [line["epoch"] for line in metrics("whole")] == [0, 0, 0, 1, 1]
    assert list(metrics("whole")[0])[3:-1] == ["loss", *terms, "grad_norm"]
    whole, parts = read(Path("whole/latest.pth")), read(Path("parts/latest.pth"))
    whole["meta"].pop("config"), parts["meta"].pop("config")
    assert same(whole, parts)
