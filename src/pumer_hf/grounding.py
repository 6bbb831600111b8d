"""Maps that say which part of an image a text is about. The method `grounded` takes them as `image_saliency`.

They come from known boxes or from a segmentation model.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoProcessor, CLIPSegForImageSegmentation, ProcessorMixin

from .images import ImageSource, open_image

SIDE = 24
"""Rows and columns of a map from boxes."""
Box = Sequence[float]
"""Left, top, right and bottom edge, as parts of the width and height of the image, in [0, 1]."""


def saliency_from_boxes(boxes: Sequence[Box], side: int = SIDE) -> Tensor:
    """Return a map that is highest in the boxes and falls with the distance from them.

    So pruning by rank keeps the boxes first, and then what is nearest to them, as in TiP's grounded baseline
    (Appendix A.4).

    Args:
        boxes: what the text is about. Without boxes, the map is 0 everywhere.
        side: rows and columns of the map.

    Returns:
        float (side, side) in [0, 1]. A cell that touches a box has the part of it that is in the box. Any other cell
        has half of the lowest of these values, halved again for every 1 / 8 of the image up to the nearest such cell.

    Raises:
        ValueError: a box is not four numbers in [0, 1], the first two below the others.
    """
    edges = torch.arange(side + 1) / side
    covered = torch.zeros(side, side)
    for box in boxes:
        if len(box) != 4 or not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
            raise ValueError(f"box {list(box)}: give left, top, right and bottom as parts of the image, in [0, 1]")
        across, down = (
            (edges[1:].clamp(max=box[high]) - edges[:-1].clamp(min=box[low])).clamp(min=0) * side
            for low, high in ((0, 2), (1, 3))
        )
        covered = torch.maximum(covered, down.unsqueeze(1) * across)
    places = covered.nonzero()
    if len(places) == 0:
        return covered
    lowest = covered[covered > 0].min()
    cells = torch.cartesian_prod(torch.arange(side), torch.arange(side))
    distance = (cells.unsqueeze(1) - places).abs().amax(dim=-1).amin(dim=-1).view(side, side)
    return torch.where(covered > 0, covered, 0.5 * lowest * 0.5 ** (8 * distance / side))


class Grounder:
    """Makes maps with CLIPSeg (https://arxiv.org/abs/2112.10003), which segments what a text names.

    `Grounder.from_pretrained("CIDAS/clipseg-rd64-refined")(images, texts)` gives `image_saliency`.
    """

    def __init__(self, model: CLIPSegForImageSegmentation, processor: ProcessorMixin):
        self.model = model.eval()
        self.processor = processor

    @classmethod
    def from_pretrained(cls, name: str) -> "Grounder":
        """Load a CLIPSeg model from a Hub id or a folder."""
        return cls(CLIPSegForImageSegmentation.from_pretrained(name), AutoProcessor.from_pretrained(name))

    @torch.no_grad()
    def __call__(self, images: Sequence[ImageSource], texts: Sequence[str]) -> Tensor:
        """Return maps float (B, rows, columns) in [0, 1], one for each image and its text.

        A map covers the whole image. If the processor of a model cuts out the middle, give images that are cut alike.
        """
        if len(images) != len(texts):
            raise ValueError(f"{len(images)} images and {len(texts)} texts: give as many of both")
        opened = [open_image(image, f"image {index}") for index, image in enumerate(images)]
        inputs = self.processor(images=opened, text=list(texts), padding=True, truncation=True, return_tensors="pt")
        logits = self.model(**inputs.to(self.model.device)).logits
        return F.sigmoid(logits.float()).view(len(images), *logits.shape[-2:])
