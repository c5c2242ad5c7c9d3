import json
import math
import sys

import pytest
import torch

from shards.errors import SiamstreamError
from tracker.training.log import Meter, RunLog, keep_until
from tracker.training.records import write_records
from tracker.training.world import World


def losses(value: float) -> dict[str, torch.Tensor]:
    return {"loss": torch.tensor(value), "cm_cls": torch.tensor(value / 2)}


def test_a_window_is_the_mean_of_its_steps():
    meter = Meter()
    for value in (1.0, 2.0, 6.0):
        meter.add(losses(value), wait_s=0.0)
    found = meter.read(World(), 3, 4)
    assert (found["loss"], found["cm_cls"]) == (3.0, 1.5)
    assert list(found) == ["loss", "cm_cls", "pairs_per_s", "data_wait_share"]
    assert found["pairs_per_s"] > 0
    meter.reset()
    meter.add(losses(5.0), wait_s=0.0)
    assert meter.read(World(), 4, 4)["loss"] == 5.0


def test_the_share_of_waiting_is_one_at_most():
    meter = Meter()
    meter.add(losses(1.0), wait_s=1e9)
    assert meter.read(World(), 1, 1)["data_wait_share"] == 1.0


def test_a_window_goes_on_from_its_state():
    whole, first, second = Meter(), Meter(), Meter()
    values = [0.1, 0.2, 0.7, 1 / 3]
    for meter, part in ((whole, values), (first, values[:2])):
        for value in part:
            meter.add(losses(value), 0.0)
    second.load_state_dict(first.state_dict(), torch.device("cpu"))
    for value in values[2:]:
        second.add(losses(value), 0.0)
    assert second.read(World(), 4, 1)["loss"] == whole.read(World(), 4, 1)["loss"]
    fresh = Meter()
    fresh.load_state_dict(Meter().state_dict(), torch.device("cpu"))
    fresh.add(losses(1.0), 0.0)
    assert fresh.read(World(), 1, 1)["loss"] == 1.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run(bad):
    meter = Meter()
    for value in (1.0, bad, 1.0):
        meter.add(losses(value), 0.0)
    with pytest.raises(SiamstreamError, match="the loss is not finite in steps 8 to 10: loss"):
        meter.read(World(), 10, 1)


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
        "lr": 0.01, "pairs_per_s": 1234.56, "data_wait_share": 0.25,
    }  # fmt: skip
    log = RunLog(tmp_path, 0, 1000)
    log.write(record)
    log.advance(20)
    log.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == record
    assert capsys.readouterr().out == (
        "step 20/1,000  epoch 1  loss 1.5000  lr 0.01  1,234.6 pairs/s  data wait 25%  "
        "(cm_cls 1, fm_cls 0.5)\n"
    )
    assert [p.name[:19] for p in (tmp_path / "tensorboard").iterdir()] == ["events.out.tfevents"]


def test_a_terminal_has_one_line_that_changes(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    log = RunLog(tmp_path, 0, 40)
    record = {"step": 20, "epoch": 1, "samples": 80, "loss": 1.5, "cm_cls": 1.0, "lr": 0.01}
    log.write({**record, "pairs_per_s": 12.0, "data_wait_share": 0.25})
    log.advance(21)
    log.close()
    shown = capsys.readouterr().out
    assert "step 20/40  epoch 1  loss 1.5000  lr 0.01  12.0 pairs/s  data wait 25%" in shown
    assert "cm_cls" not in shown


def test_scalars_can_be_read_back(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for start, step in ((0, 10), (10, 20)):
        log = RunLog(tmp_path, start, 20)
        log.write({
            "step": step, "epoch": 0, "samples": step, "loss": step / 8,
            "lr": 0.5, "pairs_per_s": 1.0, "data_wait_share": 0.0,
        })  # fmt: skip
        log.close()
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in board.Scalars("train/loss")] == [(10, 1.25), (20, 2.5)]
    assert "train/lr" in board.Tags()["scalars"]


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
