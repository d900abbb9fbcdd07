#!/usr/bin/env python3
"""Checks models with onnx.checker (full check, shape inference included) and opens each in ONNX Runtime.

usage: check_models.py MODEL.onnx...        (needs the packages onnx and onnxruntime)
Prints one line a model; exits 1 when one fails.
"""
import sys

import onnx
import onnxruntime

failed = 0
for path in sys.argv[1:]:
    try:
        onnx.checker.check_model(path, full_check=True)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        ports = [f"{p.name} {p.type} {p.shape}" for p in session.get_inputs() + session.get_outputs()]
        print(f"ok    {path}: {'; '.join(ports) if len(ports) < 5 else str(len(ports)) + ' ports'}")
    except Exception as error:  # whatever the checker or the engine raises is the finding
        failed += 1
        print(f"FAIL  {path}: {str(error).splitlines()[0]}")
sys.exit(failed > 0)
