"""``python -m benchmarks train``: the trainer's own step, equal work for all feeds, the bar."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import synthetic
import torch
from click.testing import CliRunner

import train
from benchmarks.asked_process import answer_orders
from benchmarks.case import Case
from benchmarks.claims import claim_rows
from benchmarks.cli import main
from benchmarks.derived import ensure
from benchmarks.report_blocks import markdown
from benchmarks.report_kinds import train_blocks
from benchmarks.runner import ContestantError
from benchmarks.train import Plan, Setting, measure_train
from benchmarks.train_child import Session, TrainCase
from benchmarks.train_claims import BAR, QUIET_CORES, claims, headroom_of, judged
from benchmarks.train_feeds import FEEDS, open_feed
from benchmarks.train_process import Process
from benchmarks.train_report import feeds_rows, settings_lines, settings_rows, train_lines
from shards.errors import MismatchError, SiamstreamError
from tracker.training.world import World

pytestmark = [
    # torch's DataLoader says so on machines with fewer cores than workers
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    # from Python 3.12 on; the baselines fork because the published loader does
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]
NARROW = 0.02
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("train")
    synthetic.pack(folder / "data", "lasot", sequences=4, frames=6)
    data, derived = str(folder / "data"), str(folder / "derived")
    one = Case(data=data, derived=derived, pairs=40, batch_size=2, threads=1, seed=7)
    ensure(Path(one.data), one.derived_folder, ("legacy",))
    return one


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads(), torch.backends.cudnn.benchmark
    yield
    torch.set_num_threads(before[0])
    torch.backends.cudnn.benchmark = before[1]


def _plan(case: Case, **changes: Any) -> Plan:
    settings = (Setting("channels-last", ("train.channels_last=true",)),)
    plan = Plan(
        case=case, widths=(NARROW,), repeats=2, steps=1, device="cpu", settings=settings
    )  # fmt: skip
    return replace(plan, **changes)


def test_all_feeds_give_the_plans_pairs(case: Case) -> None:
    found = {}
    for name in FEEDS:
        feed, _ = open_feed(name, case, CPU, channels_last=False)
        found[name] = [next(feed) for _ in range(3)]
        feed.close()
    for ready, loader, zipped in zip(*(found[name] for name in FEEDS), strict=True):
        assert loader.sample.tolist() == zipped.sample.tolist() == ready.sample.tolist()
        assert loader.positive.tolist() == zipped.positive.tolist() == ready.positive.tolist()
        assert torch.equal(ready.search, loader.search)
        assert torch.equal(ready.search_box, loader.search_box)
        assert zipped.search.shape == loader.search.shape
        assert zipped.search.dtype == torch.float32
        assert zipped.search_box.shape == loader.search_box.shape == (2, 4)
        # another draw of the same target: shifts are at most 64 px, and their scales alike
        centres = [(box[:, :2] + box[:, 2:]) / 2 for box in (loader.search_box, zipped.search_box)]
        assert (centres[0] - centres[1]).abs().max() < 2 * 90
        sizes = [(box[:, 2:] - box[:, :2]) for box in (loader.search_box, zipped.search_box)]
        assert (sizes[0] / sizes[1]).log().abs().max() < 0.5
    assert [one.sample.tolist() for one in found["ready"]] == [[0, 1], [2, 3], [4, 5]]


def test_what_is_timed_is_what_the_trainer_does(case: Case, tmp_path: Path) -> None:
    session = Session(TrainCase(case=case, feed="ready", width=NARROW))
    last = session.block(2, warm_up=0)
    session.close()
    overrides = (
        f"model.width={NARROW}", "model.init=random", "train.heads_only_epochs=0",
        "train.batch_size=2", "train.log_every=1", "train.threads=1", "data.threads=1",
        "data.datasets=lasot", "train.device=cpu", "data.pairs_per_epoch=1000000",
    )  # fmt: skip
    options = train.Options(
        "spm_alexnet.yaml", data=case.data, out=tmp_path / "run", steps=4, overrides=overrides
    )
    assert train.run(options, World()) == 0
    lines = [json.loads(one) for one in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    losses = [one["loss"] for one in lines]
    assert losses[0] == pytest.approx(session.facts["first_loss"], rel=1e-6)
    assert (losses[2] + losses[3]) / 2 == pytest.approx(last["loss"], rel=1e-6)


@pytest.fixture(scope="module")
def run(case: Case) -> dict[str, Any]:
    told: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.train.ALONE_S", 0.0)
        found = measure_train(_plan(case), "cmd", 1 << 30, told.append, start=Session)
    assert len(told) == 1 + 4 + 2 * 4  # a warning: three data sets are not there
    return found


def test_a_run_is_complete(run: dict[str, Any]) -> None:
    (one,) = run["widths"]
    assert list(one["feeds"]) == list(FEEDS)
    for feed in one["feeds"].values():
        for block in feed["repeats"]:
            assert block["steps"] == 1
            assert block["pairs_per_s"] == pytest.approx(2 * block["steps_per_s"])
            phases = ("wait", "forward", "backward", "optimizer", "rest")
            total = sum(block[f"{name}_ms"] for name in phases)
            assert total == pytest.approx(1e3 * block["wall_s"])
            assert min(block[f"{name}_ms"] for name in phases[1:]) > 0
    for name in FEEDS[1:]:
        for repeat, ratio in enumerate(one["share"][name]["repeats"]):
            own, limit = (one["feeds"][of]["repeats"][repeat] for of in (name, "ready"))
            assert ratio == own["steps_per_s"] / limit["steps_per_s"]
    ready, loader = (one["feeds"][name] for name in ("ready", "loader"))
    assert ready["first_loss"] == loader["first_loss"]
    assert {block["wait_ms"] for block in ready["repeats"]} == {0}
    (setting,) = one["settings"]
    assert setting["first_loss"] == pytest.approx(ready["first_loss"], rel=1e-4)
    assert len(setting["ratio"]["repeats"]) == 2
    json.dumps(run)


def test_a_run_makes_a_section(run: dict[str, Any]) -> None:
    assert [row[1] for row in feeds_rows(run)] == [
        "ready-made batches: the limit", "our loader", "zip-published"
    ]  # fmt: skip
    assert settings_rows(run)[0][:2] == ("0.02", "channels-last")
    told = " ".join(train_lines(run))
    assert "on the CPU, batches of 2, 1 threads" in told
    assert f"Width 0.02: {run['widths'][0]['headroom']:.1f} times" in told
    section = markdown(train_blocks(run))
    assert told in section
    assert section.count("\n| 0.02 |") == 4
    assert "on a CPU at width 0.02: that tells nothing of width 1 or of a GPU." in section


class Fake:
    """A training with known figures; what it is asked is noted in `asked`."""

    asked: list[str]

    def __init__(self, what: TrainCase, speeds: Mapping[str, float], asked: list[str]) -> None:
        self.name = what.overrides[0] if what.overrides else what.feed
        self.speed, self.asked = speeds[self.name], asked
        self.facts = {"first_loss": 2.0, "first_step_s": 1.0, "step_s": 1 / self.speed}
        if what.feed == "loader" and speeds.get("other work"):
            self.facts["first_loss"] = 2.1

    def block(self, steps: int, warm_up: int) -> dict[str, Any]:
        self.asked.append(f"{self.name} {steps}+{warm_up}")
        names = ("wait_ms", "forward_ms", "backward_ms", "optimizer_ms", "rest_ms", "wait_share")
        return {
            **dict.fromkeys(names, 0.1), "steps": steps, "steps_per_s": self.speed,
            "pairs_per_s": 2 * self.speed, "cpu_ms_per_pair": 50.0, "others_cores_busy": 0.0,
        }  # fmt: skip

    def alone(self, seconds: float) -> dict[str, Any]:
        return {"pairs_per_s": 100.0 * seconds, "cpu_ms_per_pair": 10.0}

    def close(self) -> None:
        self.asked.append(f"{self.name} closed")


def _fakes(case: Case, speeds: Mapping[str, float], **changes: Any) -> tuple[Any, list[str]]:
    asked: list[str] = []

    def start(what: TrainCase) -> Fake:
        if what.overrides and what.overrides[0] not in speeds:
            raise ContestantError("no compiler")
        return Fake(what, speeds, asked)

    plan = _plan(case, **changes)
    return measure_train(plan, "cmd", 1 << 30, lambda _: None, start=start), asked


SPEEDS = {"ready": 2.0, "loader": 1.92, "zip-published": 1.0, "train.channels_last=true": 2.2}


def test_where_decode_keeps_up_the_share_is_judged(case: Case) -> None:
    run, asked = _fakes(case, SPEEDS)
    claim, of_cores = run["claims"]  # alone 200 pairs/s, the limit takes 4
    assert (claim["key"], claim["bar"], claim["holds"]) == ("share_0.02", BAR, True)
    assert claim["repeats"] == pytest.approx([0.96, 0.96])
    assert run["widths"][0]["cores_leave"] == pytest.approx(50 / 60)
    assert (of_cores["key"], of_cores["bar"]) == ("cores_share_0.02", BAR)
    assert of_cores["repeats"] == pytest.approx([0.96 * 60 / 50] * 2)
    assert run["widths"][0]["settings"][0]["ratio"]["summary"]["median"] == pytest.approx(1.1)
    blocks = [one for one in asked if "closed" not in one]
    assert sorted(blocks[:4]) == sorted(blocks[4:])  # everything once in a repeat
    assert len(asked) - len(blocks) == 4
    slow, _ = _fakes(case, {**SPEEDS, "loader": 1.88})
    assert [one["holds"] for one in slow["claims"]] == [False, True]
    slower, _ = _fakes(case, {**SPEEDS, "loader": 0.94 * 50 / 60 * 2})
    assert [one["holds"] for one in slower["claims"]] == [False, False]


def test_where_decode_cannot_keep_up_the_share_is_told_but_not_judged(case: Case) -> None:
    faster = {name: 5 * speed for name, speed in SPEEDS.items()}  # the limit takes 20 pairs/s
    run, _ = _fakes(case, {**faster, "loader": 5.0})
    (of_cores,) = run["claims"]  # half the limit, where decode leaves 50 of 60 ms
    assert (of_cores["key"], of_cores["holds"]) == ("cores_share_0.02", False)
    assert of_cores["repeats"] == pytest.approx([0.5 * 60 / 50] * 2)
    assert run["widths"][0]["headroom"] == pytest.approx(10)
    assert run["widths"][0]["share"]["loader"]["summary"]["median"] == pytest.approx(0.5)
    assert "Width 0.02: 10.0 times, so the bar does not apply" in " ".join(train_lines(run))


@pytest.mark.parametrize(("device", "needed"), [("cpu", 25), ("cuda", 2)])
def test_keeping_up_is_what_the_loader_alone_gives_over_the_limit(device: str, needed: int) -> None:
    def width(pairs_per_s: float) -> dict[str, Any]:
        figures = {"pairs_per_s": {"median": pairs_per_s}, "cpu_ms_per_pair": {"median": 90.0}}
        feeds = {"ready": {"summary": figures}}
        return {"width": 1.0, "feeds": feeds, "share": {"loader": {"repeats": [1.0]}}}

    alone = {"pairs_per_s": {"median": 1000.0}, "cpu_ms_per_pair": {"median": 10.0}}
    for pairs_per_s, keeps_up in ((1000 / needed, True), (1000 / needed + 0.1, False)):
        one = width(pairs_per_s)
        facts = headroom_of(one, alone, device)
        assert facts["keeps_up"] is keeps_up
        assert facts["cores_leave"] == pytest.approx(0.9)
        keys = [claim.key for claim, _ in claims({**one, **facts}, device)]
        of_cores = ["cores_share_1"] if device == "cpu" else []
        assert keys == ["share_1"] * keeps_up + of_cores


def test_where_decode_is_slower_than_the_step_nothing_is_judged(
    case: Case, run: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, _ = _fakes(case, {name: 101 * speed for name, speed in SPEEDS.items()})
    assert slow["widths"][0]["headroom"] < 1
    assert slow["claims"] == []
    found = {**slow, "environment": run["environment"]}
    monkeypatch.setattr("benchmarks.train.measure_train", lambda *_: found)
    words = ["train", "--data", case.data]
    plain = CliRunner().invoke(main, words)
    assert plain.exit_code == 0
    assert "No width where decode can keep up: nothing is judged." in plain.output
    assert CliRunner().invoke(main, [*words, "--check"]).exit_code == 1


@pytest.mark.parametrize(
    ("busy", "shares", "holds"),
    [
        (0.0, [0.96, 0.97, 0.98], True),
        (QUIET_CORES, [0.96, 0.97, 0.98], True),
        (QUIET_CORES + 0.1, [0.96, 0.97, 0.98], None),
        (QUIET_CORES + 0.1, [0.5, 0.5, 0.5], None),
        (0.0, [0.5, 0.97, 0.98], None),  # quartiles 0.735 and 0.975
        (0.0, [0.5, 0.9, 1.1], None),
        (0.0, [0.5, 0.6, 0.9], False),
    ],
)
@pytest.mark.parametrize("busy_feed", ["ready", "loader"])
def test_what_figures_cannot_tell_is_not_judged(
    busy: float, shares: list[float], holds: bool | None, busy_feed: str
) -> None:
    feeds = {
        name: {"summary": {"others_cores_busy": {"median": busy if name == busy_feed else 0.0}}}
        for name in ("ready", "loader")
    }
    share = {"loader": {"repeats": shares}}
    facts = {"headroom": 30.0, "keeps_up": True, "cores_leave": 1.0}
    found = judged([{"width": 1.0, "feeds": feeds, "share": share, **facts}], "cpu")
    assert [one["holds"] for one in found] == [holds, holds]
    shown = {True: "yes", False: "NO", None: "not judged"}[holds]
    assert [row[-1] for row in claim_rows({"claims": found})] == [shown, shown]


def test_steps_of_a_block_fill_some_seconds(case: Case) -> None:
    _, asked = _fakes(case, {**SPEEDS, "train.channels_last=true": 0.1}, steps=None, repeats=1)
    blocks = sorted(one for one in asked if "closed" not in one)
    # a step of 10 s is a block of its own; feeds all make the steps of the ready-made one
    assert blocks == [
        "loader 8+1", "ready 8+1", "train.channels_last=true 1+0", "zip-published 8+1"
    ]  # fmt: skip


def test_long_steps_are_repeated_less(case: Case) -> None:
    for speed, repeats, steps in ((1 / 3.9, 5, 1), (1 / 4.1, 3, 1), (1.0, 5, 4)):
        speeds = {**dict.fromkeys(SPEEDS, speed), "loader": 10.0}
        run, asked = _fakes(case, speeds, steps=None, repeats=None)
        feeds = run["widths"][0]["feeds"].values()
        assert {len(one["repeats"]) for one in feeds} == {repeats}
        assert asked.count(f"loader {steps}+1") == repeats
        assert f"medians of repeats ({repeats} at width 0.02)" in " ".join(
            train_lines({**run, "environment": {"gpus": []}})
        )


@pytest.mark.parametrize(
    ("device", "width", "told"),
    [
        ("cpu", 0.125, "on a CPU at width 0.125: that tells nothing of width 1 or of a GPU."),
        ("cpu", 1.0, "on a CPU at width 1: that tells nothing of a GPU."),
        ("cuda", 0.5, "on a GPU at width 0.5: that tells nothing of width 1."),
        ("cuda", 1.0, None),
    ],
)
def test_settings_say_what_they_do_not_tell(device: str, width: float, told: str | None) -> None:
    widths = [{"width": width, "settings": [{}]}, {"width": 0.25, "settings": []}]
    lines = settings_lines({"device": device, "widths": widths})
    assert lines == ([] if told is None else [f"Settings were measured {told}"])


def test_a_setting_that_cannot_run_is_named(case: Case) -> None:
    run, _ = _fakes(case, dict.fromkeys(FEEDS, 2.0))
    assert run["widths"][0]["settings"] == [{"name": "channels-last", "absent": "no compiler"}]
    assert settings_rows(run) == [("0.02", "channels-last", "absent", "-", "-")]
    assert "Absent: channels-last (no compiler)." in train_lines(run)


def test_feeds_that_do_other_work_end_the_run(case: Case) -> None:
    with pytest.raises(MismatchError, match=r"the first loss is 2 with ready-made .* 2.1 with our"):
        _fakes(case, {**SPEEDS, "other work": 1.0})


def test_a_loss_that_is_not_finite_ends_a_block(case: Case) -> None:
    session = Session(TrainCase(case=case, feed="ready", width=NARROW))
    with torch.no_grad():
        next(session.stepper.model.parameters()).fill_(float("nan"))
    with pytest.raises(SiamstreamError, match=r"step 3: .*not finite"):
        session.block(1, warm_up=0)
    session.close()


@pytest.mark.slow
def test_a_training_in_a_process_of_its_own(case: Case) -> None:
    process = Process(TrainCase(case=case, feed="loader", width=NARROW, fused=False))
    assert process.block(1, 1)["steps"] == 1
    assert process.alone(0.0)["pairs_per_s"] > 0
    process._asked._child.kill()
    with pytest.raises(ContestantError, match="loader optimiser not fused failed: it ended"):
        process.block(1, 1)
    process.close()


def test_a_process_says_why_it_cannot_go_on(
    case: Case, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    what = TrainCase(case=replace(case, data="/nowhere"), feed="ready", width=NARROW)
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(asdict(what)) + "\n"))
    assert answer_orders(lambda facts: Session(TrainCase.read(facts))) == 1
    assert json.loads(capsys.readouterr().out)["failed"].startswith("/nowhere does not exist")


def test_a_missed_bar_is_exit_1_under_check(
    case: Case, run: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missed, _ = _fakes(case, {**SPEEDS, "loader": 1.0})
    found = {**missed, "environment": run["environment"]}
    monkeypatch.setattr("benchmarks.train.measure_train", lambda *_: found)
    words = ["train", "--data", case.data, "--json", str(tmp_path / "run.json")]
    plain = CliRunner().invoke(main, words)
    assert (plain.exit_code, " NO" in plain.output) == (0, True)
    written = json.loads((tmp_path / "run.json").read_text())
    assert {key: written[key] for key in found} == found
    assert CliRunner().invoke(main, [*words, "--check"]).exit_code == 1


@pytest.mark.parametrize(("busy", "warned"), [(0.1, False), (0.5, True)])
def test_figures_of_a_busy_machine_say_so(case: Case, busy: float, warned: bool) -> None:
    run, _ = _fakes(case, SPEEDS)
    for feed in run["widths"][0]["feeds"].values():
        for block in feed["repeats"]:
            block["others_cores_busy"] = busy
    told = train_lines(run)
    assert f"Other programs kept {busy} cores busy meanwhile." in told
    assert ("again on a quiet one" in told[-1]) is warned


@pytest.mark.parametrize("widths", ["a", "0", "1,1", "1.01"])
def test_widths_that_are_none_are_a_usage_error(widths: str) -> None:
    assert CliRunner().invoke(main, ["train", "--widths", widths]).exit_code == 2
