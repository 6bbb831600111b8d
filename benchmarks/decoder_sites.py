"""Compare reductions before a decoder, inside it, or both, at the same measured speed, before and after training.

    python benchmarks/decoder_sites.py plain --teachers outputs/llava-0/teacher outputs/llava-1/teacher \\
        --scorers outputs/llava-0/scorer outputs/llava-1/scorer --work outputs/sites \\
        -o benchmarks/results/decoders/sites/plain.json

First each row is measured at several numbers of tokens, in turn with the unreduced model, to find how much it has to
cut for each speed in `--targets`. No other program should run then. Then the answers of each model in each row are
generated. At last a copy of each model is trained behind each row, with the model as its teacher.

Each result is a file in `--work`. The same command goes on where it was ended, and several can share the work. The
models are the teachers of `recipes/llava`.
"""

from laboratory.site_command import sites_command

if __name__ == "__main__":
    sites_command(__doc__ or "")
