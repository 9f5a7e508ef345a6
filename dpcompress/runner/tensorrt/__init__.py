"""TensorRT, from 8.5 to 11 (extra `tensorrt`).

libraries: what must be there; options: what may be chosen; build: ONNX → engine;
precision: what was built; timing_cache: tactics timed before; cuda, session: running;
engine: all of it behind `dpcompress.runner.Engine`. Valid on Python 3.8.
"""
