"""TensorRT, from 8.5 to 11 (extra `tensorrt`).

libraries.py imports what must be installed; options.py holds the user's choices;
build.py builds an engine from ONNX, with the timings that timing_cache.py kept;
precision.py checks what was built; session.py runs it, by means of cuda.py; engine.py
puts all of it behind `dpcompress.runner.Engine`.
"""
