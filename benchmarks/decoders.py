"""Measure how accurate decoder models stay with fewer image tokens, with methods that need no training.

    python benchmarks/decoders.py plain --teachers outputs/llava-0/teacher outputs/llava-1/teacher \\
        -o benchmarks/results/decoders/plain.json
    python benchmarks/decoders.py plain --join seed0.json seed1.json -o benchmarks/results/decoders/plain.json
    python benchmarks/decoders.py plain --second-question --teachers outputs/llava-0/teacher \\
        --scorers outputs/llava-0/scorer -o benchmarks/results/decoders/plain_second.json

The first command measures each method at 1/2, 1/3, 2/9 and 1/9 of the image tokens, with original and with contiguous
positions. The second one joins the results of models that were measured apart. The third one asks a question of the
image tokens that were kept for another one about the same image. The models are the teachers of `recipes/llava`.
"""

from laboratory.decoder_command import decoders_command

if __name__ == "__main__":
    decoders_command(__doc__ or "")
