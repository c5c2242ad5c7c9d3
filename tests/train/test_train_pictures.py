"""Pictures of pairs: what the model sees, what is drawn, and that looking changes nothing."""

from io import BytesIO

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from train_fakes import use_fakes
from train_process import same

import train
from shards.draw import OTHER_RGB, TARGET_RGB
from shards.pixels import MEAN_RGB, STD_RGB
from shards.rng import uniforms
from tracker.follow import _siamrpn_search, _spm_search
from tracker.models import ModelConfig, build
from tracker.training import watch
from tracker.training.checkpoint import read
from tracker.training.pictures import FOUND_RGB, PAIRS, Found, draw_pairs, keep, predict

MODELS = ["spm_alexnet", "spm_r18c4", "siamrpn_alexnet", "siamrpn_alexnet_dw", "siamfc_alexnet"]
TEMPLATE_BOX = torch.tensor([[95.0, 80.0, 160.0, 175.0], [100.0, 90.0, 155.0, 165.0]])


def model_of(name):
    return build(ModelConfig(name=name, width=0.0625, init="random", seed=3))


def crops(seed=5, count=2):
    pixels = uniforms(seed, 0, 0, 0, count, 3 * 15 * 16)[:, : 3 * 15 * 15].reshape(-1, 3, 15, 15)
    return torch.from_numpy(pixels).float().repeat_interleave(17, 2).repeat_interleave(17, 3) - 0.5


@pytest.mark.parametrize("name", ["spm_alexnet", "siamrpn_alexnet", "siamrpn_alexnet_dw"])
def test_the_box_is_the_best_of_those_that_a_tracker_chooses_from(name):
    model, z, x = model_of(name).eval(), crops(5), crops(6)
    found = predict(model, z, x, TEMPLATE_BOX)
    assert found.boxes.dtype == found.scores.dtype == torch.float32
    prepare = _spm_search if name.startswith("spm") else _siamrpn_search
    for i in range(2):
        with torch.inference_mode():
            one = slice(i, i + 1)
            rows = prepare(model, z[one], TEMPLATE_BOX[one], model.config.track.match)(x[one])
        rows = rows[rows[:, 5] > 0]
        best = rows[rows[:, 4].argmax()]
        torch.testing.assert_close(found.boxes[i], best[:4], rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(found.scores[i], best[4], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("row", "column"), [(8, 8), (3, 12), (0, 16)])
def test_siamfc_finds_the_peak_of_its_response_in_the_templates_size(monkeypatch, row, column):
    model = model_of("siamfc_alexnet")
    response = torch.full((2, 17, 17), -3.0)
    response[:, row, column] = 2.0
    monkeypatch.setattr(model, "response", lambda kernels, search: response)
    found = predict(model, crops(5), crops(6), TEMPLATE_BOX)
    centre = model.centres.view(17, 17, 2)[row, column]
    middle = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    torch.testing.assert_close(middle, centre.expand(2, 2), atol=0.25, rtol=0)
    size = TEMPLATE_BOX[:, 2:] - TEMPLATE_BOX[:, :2]
    torch.testing.assert_close(found.boxes[:, 2:] - found.boxes[:, :2], size)
    assert (found.scores - torch.sigmoid(torch.tensor(2.0))).abs().max() < 0.02


@pytest.mark.parametrize("name", MODELS)
def test_looking_leaves_no_trace_in_the_model(name):
    model = model_of(name)
    list(model.children())[-1].eval()  # one part in another mode than the rest
    modes = [module.training for module in model.modules()]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state, grad = torch.get_rng_state(), torch.is_grad_enabled()
    dtype = torch.bfloat16 if name == "spm_r18c4" else torch.float32  # slow on a CPU
    found = predict(model, crops(5), crops(6), TEMPLATE_BOX, dtype=dtype)
    assert found.boxes.dtype == torch.float32
    assert found.boxes.isfinite().all()
    assert found.boxes.shape == (2, 4)
    assert ((found.scores > 0) & (found.scores < 1)).all()
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled() == grad
    assert not torch.is_autocast_enabled("cpu")
    after = model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_half_precision_is_the_models_own():
    model = model_of("spm_r18c4")
    full = predict(model, crops(5), crops(6), TEMPLATE_BOX)
    half = predict(model, crops(5), crops(6), TEMPLATE_BOX, dtype=torch.bfloat16)
    assert not torch.equal(full.scores, half.scores)
    torch.testing.assert_close(full.scores, half.scores, atol=0.02, rtol=0)


def test_a_model_that_fails_is_left_in_its_mode(monkeypatch):
    model = model_of("siamrpn_alexnet").train()

    def fail(image):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(model, "features", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        predict(model, crops(5), crops(6), TEMPLATE_BOX)
    assert model.training


def test_compiled_parts_are_not_compiled_for_it():
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    model, plain = model_of("siamrpn_alexnet"), model_of("siamrpn_alexnet")
    for part in model.children():
        part.compile(fullgraph=True, dynamic=False, backend=backend)
    found = predict(model, crops(5), crops(6), TEMPLATE_BOX)
    assert compiled == []
    torch.testing.assert_close(found, predict(plain, crops(5), crops(6), TEMPLATE_BOX))
    model.features(crops(5))
    assert len(compiled) == 1


SIDE = 64
TRUE_BOX, FOUND_BOX = [10.0, 12.0, 40.0, 44.0], [20.0, 12.0, 50.0, 44.0]


def drawn(count=2, positive=(True, False), found=FOUND_BOX, score=0.75, grey=128):
    pixels = torch.full((count, 3, SIDE, SIDE), grey, dtype=torch.uint8)
    boxes = torch.tensor([TRUE_BOX] * count)
    return pixels, draw_pairs(
        pixels, pixels, boxes, boxes, torch.tensor([*positive] * (count // 2)),
        Found(torch.tensor([found] * count), torch.tensor([score] * count)),
        sample=torch.arange(count),
    )  # fmt: skip


def tile(picture, column, row=0):
    step = SIDE + 4
    y = 4 + row * (picture.shape[0] - 4)
    return picture[y : y + SIDE, 4 + column * step : 4 + column * step + SIDE]


def colour(picture, rgb):
    return {(int(x), int(y)) for y, x in np.argwhere((picture == rgb).all(axis=-1))}


def edge(box):
    """Outermost two pixels of a box."""
    x0, y0, x1, y1 = (int(v) for v in box)
    inner = {(x, y) for x in range(x0 + 2, x1 - 2) for y in range(y0 + 2, y1 - 2)}
    return {(x, y) for x in range(x0, x1) for y in range(y0, y1)} - inner


def test_boxes_are_drawn_where_they_are_in_their_colours():
    _, picture = drawn()
    assert picture.dtype == np.uint8
    assert picture.shape[1] == 4 * (SIDE + 4) + 4
    assert colour(tile(picture, 0), TARGET_RGB) == edge(TRUE_BOX)
    assert colour(tile(picture, 0), FOUND_RGB) == set()
    assert colour(tile(picture, 1), FOUND_RGB) == edge(FOUND_BOX)
    assert colour(tile(picture, 1), TARGET_RGB) == edge(TRUE_BOX) - edge(FOUND_BOX)
    other = tile(picture, 3)  # the negative pair
    assert colour(other, OTHER_RGB) == edge(TRUE_BOX) - edge(FOUND_BOX)
    assert colour(other, TARGET_RGB) == set()
    assert (tile(picture, 0)[0, 0] == 128).all()


def test_normalised_pixels_become_the_stored_ones():
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8)
    mean, std = (torch.tensor(of).view(3, 1, 1) for of in (MEAN_RGB, STD_RGB))
    box = torch.tensor([TRUE_BOX] * 2)
    rest = (box, box, torch.tensor([True, True]), Found(box, torch.tensor([0.5, 0.5])))
    normalised = (pixels / 255 - mean) / std
    assert np.array_equal(
        draw_pairs(pixels, pixels, *rest), draw_pairs(normalised, normalised, *rest)
    )


def texts(monkeypatch):
    """Lines of text that are drawn."""
    found = []
    from tracker.training import pictures

    sheet = pictures.sheet
    monkeypatch.setattr(
        pictures, "sheet", lambda tiles, columns: found.extend(tiles) or sheet(tiles, columns)
    )
    return found


def test_what_is_written_below(monkeypatch):
    tiles = texts(monkeypatch)
    drawn()
    assert [one.text for one in tiles] == [
        "pair 0: one object", "score 0.75, IoU 0.50",
        "pair 1: negative, two objects", "score 0.75, should be low",
    ]  # fmt: skip


def test_output_that_is_not_finite_is_said_and_not_drawn(monkeypatch):
    tiles = texts(monkeypatch)
    _, picture = drawn(found=[float("nan")] * 4, score=float("nan"))
    assert tiles[1].text == "the model's output is not finite"
    assert colour(picture, FOUND_RGB) == set()
    assert colour(tile(picture, 1), TARGET_RGB) == edge(TRUE_BOX)
    drawn(found=[-1e9, 0.0, 1e12, 50.0])  # and one far outside does no harm


def test_the_first_eight_pairs_are_drawn(monkeypatch):
    tiles = texts(monkeypatch)
    drawn(count=10)
    assert len(tiles) == 2 * PAIRS == 16


class Board:
    def __init__(self):
        self.images = []

    def add_image(self, tag, picture, step, *, dataformats):
        self.images.append((tag, picture, step, dataformats))


def test_a_sheet_is_kept_whole_and_shown(tmp_path):
    board, picture = Board(), drawn()[1]
    keep(tmp_path, 100, picture, board)
    (path,) = (tmp_path / "pictures").iterdir()
    assert path.name == "step_00000100.png"
    assert np.array_equal(np.asarray(Image.open(BytesIO(path.read_bytes()))), picture)
    assert board.images == [("pairs", picture, 100, "HWC")]


def test_a_picture_that_fails_is_a_warning_and_the_training_goes_on(tmp_path, monkeypatch):
    use_fakes(monkeypatch.setattr)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text("train: {batch_size: 4, threads: 1, pictures_every: 2}\n")
    state, threads = torch.get_rng_state(), torch.get_num_threads()

    def fail(*_, **__):
        raise torch.OutOfMemoryError("tried to allocate\n4 GiB")

    monkeypatch.setattr(watch, "pairs_sheet", fail)
    try:
        result = CliRunner().invoke(train.main, ["--config", "tiny.yaml", "--steps", "4"])
    finally:
        torch.set_rng_state(state)
        torch.set_num_threads(threads)
    assert result.exit_code == 0, result.output
    assert result.stderr == "".join(
        f"Warning: there is no picture after step {step}: tried to allocate 4 GiB\n"
        for step in (2, 4)
    )


def test_a_sheet_that_cannot_be_written_is_a_warning(tmp_path, capsys):
    (tmp_path / "pictures").write_text("in the way")
    keep(tmp_path, 100, drawn()[1], Board())
    error = capsys.readouterr().err
    assert error.startswith(f"Warning: {tmp_path}/pictures")
    assert error.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["spm_r18c4", "siamfc_alexnet"])
def test_training_with_pictures_is_the_same_to_the_bit(packed, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    state, threads = torch.get_rng_state(), torch.get_num_threads()

    def start(out, every):
        small = ["model.width=0.05", "model.init=random", "train.batch_size=4", "train.threads=1"]
        small += ["data.pairs_per_epoch=8", "train.log_every=1", "data.backend=cpu"]
        small += ["train.heads_only_epochs=0", f"train.pictures_every={every}"]
        arguments = ["--config", f"{name}.yaml", "--data", str(packed / "lasot"), "--out", out]
        arguments += ["--steps", "3", *(p for key in small for p in ("--set", key))]
        result = CliRunner().invoke(train.main, arguments)
        assert result.exit_code == 0, result.output

    try:
        start("without", 0)
        start("with", 2)
    finally:
        torch.set_rng_state(state)
        torch.set_num_threads(threads)
    without, seen = (read(tmp_path / out / "latest.pth") for out in ("without", "with"))
    without["meta"].pop("config"), seen["meta"].pop("config")
    assert same(without, seen)
    assert not (tmp_path / "without/pictures").exists()
    (path,) = (tmp_path / "with/pictures").iterdir()
    assert path.name == "step_00000002.png"
    picture = np.asarray(Image.open(path))
    assert picture.shape[1] == 4 * (255 + 4) + 4
    assert colour(picture, FOUND_RGB)
    assert shown(tmp_path / "with/tensorboard") == {"pairs": [2]}


def shown(folder):
    """Steps of the pictures that TensorBoard has, by tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [one.step for one in events.Images(tag)] for tag in events.Tags()["images"]}
