"""Alignment with regions: small cases worked out by hand, and the random baseline against a simulation."""

import pytest
import torch

from pumer_hf.measures.alignment import (
    alignment,
    held_patches,
    region_from_attention,
    region_from_boxes,
    region_from_cells,
)
from pumer_hf.tokens import LayerTrace


def trace_of(*sources):
    """A trace whose image tokens hold the patches as given, -1 for pruned; the [CLS] comes before."""
    image_source = torch.tensor([[0, *source] for source in sources])
    return LayerTrace(
        layer=1, num_text=1, num_image=9, text_source=torch.zeros(len(sources), 1).long(), image_source=image_source
    )


def patches(*rows):
    return torch.tensor([[mark == "x" for mark in row] for row in rows])


def marked(region):
    return ["".join("x" if patch else "." for patch in row) for row in region.tolist()]


# Patches 1 and 5 are merged, 3 is pruned: five of six are held.
HELD = (2, 1, 3, -1, 4, 1)


def test_kept_and_merged_patches_are_held():
    assert marked(held_patches(trace_of(HELD), (2, 3))[0]) == ["xxx", ".xx"]


def test_alignment_by_hand():
    found = alignment(trace_of(HELD, HELD), torch.stack([patches("x..", "x.."), patches("...", ".xx")]))
    assert found.precision.tolist() == pytest.approx([1 / 5, 2 / 5])
    assert found.recall.tolist() == pytest.approx([1 / 2, 1])
    assert found.random_precision.tolist() == pytest.approx([2 / 6, 2 / 6])
    assert found.random_recall.tolist() == pytest.approx([5 / 6, 5 / 6])


def test_without_a_region_there_is_no_value():
    found = alignment(trace_of(HELD, HELD), torch.stack([patches("...", "..."), patches("x..", "...")]))
    assert torch.stack(found).isnan().tolist() == [[True, False]] * 4


def test_a_layer_that_holds_nothing_has_precision_and_recall_0():
    found = alignment(trace_of([-1] * 6), patches("x..", "...").unsqueeze(0))
    assert torch.stack(found).tolist() == [[0.0]] * 4


def test_padding_is_neither_held_nor_in_a_region():
    real = patches("xx.", "xx.").unsqueeze(0)
    found = alignment(trace_of([1, -1, -1, 2, 3, -1]), patches("xxx", "...").unsqueeze(0), real)
    assert [value.item() for value in found] == pytest.approx([1 / 3, 1 / 2, 2 / 4, 3 / 4])


def test_the_random_baseline_is_what_random_choices_get():
    generator = torch.Generator().manual_seed(0)
    number, held, region = 4000, 5, patches("xx..", "x...", ".x..")
    order = torch.rand(number, 12, generator=generator).argsort(dim=1)
    sources = torch.full((number, 12), -1).scatter(1, order[:, :held], 1)
    found = alignment(trace_of(*sources.tolist()), region.expand(number, -1, -1))
    assert found.random_precision[0].item() == pytest.approx(4 / 12)
    assert found.random_recall[0].item() == pytest.approx(5 / 12)
    assert found.precision.mean().item() == pytest.approx(4 / 12, abs=0.01)
    assert found.recall.mean().item() == pytest.approx(5 / 12, abs=0.01)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((2, 3), r"region .*\(2, 3\)"), ((2, 2, 3), r"\(1, rows, columns\)"), ((1, 3, 3), r"grid=\(3, 3\)")],
)
def test_a_region_of_the_wrong_shape_is_an_error(shape, message):
    with pytest.raises(ValueError, match=message):
        alignment(trace_of(HELD), torch.ones(shape, dtype=torch.bool))


def test_boxes_by_hand():
    # An image of 30 x 20 pixels, patches of 10 x 10. The box touches the right column, and does not overlap it.
    assert marked(region_from_boxes([(5, 0, 20, 10)], (30, 20), (2, 3))) == ["xx.", "..."]
    assert marked(region_from_boxes([(5, 0, 20.5, 10.5)], (30, 20), (2, 3))) == ["xxx", "xxx"]
    assert marked(region_from_boxes([(0, 0, 1, 1), (29, 19, 30, 20)], (30, 20), (2, 3))) == ["x..", "..x"]
    assert marked(region_from_boxes([], (30, 20), (2, 3))) == ["...", "..."]


def test_a_wide_image_is_squeezed_into_the_grid():
    assert marked(region_from_boxes([(0, 0, 320, 480)], (640, 480), (2, 2))) == ["x.", "x."]


def test_thirds_of_a_pixel_are_exact():
    # 100 pixels in three columns: the first ends at 33.33, so pixel 33 is in two of them.
    assert marked(region_from_boxes([(33, 0, 34, 1)], (100, 1), (1, 3))) == ["xx."]
    assert marked(region_from_boxes([(34, 0, 66, 1)], (100, 1), (1, 3))) == [".x."]


@pytest.mark.parametrize("box", [(5, 0, 5, 10), (0, 9, 3, 2), (-1, 0, 3, 3), (0, 0, 31, 3), (0, 0, 3)])
def test_a_wrong_box_is_named(box):
    with pytest.raises(ValueError, match=r"boxes: \(.*\(x0, y0, x1, y1\) .*30 x 20"):
        region_from_boxes([(0, 0, 1, 1), box], (30, 20), (2, 3))


def test_where_a_patch_is_a_cell_their_numbers_agree():
    region = region_from_cells([0, 8, 35], 6, (6, 6))
    assert region.flatten().nonzero().flatten().tolist() == [0, 8, 35]


def test_cells_of_other_patch_sizes():
    assert marked(region_from_cells([7], 6, (3, 3))) == ["x..", "...", "..."]
    assert marked(region_from_cells([1], 2, (4, 4))) == ["..xx", "..xx", "....", "...."]
    assert marked(region_from_cells([1], 6, (4, 4))) == ["xx..", "....", "....", "...."]  # pixels 8 to 15 of 48
    assert not region_from_cells([], 6, (6, 6)).any()
    with pytest.raises(ValueError, match=r"cells=\[36\]: .*\[0, 35\] .*grid_size=6"):
        region_from_cells([36], 6, (6, 6))


def test_attention_by_hand():
    attention = torch.zeros(4, 4, dtype=torch.uint8)
    attention[0, 1], attention[3, 0], attention[2, 2] = 50, 10, 9  # of 50, 10 is the threshold
    assert marked(region_from_attention(attention, (4, 4), (2, 2))) == ["x.", "x."]
    assert marked(region_from_attention(attention, (4, 4), (2, 2), threshold=0.1)) == ["x.", "xx"]
    assert marked(region_from_attention(attention, (8, 8), (2, 2))) == [".x..", "....", "....", "x..."]
    assert marked(region_from_attention(attention / 255, (8, 16), (4, 4), 0.19)) == [".x..", "x..."]


def test_attention_outside_of_what_is_seen_counts_for_the_maximum():
    attention = torch.zeros(4, 8)
    attention[0, 0], attention[1, 3], attention[3, 5] = 100, 30, 10
    assert marked(region_from_attention(attention, (4, 4), (2, 2), part=(2, 0, 6, 4))) == ["x.", ".."]
    assert marked(region_from_attention(attention, (8, 16), (4, 4), part=(-4, -2, 12, 6))) == [".x..", "...."]


def test_nobody_looked_anywhere():
    assert not region_from_attention(torch.zeros(4, 4), (8, 8), (2, 2)).any()


@pytest.mark.parametrize(
    ("attention", "threshold", "message"),
    [
        (torch.zeros(3, 4, 4), 0.2, r"attention .*\(3, 4, 4\): .*\(h, w\)"),
        (-torch.ones(4, 4), 0.2, "no value below 0"),
        (torch.ones(4, 4), 0.0, r"threshold=0.0: .*\(0, 1\]"),
    ],
)
def test_wrong_attention(attention, threshold, message):
    with pytest.raises(ValueError, match=message):
        region_from_attention(attention, (8, 8), (2, 2), threshold)
