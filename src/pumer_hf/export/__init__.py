"""Models as ONNX files. `onnx_file` writes, runs and quantises them; `checkpoint` does the work of `pumer-hf export`.
"""
