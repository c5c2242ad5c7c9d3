import itertools
import json
import sys

from tracker.training import board
from tracker.training.log import RunLog, keep_until
from tracker.training.records import write_records
from tracker.training.step import PHASES

TIMED = {
    "pairs_per_s": 1234.56, "data_wait_share": 0.25, "wait_ms": 5.0,
    **{f"{name}_ms": 10.0 * i for i, name in enumerate(PHASES, 1)},
}  # fmt: skip
PARTS = "ms a step: wait 5, forward 10, backward 20, optimizer 30"


def test_metrics_after_the_step_and_torn_lines_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    keep_until(path, 3)
    assert not path.exists()
    path.write_text('{"step": 1}\n{"step": 3}\n{"step": 4}\n[1]\n{"st')
    keep_until(path, 3)
    assert path.read_text() == '{"step": 1}\n{"step": 3}\n'
    keep_until(path, 0)
    assert path.read_text() == ""


def test_a_record_goes_to_all_places(tmp_path, capsys):
    record = {
        "step": 20, "epoch": 1, "samples": 80, "loss": 1.5, "cm_cls": 1.0, "fm_cls": 0.5,
        "lr": 0.01, **TIMED,
    }  # fmt: skip
    log = RunLog(tmp_path, 0, 1000)
    log.write(record)
    log.advance(20)
    log.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == record
    assert capsys.readouterr().out == (
        f"step 20/1,000  epoch 1  loss 1.5  lr 0.01  1,234.6 pairs/s  {PARTS}  "
        "(cm_cls 1, fm_cls 0.5)\n"
    )
    assert [p.name[:19] for p in (tmp_path / "tensorboard").iterdir()] == ["events.out.tfevents"]


def test_a_terminal_has_one_line_that_changes(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "160")
    log = RunLog(tmp_path, 0, 40)
    record = {"step": 20, "epoch": 1, "samples": 80, "loss": 1.5, "cm_cls": 1.0, "lr": 0.01}
    log.write({**record, **TIMED})
    log.advance(21)
    log.close()
    shown = capsys.readouterr().out
    assert f"step 20/40  epoch 1  loss 1.5  lr 0.01  1,234.6 pairs/s  {PARTS}" in shown
    assert "cm_cls" not in shown


def test_scalars_can_be_read_back(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr(board, "_numbers", itertools.count(9))  # 9 comes before 10 by name too
    for start, step in ((0, 10), (10, 20)):
        log = RunLog(tmp_path, start, 20)
        log.write({
            "step": step, "epoch": 0, "samples": step, "loss": step / 8,
            "grad_norm": None, "lr": 0.5, **TIMED,
        })  # fmt: skip
        log.close()
    shown = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in shown.Scalars("train/loss")] == [(10, 1.25), (20, 2.5)]
    assert "train/lr" in shown.Tags()["scalars"]


def test_the_records_list_every_start(tmp_path):
    record = {"data": {"missing": ["coco"]}, "world_size": 2, "init": {"source": "x"}}
    write_records(tmp_path / "run", "a: 1\n", record, 0)
    write_records(tmp_path / "run", "a: 1\n", record, 50)
    found = json.loads((tmp_path / "run" / "run.json").read_text())
    assert [start["step"] for start in found["starts"]] == [0, 50]
    assert found["init"] == {"source": "x"}
    text = (tmp_path / "run" / "config.yaml").read_text()
    assert "# not on disk: coco\n" in text
    assert text.endswith("a: 1\n")
    (tmp_path / "run" / "run.json").write_text("{")
    write_records(tmp_path / "run", "a: 1\n", record, 60)
    assert (tmp_path / "run" / "run.json.damaged").read_text() == "{"
    write_records(tmp_path / "run", "a: 1\n", record, 0)
    found = json.loads((tmp_path / "run" / "run.json").read_text())
    assert len(found["starts"]) == 1
