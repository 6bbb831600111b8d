import sys

import numpy as np
import pytest
import torch
from PIL import Image as PILImage

from pumer_hf.data.augment import _augmenter, rand_augment


@pytest.fixture
def image():
    return PILImage.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))


def test_images_change_at_random_and_keep_their_shape(image):
    pytest.importorskip("kornia")
    torch.manual_seed(0)
    changed = [np.asarray(rand_augment(image)) for _ in range(6)]
    assert {pixels.shape for pixels in changed} == {(24, 32, 3)}
    assert {pixels.dtype for pixels in changed} == {np.dtype(np.uint8)}
    assert len({pixels.tobytes() for pixels in changed}) > 3
    torch.manual_seed(0)
    assert np.array_equal(np.asarray(rand_augment(image)), changed[0])


def test_without_kornia_the_error_says_what_to_install(image, monkeypatch):
    monkeypatch.setitem(sys.modules, "kornia.augmentation.auto", None)
    _augmenter.cache_clear()
    with pytest.raises(ImportError, match=r"pip install .*kornia"):
        rand_augment(image)
