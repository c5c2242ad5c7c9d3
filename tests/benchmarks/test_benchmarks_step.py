"""``python -m benchmarks step``: equal steps on both sides, a complete result, bars."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks import step
from benchmarks.cli import main
from benchmarks.report_blocks import markdown
from benchmarks.report_kinds import step_blocks
from shards.errors import MismatchError


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = step.make_work
    monkeypatch.setattr(
        step, "make_work", lambda name, timed, batch, _: whole(name, timed, batch, 0.05)
    )


@pytest.mark.usefixtures("narrow")
def test_a_run_is_complete_and_makes_a_table(tmp_path: Path) -> None:
    file, threads = tmp_path / "step.json", torch.get_num_threads()
    args = ["step", "--batch", "2", "--repeats", "2", "--json", str(file)]
    outcome = CliRunner().invoke(main, args)
    assert outcome.exit_code == 0, outcome.stderr
    assert torch.get_num_threads() == threads
    run = json.loads(file.read_text())
    assert {(one["model"], one["timed"]) for one in run["cases"]} == {
        (name, timed) for name in step.MODELS for timed in step.STEPS
    }
    for one in run["cases"]:
        assert len(one["ratio_repeats"]) == len(one["ms_repeats"]["ours"]) == 2
        first = [one["ms_repeats"][form][0] for form in ("loop", "ours")]
        assert one["ratio_repeats"][0] == first[0] / first[1]
        assert (one["bar"] is None) == (one["timed"] == "all but the backbone")
        assert one["holds"] == (None if one["bar"] is None else one["ratio"] >= one["bar"])
        assert one["others_cores_busy"] >= 0
        assert one["difference"]["losses"] <= run["tolerance"]["losses"]
    section = markdown(step_blocks(run))
    assert section.count("\n| spm_alexnet |") + section.count("\n| siamrpn_alexnet |") == len(
        run["cases"]
    )
    assert "of 2 pairs in float32, without the backbone" in section


@pytest.mark.usefixtures("narrow")
def test_a_missed_bar_is_exit_1_under_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "BAR", 1e6)
    args = ["step", "--batch", "1", "--repeats", "1"]
    assert CliRunner().invoke(main, args).exit_code == 0
    checked = CliRunner().invoke(main, [*args, "--check"])
    assert checked.exit_code == 1
    assert " NO" in checked.stdout


@pytest.mark.parametrize("timed", step.STEPS)
def test_stand_ins_leave_the_gradients_that_are_timed(timed: str) -> None:
    work = step.make_work("spm_alexnet", timed, step.make_batch(2), 0.05)
    step.compare(work)
    reached = sum(leaf.grad is not None and bool(leaf.grad.any()) for leaf in work.leaves)
    # conv2 and conv4 of both crops; then both coarse maps, or conv5 of both and the heads
    assert reached == (6 if timed == "targets and losses" else 28)


def test_a_loop_that_computes_something_else_ends_the_run() -> None:
    work = step.make_work("siamrpn_alexnet", "targets and losses", step.make_batch(2), 0.05)
    wrong = step.Work(
        ours=work.ours,
        loop=lambda: {name: term * 1.001 for name, term in work.loop().items()},
        leaves=work.leaves,
    )
    with pytest.raises(MismatchError, match=r"losses differ by 1\.0e-03"):
        step.compare(wrong)
