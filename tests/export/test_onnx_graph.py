from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from kubeyolo.errors import WorkError
from kubeyolo.evaluation.decode import decode
from kubeyolo.export.onnx import IR_VERSIONS
from kubeyolo.export.onnx_graph import append_decode, check_graph, fold_batch_norms, make_batch_symbolic


def info(name, shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def model_of(graph, opset=17):
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR_VERSIONS[opset])


def run(graph, **inputs):
    return run_model(model_of(graph), **inputs)


def run_model(model, **inputs):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def conv_norm_graph(shared_conv: bool = False):
    rng = np.random.default_rng(3)
    arrays = {
        "c.weight": rng.standard_normal((4, 2, 3, 3)),
        "c.bias": rng.standard_normal(4),
        "gamma": rng.uniform(0.5, 2, 4),
        "beta": rng.standard_normal(4),
        "mean": rng.standard_normal(4),
        "variance": rng.uniform(0.1, 3, 4),
    }
    nodes = [
        helper.make_node("Conv", ["x", "c.weight", "c.bias"], ["conv"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node(
            "BatchNormalization", ["conv", "gamma", "beta", "mean", "variance"], ["y"], "norm", epsilon=1e-3
        ),
    ]
    outputs = [info("y", [1, 4, 5, 6])]
    if shared_conv:
        outputs.append(info("conv", [1, 4, 5, 6]))
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in arrays.items()]
    return helper.make_graph(nodes, "g", [info("x", [1, 2, 5, 6])], outputs, tensors)


def test_folded_batch_norm_computes_the_same():
    graph = conv_norm_graph()
    x = np.random.default_rng(4).standard_normal((1, 2, 5, 6)).astype(np.float32)
    before = run(graph, x=x)[0]
    fold_batch_norms(graph)
    assert [node.op_type for node in graph.node] == ["Conv"]
    np.testing.assert_allclose(run(graph, x=x)[0], before, atol=1e-5)


def test_a_convolution_that_others_read_is_not_folded():
    graph = conv_norm_graph(shared_conv=True)
    fold_batch_norms(graph)
    assert len(graph.node) == 2


@pytest.mark.parametrize("opset", IR_VERSIONS)
@pytest.mark.parametrize(("kind", "scales"), [("yolov5", (2.0, 2.0)), ("darknet", (1.2, 1.05))])
def test_appended_decode_is_that_of_numpy(kind, scales, opset):
    anchors = (((10.0, 13.0), (16.0, 30.0)), ((30.0, 61.0), (62.0, 45.0)))
    shapes = [(2, 3, 4, 7), (2, 2, 2, 7)]
    nodes = [helper.make_node("Identity", [f"in_{n}"], [f"raw_{n}"]) for n in range(2)]
    graph = helper.make_graph(
        nodes,
        "g",
        [info(f"in_{n}", ["N", *shape]) for n, shape in enumerate(shapes)],
        [info(f"raw_{n}", ["N", *shape]) for n, shape in enumerate(shapes)],
    )
    model = model_of(graph, opset)
    append_decode(model, ["raw_0", "raw_1"], "predictions", anchors, (8, 16), kind, scales)
    onnx.checker.check_model(model, full_check=True)
    rng = np.random.default_rng(5)
    raws = [rng.standard_normal((3, *shape)).astype(np.float32) for shape in shapes]
    got = run_model(model, in_0=raws[0], in_1=raws[1])[2]
    assert got.shape == (3, 32, 7)
    np.testing.assert_allclose(got, decode(raws, anchors, (8, 16), kind, scales), rtol=1e-5, atol=1e-5)


def test_symbolic_batch_copies_the_first_dimension_of_reshapes():
    shape = numpy_helper.from_array(np.array([2, 6, 4], np.int64), "shape")
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        "g",
        [info("x", [2, 2, 3, 4])],
        [info("y", [2, 6, 4])],
        [shape],
    )
    make_batch_symbolic(graph, 2)
    assert run(graph, x=np.zeros((5, 2, 3, 4), np.float32))[0].shape == (5, 6, 4)


def test_invalid_graphs_are_refused():
    graph = helper.make_graph([helper.make_node("Relu", ["absent"], ["y"])], "g", [info("x", [1])], [info("y", [1])])
    with pytest.raises(WorkError, match="broken.onnx: not valid ONNX"):
        check_graph(onnx.helper.make_model(graph), "broken.onnx")
