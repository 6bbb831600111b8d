"""Maps of what a text is about."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import WIDTH
from transformers import (
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    CLIPSegProcessor,
    CLIPTokenizer,
    ViTImageProcessorPil,
)

from pumer_hf.data.scenes.digits import cell_box
from pumer_hf.grounding import SIDE, Grounder, saliency_from_boxes


def test_a_map_is_highest_in_the_box_and_falls_with_the_distance():
    saliency = saliency_from_boxes([cell_box(7, 6)])
    cell = SIDE // 6
    cells = saliency.view(6, cell, 6, cell).mean(dim=(1, 3))
    torch.testing.assert_close(cells[1, 1], torch.tensor(1.0))
    assert cells.argmax() == 7
    ring = torch.cat([cells[0, :3], cells[2, :3], cells[1, [0, 2]]])
    assert ring.max() < 1
    assert ring.min() > cells[:, 3:].max()


def test_a_box_may_cover_part_of_a_cell():
    saliency = saliency_from_boxes([(0.0, 0.0, 0.75, 0.25)], side=2)
    torch.testing.assert_close(saliency[0], torch.tensor([0.5, 0.25]))
    assert 0 < saliency[1].max() < 0.125


def test_several_boxes_and_none():
    several = saliency_from_boxes([cell_box(0, 6), cell_box(35, 6)])
    torch.testing.assert_close(several[[0, -1], [0, -1]], torch.ones(2))
    assert (saliency_from_boxes([]) == 0).all()


@pytest.mark.parametrize("box", [(0, 0, 1), (0, 0, 0, 1), (0.5, 0, 0.2, 1), (0, 0, 48, 48)])
def test_a_wrong_box(box):
    with pytest.raises(ValueError, match="left, top, right and bottom"):
        saliency_from_boxes([box])


def test_a_segmentation_model_gives_maps(tmp_path):
    words = ["<|startoftext|>", "<|endoftext|>", *"abcdefghijklmnopqrstuvwxyz", *(f"{x}</w>" for x in "abcdefghijk")]
    tokenizer = CLIPTokenizer(vocab={word: index for index, word in enumerate(words)}, merges=[])
    small = {**WIDTH, "num_hidden_layers": 2}
    config = CLIPSegConfig(
        text_config={**small, "vocab_size": len(words), "max_position_embeddings": 20, "eos_token_id": 1},
        vision_config={**small, "image_size": 32, "patch_size": 8},
        extract_layers=[0, 1],
        reduce_dim=8,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
        projection_dim=16,
    )
    torch.manual_seed(0)
    model = CLIPSegForImageSegmentation(config)
    processor = CLIPSegProcessor(ViTImageProcessorPil(size={"height": 32, "width": 32}), tokenizer)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    grounder = Grounder.from_pretrained(str(tmp_path))
    images = [Image.new("RGB", (50, 40), colour) for colour in ("red", "blue")]
    maps = grounder(images, ["a bad cab", "a"])
    assert maps.shape == (2, 32, 32)
    assert 0 < maps.min() < maps.max() < 1
    assert grounder(images[:1], ["a bad cab"]).shape == (1, 32, 32)
    grey = np.arange(2000, dtype=np.uint16).reshape(40, 50) % 256
    torch.testing.assert_close(grounder([grey * 257], ["a"]), grounder([grey.astype(np.uint8)], ["a"]))
    with pytest.raises(ValueError, match="2 images .*1 texts"):
        grounder(images, ["a"])
