"""Models as ONNX files: `onnx_file` writes, opens and quantises them, `run` is the command `pumer-hf export`."""
