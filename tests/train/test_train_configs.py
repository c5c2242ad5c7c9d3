"""The configurations that come with us, and the options that look at one and train nothing."""

import difflib
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import train
from configs import strict
from configs.describe import rows
from tracker.config import LACKS
from tracker.training.config import FREE_KEYS, TrainConfig
from tracker.training.flags import lead
from tracker.training.records import header
from tracker.training.schedule import learning_rate

ROOT = Path(train.__file__).parent
MODELS = sorted(LACKS)
# What each of the others changes of spm_alexnet.yaml: these keys and no other.
CHANGES = {
    "spm_alexnet_momentum": {"train.lr": 0.001, "train.momentum": 0.9},
    "spm_alexnet_cosine": {"train.lr_schedule": "cosine", "train.lr_end": 0.0001},
    "spm_alexnet_large_batch": {
        "train.batch_size": 256, "train.lr": 0.08, "train.warmup_steps": 6250,
        "train.warmup_divisor": 240.0,
    },
    "spm_alexnet_1gpu": {"train.amp": "bf16", "train.channels_last": True, "train.compile": True},
    "spm_alexnet_8gpu": {
        "train.amp": "bf16", "train.channels_last": True, "train.compile": True,
        "train.batch_size": 64,
    },
    "cpu_smoke": {
        "data.pairs_per_epoch": 16, "model.width": 0.05, "model.init": "random", "train.epochs": 3,
        "train.batch_size": 4, "train.warmup_steps": 2, "train.lr_steps": [2],
        "train.log_every": 1, "train.checkpoint_every": 0, "train.device": "cpu",
    },
}  # fmt: skip
RECIPES = ("spm_alexnet_momentum", "spm_alexnet_cosine", "spm_alexnet_large_batch")


@pytest.fixture
def start(monkeypatch):
    """Run train.py's command; returns its result."""
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)

    def start(*arguments, code=0):
        result = CliRunner().invoke(train.main, list(map(str, arguments)))
        assert result.exit_code == code, result.output
        return result

    state, threads = torch.get_rng_state(), torch.get_num_threads()
    yield start
    torch.set_rng_state(state)
    torch.set_num_threads(threads)


def flat(name, *overrides):
    return strict.flat(strict.dump(strict.load(train.RunConfig, name, overrides)))


def test_these_are_all_that_come_with_us():
    assert strict.shipped() == sorted(f"{name}.yaml" for name in (*MODELS, *CHANGES))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_s_configuration_spells_out_its_numbers(name):
    """Which are those that it has: of training, and of the rule that it is tracked with."""
    found = strict.resolve(train.RunConfig, f"{name}.yaml")
    left = {"model.pretrained", "model.width", "model.seed"}
    missing = [
        key
        for key in strict.flat(strict.dump(found.config))
        if key.startswith("model.") and tuple(key.split(".")) not in found.where
        and key not in left
        and not any(f"{key}.".startswith(f"model.{one}.") for one in LACKS[found.config.model.name])
    ]  # fmt: skip
    assert missing == []
    assert found.config.model.name == name


@pytest.mark.parametrize("name", CHANGES)
def test_a_configuration_changes_of_spm_alexnet_what_its_first_comment_says(name):
    plain, changed = flat("spm_alexnet.yaml"), flat(f"{name}.yaml")
    assert {key: changed[key] for key in changed if changed[key] != plain[key]} == CHANGES[name]
    comment = (ROOT / "configs" / f"{name}.yaml").read_text().split("\n\n")[0]
    assert comment.startswith("# ")
    if name in RECIPES:
        sentence = re.search(r"# Changes ([^.]|\.\w)*", comment)[0]
        assert set(re.findall(r"train\.\w+", sentence)) == set(CHANGES[name])
        assert "not been trained at full length by us" in comment
        assert "# Result    not measured." in comment


def test_the_effective_rate_of_momentum_is_the_published_one():
    config = strict.load(train.RunConfig, "spm_alexnet_momentum.yaml").train
    assert config.lr / (1 - config.momentum) == pytest.approx(TrainConfig().lr)


def test_the_cosine_begins_and_ends_where_the_published_steps_do():
    config = strict.load(train.RunConfig, "spm_alexnet_cosine.yaml").train
    ends = [(100, 0), (10_000 * 50 - 1, 49)]
    rates, published = (
        [learning_rate(one, step, epoch, 10_000) for step, epoch in ends]
        for one in (config, TrainConfig())
    )
    assert rates == pytest.approx(published, rel=1e-5)


def test_large_batches_follow_the_rule_that_their_comment_states():
    """Also for the other size that it gives as an example."""
    comment = (ROOT / "configs/spm_alexnet_large_batch.yaml").read_text().split("\n\n")[0]
    other = re.findall(r"--set (train\.\S+)", comment)
    assert other[0] == "train.batch_size=128"
    for overrides in ([], other):
        run = strict.load(train.RunConfig, "spm_alexnet_large_batch.yaml", overrides)
        config, plain = run.train, TrainConfig()
        factor = config.batch_size / plain.batch_size
        assert config.lr == pytest.approx(factor * plain.lr)
        assert config.warmup_steps == 5 * run.data.pairs_per_epoch / config.batch_size
        assert config.lr / config.warmup_divisor == pytest.approx(plain.lr / plain.warmup_divisor)


def test_every_option_in_a_comment_is_a_key():
    for name in strict.shipped():
        comment = (ROOT / "configs" / name).read_text().split("\n\n")[0]
        sets = re.findall(r"--set (\w+\.\S+=[\w.]+)", comment)
        strict.load(train.RunConfig, name, [one.rstrip(".") for one in sets])
        for told in re.findall(r"--config ([\w.]+)", comment):
            assert told.rstrip(".") in strict.shipped(), f"{name}: {told}"


def test_the_page_of_all_keys_is_that_of_the_code(start):
    page = ROOT / "docs/CONFIG.md"
    made = start("--describe-config").stdout
    stale = list(difflib.unified_diff(page.read_text().split("\n"), made.split("\n"), lineterm=""))
    assert not stale, f"make it again: python train.py --describe-config > {page}\n{stale[:9]}"
    assert "python train.py --describe-config | diff docs/CONFIG.md -" in (
        ROOT / "Makefile"
    ).read_text().replace("$(PY)", "python")


def test_the_page_has_every_key_once(start):
    names = [row.name for row in rows(train.RunConfig)]
    assert len(set(names)) == len(names)
    halves = ("image_z", "image_x", "video_z", "video_x")
    told = {name.replace("*", half) for name in names for half in halves}
    keys = {
        re.sub(r"^(data\.weights|data\.sampler\.fps)\..*", r"\1", key)
        for key in strict.flat(strict.dump(train.RunConfig()))
    }
    assert told == keys
    page = (ROOT / "docs/CONFIG.md").read_text()
    anchors = re.findall(r'<a id="(\S+)"></a>', page)
    assert len(set(anchors)) == len(anchors)
    links = set(re.findall(r"\]\(#(\S+?)\)", page))
    assert links <= set(anchors)


@pytest.mark.parametrize("name", strict.shipped())
def test_a_printed_configuration_is_the_resolved_one(start, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    result = start("--config", name, "--set", "train.log_every=77", "--print-config")
    (tmp_path / "printed.yaml").write_text(result.stdout)
    printed = strict.load(train.RunConfig, "printed.yaml")
    assert printed == strict.load(train.RunConfig, name, ["train.log_every=77"])
    assert "  log_every: 77  # --set\n" in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["printed.yaml"]


def test_a_printed_configuration_tells_files_and_lines(start, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("base: spm_alexnet_8gpu.yaml\ntrain:\n  keep: 3\n")
    text = start("--config", "mine.yaml", "--data", "/no/data", "--print-config").stdout
    for line in (
        r"  path: /no/data  # --data",
        r"  keep: 3  # mine\.yaml:3",
        r"  batch_size: 64  # \S*configs/spm_alexnet_8gpu\.yaml:\d+",
        r"  amp: bf16  # \S*configs/spm_alexnet_1gpu\.yaml:\d+",
        r"  lr: 0\.01",
    ):
        assert re.search(f"^{line}$", text, re.MULTILINE), line


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.evaluate.datset=otb", "unknown key; did you mean 'dataset'?"),
        ("train.evaluate.dataset=otv", "should be 'otb', 'lasot', 'got10k' or 'trackingnet', got"),
        ("train.evaluate.every=-1", "should be greater than or equal to 0, got -1"),
        ("train.lr_scheduler=cosine", "unknown key; did you mean 'lr_schedule'?"),
        ("train.device=gpu", "should be 'auto', 'cpu' or 'cuda', got 'gpu'\n"),
        ("train.epochs=1000001", "should be less than or equal to 1000000, got 1000001"),
        ("lr=0.1", "unknown key; did you mean 'train.lr'?"),
        ("train.keep_epochs=0", "should be greater than or equal to 1, got 0"),
        ("base=cpu_smoke.yaml", "a base is named in a file"),
    ],
)
def test_a_wrong_key_is_named_with_its_place(start, tmp_path, monkeypatch, override, message):
    monkeypatch.chdir(tmp_path)
    key, _, value = override.partition("=")
    result = start("--config", "spm_alexnet.yaml", "--set", override, "--print-config", code=1)
    assert result.stderr.startswith(f"Error: --set {key}")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    if key == "base":
        return
    *sections, last = key.split(".")
    lines = [f"{'  ' * depth}{name}:\n" for depth, name in enumerate(sections)]
    text = f"base: spm_alexnet.yaml\n{''.join(lines)}{'  ' * len(sections)}{last}: {value}\n"
    Path("wrong.yaml").write_text(text)
    Path("mine.yaml").write_text("base: wrong.yaml\n")
    result = start("--config", "mine.yaml", "--print-config", code=1)
    assert result.stderr.startswith(f"Error: wrong.yaml:{len(sections) + 2}: {key}: ")
    assert message in result.stderr


def test_contradicting_values_are_told_at_the_one_that_was_written_last(
    start, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    adamw = ("--set", "train.optimizer=adamw")
    result = start("--config", "spm_alexnet_momentum.yaml", *adamw, "--print-config", code=1)
    assert re.fullmatch(
        r"Error: --set train\.optimizer: momentum 0\.9 belongs to SGD; optimizer 'adamw' takes "
        r"momentum 0 \(train\.momentum: \S*configs/spm_alexnet_momentum\.yaml:\d+\)\n",
        result.stderr,
    )
    Path("x.yaml").write_text("base: spm_alexnet.yaml\ndata:\n  template_px: 127\n")
    result = start("--config", "x.yaml", "--print-config", code=1)
    assert result.stderr == (
        "Error: x.yaml:3: data.template_px: spm_alexnet takes crops of 255 px; data.template_px "
        "is 127\n"
    )
    cosine = ("--set", "train.lr_schedule=cosine", "--set", "train.lr_end=1", "--print-config")
    result = start("--config", "spm_alexnet.yaml", *cosine, code=1)
    assert result.stderr.startswith("Error: --set train.lr_end: lr_end 1 is above lr 0.01; a cos")


@pytest.mark.parametrize("flag", ["--print-config", "--describe-config"])
def test_rank_0_alone_prints(start, monkeypatch, flag):
    monkeypatch.setenv("RANK", "0")
    assert start("--config", "cpu_smoke.yaml", flag).stdout
    monkeypatch.setenv("RANK", "1")
    assert start("--config", "cpu_smoke.yaml", flag).stdout == ""


@pytest.mark.slow
def test_the_smoke_run_shows_what_its_comment_promises(start, packed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SIAMSTREAM_SHARDS", raising=False)
    shutil.copytree(packed / "lasot", "data/shards/lasot")
    command = ["--config", "cpu_smoke.yaml", "--set", "train.threads=1"]
    start(*command)
    out = Path("runs/cpu_smoke")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0] * 4 + [1] * 4 + [2] * 4
    assert [line["lr"] for line in lines[2:]] == pytest.approx([0.01] * 6 + [0.001] * 4)
    names = {path.name for path in out.glob("*.pth")}
    assert names == {"epoch_1.pth", "epoch_2.pth", "epoch_3.pth", "latest.pth", "best.pth"}
    assert json.loads((out / "best.json").read_text())["by"] == "training loss"
    config = strict.load(train.RunConfig, out / "config.yaml")
    assert config == strict.load(train.RunConfig, "cpu_smoke.yaml", ["train.threads=1"])
    assert "finished, 12 steps are done" in start(*command).stdout


def test_a_schedule_that_ends_too_early_is_warned_of():
    data = {"datasets": {}, "storage": "zip", "backend": "cpu", "grid": "edge", "warnings": []}
    record = {
        "data": data, "init": {"source": "random", "warning": None}, "world_size": 1,
        "device": "cpu", "torch_threads": 1,
    }  # fmt: skip

    def warnings(*overrides, name="spm_alexnet.yaml"):
        config = strict.load(train.RunConfig, name, overrides).train
        lines = header("spm_alexnet", config, record)
        return [line for line in lines if line.startswith("Warning")]

    assert warnings() == warnings(name="cpu_smoke.yaml") == warnings("train.epochs=26") == []
    assert warnings("train.epochs=20") == [
        "Warning: train.lr_steps 25, 45 are beyond the 20 epochs: the rate does not fall"
    ]
    assert warnings("train.epochs=20", "train.lr_schedule=cosine") == []
    assert warnings("train.heads_only_epochs=60") == [
        "Warning: the backbone is not trained: train.heads_only_epochs 60, train.epochs 50"
    ]


def test_the_page_lists_the_keys_that_may_change():
    listed = lead().split("when a run goes on: ")[1].split(";")[0]
    assert re.findall(r"`(\S+)`", listed) == [key for key in FREE_KEYS if key != "train.epochs"]
    assert "`train.epochs` only with `lr_schedule: steps`" in " ".join(lead().split())
