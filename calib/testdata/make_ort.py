#!/usr/bin/env python3
"""Writes the ort_*.json files of this folder with ONNX Runtime's own code (pip install onnxruntime==1.32.0 onnx flatbuffers)."""
import os
import tempfile

import numpy as np
from onnxruntime.quantization import write_calibration_table
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData, save_tensors_data

here = os.path.dirname(os.path.abspath(__file__))
f = np.float32
ranges = TensorsData(CalibrationMethod.Entropy, {
    "data": TensorData(lowest=f(-2.5), highest=f(2.64)),
    "a b: c": TensorData(lowest=np.array(-1.5, dtype=f), highest=np.array(1.25, dtype=f)),
    "d": (f(-1), f(2), np.array([1, 2, 3]), np.array([-1, 0, 1, 2], dtype=f)),
})
save_tensors_data(ranges, os.path.join(here, "ort_save_tensors_data.json"))
for data, name in (ranges, "tensorsdata"), (ranges.data, "data"):
    with tempfile.TemporaryDirectory() as tmp:
        write_calibration_table(data, tmp)
        os.replace(os.path.join(tmp, "calibration.json"), os.path.join(here, f"ort_calibration_{name}.json"))
