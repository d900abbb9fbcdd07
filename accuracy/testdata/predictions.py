"""Writes the prediction files in predictions/, made by the libraries that people make theirs with (numpy 2.4.6).

All but the classes hold the numbers i/4 - 1 for i in 0..11, as 4 images of 3 logits.
"""
import json
import os

import numpy as np

here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "predictions")
x = (np.arange(12, dtype=np.float32) / 4 - 1).reshape(4, 3)


def path(name):
    return os.path.join(here, name)


for dtype in ["<f2", "<f4", ">f4", "<f8"]:
    np.save(path(f"c_{dtype.replace('<', 'le_').replace('>', 'be_')}.npy"), x.astype(dtype))
np.save(path("fortran.npy"), np.asfortranarray(x))
np.save(path("squeezed.npy"), x.reshape(4, 3, 1, 1))
with open(path("version2.npy"), "wb") as f:
    np.lib.format.write_array(f, x, version=(2, 0))
np.save(path("classes_i8.npy"), np.array([2, 0, 1, 2], dtype=np.int64))
np.save(path("uint8.npy"), (x * 4 + 4).astype(np.uint8))  # 0..11
np.savetxt(path("savetxt.csv"), x)
np.savetxt(path("comma.csv"), x, delimiter=",", header="a,b,c", comments="")
with open(path("onnxruntime.json"), "w") as f:  # session.run's outputs by name
    json.dump({"logits": x.tolist(), "features": [[0.5]] * 4}, f)
