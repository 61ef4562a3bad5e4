"""quantize as Kubeflow sees it."""

from typing import NamedTuple

from kfp import dsl

from components.image import image


@dsl.component(base_image=image("quantize"), packages_to_install=[], install_kfp_package=False)
def quantize(
    bundle: str,
    dataset: str,
    dataset_digest: str,
    store: str,
    run_name: str,
    max_drop: float,
    quantize_overrides: dict,
    evaluate_overrides: dict,
    code_digest: str,
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
) -> NamedTuple("Outputs", [("bundle", str), ("record", str)]):
    """Quantize the ONNX network to int8 with calibration images, evaluate it, and gate the loss of AP.

    Args:
        bundle: URI of the bundle with the ONNX network.
        dataset: URI of the stored data set.
        dataset_digest: Digest of its content.
        store: URI of the store that receives the bundle.
        run_name: Name of the run, under which it is stored.
        max_drop: The step fails when AP falls by more points (AP x 100) than this; 0 takes the preset's.
        quantize_overrides: Values over those of the preset's section `quantize`.
        evaluate_overrides: Values over those of the preset's section `evaluate`.
        code_digest: Digest of the library.
        metrics: COCO numbers of int8, the loss of AP, the share of quantized convolutions, and the sizes.
        report: Float against int8.

    Returns:
        bundle: URI of the bundle with the int8 network.
        record: URI of metrics.json.
    """
    from kubeyolo.steps.component import quantize as run

    return run(
        bundle=bundle,
        dataset=dataset,
        store=store,
        run_name=run_name,
        max_drop=max_drop,
        quantize_overrides=quantize_overrides,
        evaluate_overrides=evaluate_overrides,
        metrics=metrics,
        report=report,
    )
