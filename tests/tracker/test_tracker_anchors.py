import pytest
import torch

from tracker.anchors import CELLS, anchor_boxes, anchor_shapes


def test_shapes_are_rounded_half_to_even():
    assert anchor_shapes().tolist() == [[55, 18], [45, 22], [32, 32], [22, 45], [18, 55]]


def test_order_is_row_column_shape():
    anchors = anchor_boxes("corner").view(CELLS, CELLS, 5, 4)
    assert anchors[0, 0, 0].tolist() == [8, 45, 118, 81]
    assert anchors[0, 1, 0].tolist() == [16, 45, 126, 81]
    assert anchors[1, 0, 2].tolist() == [63 - 32, 71 - 32, 63 + 32, 71 + 32]
    assert anchors[16, 16, 4].tolist() == [191 - 18, 191 - 55, 191 + 18, 191 + 55]


@pytest.mark.parametrize(("grid", "middle"), [("edge", 127.5), ("corner", 127.0)])
def test_middle_cell_is_the_middle_of_the_crop(grid, middle):
    anchors = anchor_boxes(grid)
    assert anchors.shape == (1445, 4)
    assert anchors.dtype == torch.float32
    cell = anchors.view(CELLS, CELLS, 5, 4)[8, 8]
    assert ((cell[:, :2] + cell[:, 2:]) / 2 == middle).all()
