"""RandAugment (https://arxiv.org/abs/1909.13719) for training images, with kornia."""

from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image as PILImage

from ..release import extra_command

NUM_OPERATIONS, MAGNITUDE = 2, 9  # as in ViLT, METER and PuMer; the magnitude is in [0, 30]


@cache
def _augmenter() -> Any:
    try:
        from kornia.augmentation.auto import RandAugment
    except ImportError as error:
        raise ImportError(f"data.rand_augment needs kornia: {extra_command('augment')}") from error
    return RandAugment(n=NUM_OPERATIONS, m=MAGNITUDE)


def rand_augment(image: PILImage.Image) -> PILImage.Image:
    """Apply two random operations to an RGB image. Torch's generator draws them."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).unsqueeze(0) / 255
    changed = _augmenter()(pixels)[0].clamp(0, 1) * 255
    return PILImage.fromarray(changed.round().byte().permute(1, 2, 0).numpy())
