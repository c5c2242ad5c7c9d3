"""The GPU benchmark: budget, parts that fail, what is missing; the whole as a rehearsal."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gpu_samples
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from benchmarks import child_process, gpu_checks, gpu_preflight, result
from benchmarks.claims import claim_rows
from benchmarks.cli import RESULTS, main
from benchmarks.gpu import PARTS, measure_gpu, ok
from benchmarks.gpu_budget import Budget, Part
from benchmarks.gpu_claims import PARITY, claims_from
from benchmarks.gpu_facts import Facts, Settings
from benchmarks.gpu_loaders import ratios_of
from benchmarks.gpu_parity import differences, figures
from benchmarks.gpu_preflight import Need, is_complete, lines, look
from benchmarks.gpu_process import Answer, ask
from benchmarks.report_blocks import markdown
from benchmarks.report_gpu import gpu_blocks

ROOT = Path(__file__).parents[2]


class Clock:
    """Seconds that go on when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


THREE = (
    Part(name="a", weight_s=10, least_s=5),
    Part(name="b", weight_s=20, least_s=15),
    Part(name="c", weight_s=10, least_s=2),
)


def test_a_part_gets_its_share_of_what_is_left() -> None:
    clock = Clock()
    budget = Budget(80, THREE, clock)
    assert budget.share_s(THREE[0]) == pytest.approx(20)
    clock.now += 5  # less than its share: the others have more
    assert budget.share_s(THREE[1]) == pytest.approx(50)
    clock.now += 50
    assert budget.share_s(THREE[2]) == pytest.approx(25)
    clock.now += 100
    assert budget.left_s() == 0
    assert budget.share_s(THREE[2]) is None


def test_a_part_whose_share_is_too_short_is_left_out_and_the_next_one_asked() -> None:
    clock = Clock()
    budget = Budget(40, THREE, clock)
    clock.now += 20
    assert budget.share_s(THREE[1]) is None
    assert budget.share_s(THREE[2]) == pytest.approx(20)


class Parts:
    """Answers as parts do; notes what they were told."""

    def __init__(self, clock: Clock | None = None, rounds: int = 3, **answers: Answer) -> None:
        self.answers = {**gpu_samples.answers(rounds), **answers}
        self.facts: dict[str, Any] = {}
        self.clock = clock

    def __call__(
        self, name: str, facts: Mapping[str, Any], limit_s: float, told: Callable[[str], None]
    ) -> Answer:
        self.facts[name] = {**facts, "limit_s": limit_s}
        if self.clock is not None:
            self.clock.now += facts["seconds"]
        return self.answers[name]


def run_of(out: Path, asked: Parts, device: str = "cuda", **more: Any) -> dict[str, Any]:
    facts = Facts(data="x", derived="y", device=device, cores=16)
    head = {**result.start("gpu", "test"), "data": {"datasets": []}}
    return measure_gpu(facts, out, 8, head, lambda _: None, asked=asked, **more)


def test_each_part_is_written_and_later_parts_decode_as_was_found_best(tmp_path: Path) -> None:
    asked = Parts()
    run = run_of(tmp_path, asked)
    found = result.read(tmp_path / "gpu.json", "gpu")
    assert found.pop("took_s") >= 0
    assert found == run
    written = {path.stem for path in tmp_path.glob("*.json")}
    assert written == {"gpu", *(part.name for part in PARTS)}
    assert asked.facts["environment"]["settings"]["mode"] == "region"
    assert asked.facts["parity"]["settings"]["mode"] == "whole"  # a region ended the process
    for part in ("parity-best", "loaders", "train", "faults"):
        assert Settings(**asked.facts[part]["settings"]) == gpu_samples.WHOLE
    judged = {claim["key"]: claim["holds"] for claim in run["claims"]}
    assert judged == {
        "decode_share": True,
        **{f"{part}_{key}": True for part in PARITY for key in ("mean", "p999", "boxes_differ")},
        "bad_unnamed": False,
        "bad_goes_on_wrong": False,  # of a process that crashed nothing is known
        "wait_share_bf16": False,
    }
    assert [one["key"] for one in run["unmeasured"]] == ["wait_share_bf16, channels-last"]
    assert not ok(run)
    said = markdown(gpu_blocks(run))
    for words in (
        "10,000 pairs/s", "ours: zip index, DALI on the GPU (dali)", "(dali-default)",
        "99.9th percentile", "0.95 (n = 3)", "crashed", "H100", "not measured (`train`)",
        "Left out for want of time: bf16, channels-last.", "ended by SIGSEGV",
    ):  # fmt: skip
        assert words in said, words


def test_a_rate_of_few_repeats_is_not_judged(tmp_path: Path) -> None:
    run = run_of(tmp_path, Parts(rounds=2))
    judged = {claim["key"]: claim["holds"] for claim in run["claims"]}
    assert judged["decode_share"] is None
    assert judged["wait_share_bf16"] is None
    assert judged["parity_mean"] is True
    assert "(n = 2)" in markdown(gpu_blocks(run))


@pytest.mark.parametrize(
    ("kind", "changes", "unnamed", "wrong"),
    [
        ("scrambled", {"outcome": "decoded"}, 0, 0),
        ("scrambled", {"outcome": "decoded, then failed"}, 1, 1),
        ("scrambled", {"outcome": "unnamed"}, 1, 1),
        ("scrambled", {"outcome": "decoded", "same_samples": False}, 0, 1),
        ("no table", {"outcome": "named"}, 0, 1),  # its last batch is 2 levels off
        ("no table", {"outcome": "named", "last_batch": {"mean": 0.2}, "replaced": 3}, 0, 0),
        ("no table", {"outcome": "named", "last_batch": {"mean": 0.2}, "replaced": 0}, 0, 1),
    ],
)
def test_what_a_damage_did_is_judged(
    kind: str, changes: dict[str, Any], unnamed: int, wrong: int
) -> None:
    scrambled = gpu_samples.answers()["faults"].found["cases"][-1]
    found = {"cases": [{**scrambled, "kind": kind, **changes}]}
    run = {"dry_run": False, "parts": [{"name": "faults", "found": found}]}
    values = {claim["key"]: claim["repeats"] for claim in claims_from(run)}
    assert values == {"bad_unnamed": [unnamed], "bad_goes_on_wrong": [wrong]}


def test_a_part_that_fails_is_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    best = gpu_samples.answers()["decode"].found["runs"][-1]
    half = {"runs": [best], "best": {}, "errors": {}}
    run = run_of(tmp_path, Parts(decode=Answer(found=half, error="ended by SIGSEGV: x")))
    states = {part["name"]: part["state"] for part in run["parts"]}
    assert states.pop("decode") == "failed"
    assert set(states.values()) == {"done"}
    assert json.loads((tmp_path / "decode.json").read_text())["error"] == "ended by SIGSEGV: x"
    assert json.loads((tmp_path / "decode.json").read_text())["found"] == half
    assert not ok(run)
    assert "Part `decode`: failed (ended by SIGSEGV: x)." in markdown(gpu_blocks(run))


def test_parts_for_which_no_time_is_left_are_recorded_as_left_out(tmp_path: Path) -> None:
    clock = Clock()
    asked = Parts(clock)
    run = run_of(tmp_path, asked, budget=Budget(160, PARTS, clock))
    left_out = {part["name"] for part in run["parts"] if part["state"] == "left out"}
    assert left_out == {"parity", "parity-best", "train"}
    lost = {one["part"] for one in run["unmeasured"]}
    assert lost == left_out
    assert "not measured (`parity`)" in markdown(gpu_blocks(run))
    assert set(asked.facts) == {part.name for part in PARTS} - left_out
    assert not ok(run)
    assert all(asked.facts[name]["limit_s"] <= 160 for name in asked.facts)


def test_a_dry_run_judges_nothing(tmp_path: Path) -> None:
    run = run_of(tmp_path, Parts(), device="cpu")
    assert run["dry_run"] is True
    assert len(run["claims"]) == 10
    assert run["unmeasured"] == []
    assert all(claim["holds"] is None for claim in run["claims"])
    assert {row[3] for row in claim_rows(run)} == {"not judged"}
    assert "A rehearsal on a CPU" in markdown(gpu_blocks(run))
    assert ok(run)


def test_claims_need_findings() -> None:
    assert claims_from({"parts": [], "dry_run": False}) == []


def test_a_region_that_fails_is_known_before_the_loader_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits: dict[str, float] = {}

    def asked(_: str, facts: Mapping[str, Any], limit_s: float, *__: Any, **___: Any) -> Answer:
        name = facts["work"]["check"]
        limits[name] = limit_s
        if name == "loader":
            assert talk.told[-1]["mode"] == facts["settings"]["mode"] == "whole"
        return Answer(error="ended by SIGSEGV" if name == "region" else None)

    class Told:
        told: list[dict[str, Any]] = []  # noqa: RUF012

        def left_s(self) -> float:
            return 40.0

        def say(self, _: str) -> None: ...

        def found(self, found: Mapping[str, Any]) -> None:
            self.told.append(dict(found))

    talk = Told()
    monkeypatch.setattr(gpu_checks, "ask", asked)
    facts = Facts(data="x", derived="y", device="cuda", cores=2)
    assert gpu_checks.environment(asdict(facts), talk)["mode"] == "whole"  # type: ignore[arg-type]
    assert limits == {"torch": 20, "whole": 20, "region": 20, "loader": 40}


def test_ratios_are_of_one_round_and_skip_rounds_without_ours() -> None:
    rounds = [
        {"dali": {"pairs_per_s": 90.0}, "decode-only": {"pairs_per_s": 100.0}},
        {"decode-only": {"pairs_per_s": 200.0}},
    ]
    assert ratios_of(rounds)["decode-only"]["repeats"] == [0.9]


def test_differences_are_counted_by_grey_level() -> None:
    ours = torch.tensor([[0, 10, 255, 7]], dtype=torch.uint8)
    theirs = torch.tensor([[255, 10, 254, 7]], dtype=torch.uint8)
    counts = differences(ours, theirs)
    assert counts.sum() == 4
    assert figures(counts) == {"mean": 64.0, "p99": 255.0, "p999": 255.0, "max": 255.0}
    assert figures(np.bincount([0] * 999 + [9], minlength=256))["p999"] == 0


CHILD = """
import json, os, signal, sys, time
print(json.dumps({"found": {"first": 1}}), flush=True)
print("chatter", flush=True)
what = sys.argv[1]
if what == "crash":
    sys.stderr.write("bad picture\\n"); sys.stderr.flush(); os.kill(os.getpid(), signal.SIGSEGV)
if what == "hang":
    time.sleep(600)
print(json.dumps({"said": "more"})); print(json.dumps({"found": {"second": 2}}))
"""


@pytest.mark.parametrize(
    ("what", "limit_s", "found", "error"),
    [
        ("good", 60, {"second": 2}, None),
        ("crash", 60, {"first": 1}, "ended by SIGSEGV: bad picture"),
        ("hang", 2, {"first": 1}, "not done after its 2 s, and stopped"),
    ],
)
def test_what_was_found_before_a_crash_is_kept(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    limit_s: float,
    found: dict[str, int],
    error: str | None,
) -> None:
    package = tmp_path / "benchmarks"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "gpu_child.py").write_text(CHILD)
    monkeypatch.setattr(child_process, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    told: list[str] = []
    answer = ask(what, {}, limit_s, told.append)
    assert (answer.found, answer.error) == (found, error)
    assert told == (["  more"] if what == "good" else [])
    assert answer.gpu_peak_mb is None or answer.gpu_peak_mb >= 0


def test_preflight_names_what_is_absent_and_what_is_too_old() -> None:
    needs = (
        Need("click", "click", (8, 1)),
        Need("no_such_module", "no-such-package", (), "train"),
        Need("numpy", "numpy", (999, 0)),
    )
    found = look(needs)
    assert [one.wrong for one in found] == [None, "absent", "older than 999.0"]
    assert not is_complete(found)
    assert lines(found)[-1] == "2 of 3 missing or too old: no-such-package numpy"
    assert is_complete(found[:1])
    assert lines(found[:1])[-1] == "everything is there"


def test_a_bare_machine_is_told_all_that_is_missing_before_anything_is_imported() -> None:
    code = (
        "import sys; from importlib import util; real = util.find_spec\n"
        "util.find_spec = lambda name: None if name in ('cv2', 'nvidia.dali') else real(name)\n"
        "from benchmarks.gpu_preflight import refuse_incomplete\n"
        "assert not {'click', 'numpy', 'torch', 'cv2'} & set(sys.modules), 'imports'\n"
        "refuse_incomplete()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert "2 of" in done.stderr
    assert "nvidia-dali-cuda120 opencv-python-headless" in done.stderr


def test_preflight_option(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CliRunner().invoke(main, ["gpu", "--preflight"]).exit_code == 0
    monkeypatch.setattr(gpu_preflight, "find_spec", lambda _: None)
    assert CliRunner().invoke(main, ["gpu", "--preflight"]).exit_code == 1


def test_unknown_parts_are_refused() -> None:
    done = CliRunner().invoke(main, ["gpu", "--only", "parity,speed"])
    assert done.exit_code == 2
    assert "no part speed; there are environment, parity" in done.output


def test_no_dry_run_is_committed() -> None:
    for path in RESULTS.glob("gpu-*.json"):
        assert result.read(path, "gpu")["dry_run"] is False, path.name


def run_command(out: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks", "gpu", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return result.read(out / "gpu.json", "gpu")


@pytest.mark.services
@pytest.mark.timeout(900)
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device to measure on")
def test_the_rehearsal_does_every_part(tmp_path: Path) -> None:
    run = run_command(tmp_path / "out")
    assert run["dry_run"] is True
    assert [part["state"] for part in run["parts"]] == ["done"] * len(PARTS)
    found = {part["name"]: part["found"] for part in run["parts"]}
    assert all(check["ok"] for check in found["environment"]["checks"])
    assert found["parity-best"]["boxes_equal"]
    assert "ours: " in markdown(gpu_blocks(run))
    assert found["parity"]["boxes_equal"]
    assert set(found["decode"]["best"]) == {"region", "whole"}
    assert set(found["loaders"]["ratios"]) == {
        "decode-only",
        "dali-one-process",
        "dali-default",
        "zip-tuned",
        "zip-published",
    }
    outcomes = {one["kind"]: one for one in found["faults"]["cases"]}
    for kind in ("checksum", "no table"):
        assert outcomes[kind]["outcome"] == "named"
        assert outcomes[kind]["replaced"] > 0
        assert outcomes[kind]["same_samples"]
        assert outcomes[kind]["last_batch"]["mean"] < 1
    assert all(claim["holds"] is None for claim in run["claims"])


@pytest.mark.gpu
@pytest.mark.timeout(900)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_every_part_is_done(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "gpu", "--out", str(tmp_path)]
    subprocess.run(command, capture_output=True, text=True, cwd=ROOT)  # claims may fail
    run = result.read(tmp_path / "gpu.json", "gpu")
    assert run["dry_run"] is False
    assert [part["state"] for part in run["parts"]] == ["done"] * len(PARTS)
    assert markdown(gpu_blocks(run))
