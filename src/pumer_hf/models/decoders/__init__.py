"""Decoder models of transformers with fewer image tokens before the decoder.

`prompt.py` says what is left of a prompt, `images.py` reduces the image tokens, and `calls.py` does both around the
model's own `forward` and `generate`. `modeling.py` makes our classes of it, and `attached.py` does it for a loaded
model. A family is a small file and a line in `rows.py`.
"""
