"""The step quantize as a Kubeflow component."""

from typing import NamedTuple

from kfp import dsl

from components.step import step


@step("quantize")
def quantize(
    settings: dict,
    bundle: str,
    dataset: str,
    quantized_detector: dsl.Output[dsl.Model],
    quantization_report: dsl.Output[dsl.HTML],
) -> NamedTuple("Outputs", [("bundle", str), ("record", str)]):
    """Write the network as int8 ONNX."""
    from kubeyolo.steps.component import quantize as run

    return run(
        settings=settings,
        bundle=bundle,
        dataset=dataset,
        quantized_detector=quantized_detector,
        quantization_report=quantization_report,
    )
