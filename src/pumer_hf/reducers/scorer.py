"""The scorers of `lookahead`: small networks that predict how much a later layer will attend to each image token."""

import torch
from torch import Tensor, nn


class Side(nn.Sequential):
    """LayerNorm, a linear layer and GELU: it brings the tokens of one modality to the width of the scorer."""

    def __init__(self, width: int, rank: int):
        super().__init__(nn.LayerNorm(width), nn.Linear(width, rank), nn.GELU())


def sum_of_words(words: Tensor, text_mask: Tensor) -> Tensor:
    """Return the sum of the real words, float (B, 1, rank), of `words`, float (B, Lt, rank)."""
    return (words * text_mask.unsqueeze(-1)).sum(dim=1, keepdim=True)


class Scorer(nn.Module):
    """The base of the scorers.

    Args:
        image_width: width of the image tokens.
        text_width: width of the text tokens.
        rank: width of the scorer, at least 1.
    """

    def __init__(self, image_width: int, text_width: int, rank: int):
        super().__init__()
        self.image = Side(image_width, rank)
        self.text = Side(text_width, rank)

    def forward(self, image: Tensor, text: Tensor, text_mask: Tensor) -> Tensor:
        """Score the image tokens.

        Args:
            image: float (B, L, image_width).
            text: float (B, Lt, text_width).
            text_mask: bool (B, Lt), True for real words.

        Returns:
            float (B, L): logits. Their softmax over the image is the predicted attention.
        """
        raise NotImplementedError


class BagScorer(Scorer):
    """The product of an image token with the sum of the words."""

    def forward(self, image: Tensor, text: Tensor, text_mask: Tensor) -> Tensor:
        words = sum_of_words(self.text(text), text_mask)
        return (self.image(image) @ words.transpose(1, 2)).squeeze(-1)


class WordsScorer(Scorer):
    """The soft maximum over the words of the product of an image token with a word."""

    def forward(self, image: Tensor, text: Tensor, text_mask: Tensor) -> Tensor:
        products = self.image(image) @ self.text(text).transpose(1, 2)
        lowest = torch.finfo(products.dtype).min
        return products.masked_fill(~text_mask.unsqueeze(1), lowest).logsumexp(dim=-1)


class GatedScorer(Scorer):
    """Two layers on the elementwise product of an image token with the sum of the words."""

    def __init__(self, image_width: int, text_width: int, rank: int):
        super().__init__(image_width, text_width, rank)
        self.gate = nn.Linear(rank, rank)
        self.score = nn.Sequential(nn.Linear(rank, rank), nn.GELU(), nn.Linear(rank, 1))

    def forward(self, image: Tensor, text: Tensor, text_mask: Tensor) -> Tensor:
        words = self.gate(sum_of_words(self.text(text), text_mask))
        return self.score(self.image(image) * words).squeeze(-1)


class BlockScorer(Scorer):
    """Attention from the image tokens to the words, and two layers on the result."""

    def __init__(self, image_width: int, text_width: int, rank: int):
        super().__init__(image_width, text_width, rank)
        self.query = nn.Linear(rank, rank)
        self.key_value = nn.Linear(rank, 2 * rank)
        self.output = nn.Linear(rank, rank)
        self.score = nn.Sequential(nn.LayerNorm(rank), nn.Linear(rank, rank), nn.GELU(), nn.Linear(rank, 1))

    def forward(self, image: Tensor, text: Tensor, text_mask: Tensor) -> Tensor:
        # Only words are keys, so the score of a patch does not depend on the padding of the image.
        image = self.image(image)
        query = self.query(image).unsqueeze(1)  # one head: ONNX takes no fewer dimensions
        key, value = self.key_value(self.text(text)).unsqueeze(1).chunk(2, dim=-1)
        mask = text_mask[:, None, None]
        attended = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask).squeeze(1)
        return self.score(image + self.output(attended)).squeeze(-1)


FORMS: dict[str, type[Scorer]] = {"bag": BagScorer, "words": WordsScorer, "gated": GatedScorer, "block": BlockScorer}
"""The scorers, by the name of their form."""
