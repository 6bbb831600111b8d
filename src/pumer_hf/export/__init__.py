"""Models as ONNX files: `onnx_file` writes, runs and quantises them, `checkpoint` does what `pumer-hf export` does."""
