"""evaluate as Kubeflow sees it."""

from typing import NamedTuple

from kfp import dsl

from components.image import image


@dsl.component(base_image=image("evaluate"), packages_to_install=[], install_kfp_package=False)
def evaluate(
    bundle: str,
    dataset: str,
    dataset_digest: str,
    store: str,
    run_name: str,
    min_ap: float,
    evaluate_overrides: dict,
    code_digest: str,
    runtime: str,
    place: str,
    metrics: dsl.Output[dsl.Metrics],
    confusion: dsl.Output[dsl.ClassificationMetrics],
    report: dsl.Output[dsl.HTML],
) -> NamedTuple("Outputs", [("record", str)]):
    """Evaluate a network of a bundle on the validation split: the 12 COCO numbers, and a gate on AP.

    Args:
        bundle: URI of the bundle.
        dataset: URI of the stored data set.
        dataset_digest: Digest of its content.
        store: URI of the store that receives the results.
        run_name: Name of the run, under which they are stored.
        min_ap: The step fails when AP (0 to 1) is below this; 0 takes the preset's.
        evaluate_overrides: Values over those of the preset's section `evaluate`.
        code_digest: Digest of the library.
        runtime: What runs the network: mindspore, onnx, int8 or mindir.
        place: Name of the folder of the run that receives the results.
        metrics: The 12 COCO numbers.
        confusion: Which classes are taken for which, at a score of .25 and an IoU of .5.
        report: Numbers, classes, curves and sample detections.

    Returns:
        record: URI of metrics.json.
    """
    from kubeyolo.steps.component import evaluate as run

    return run(
        bundle=bundle,
        dataset=dataset,
        store=store,
        run_name=run_name,
        runtime=runtime,
        place=place,
        min_ap=min_ap,
        evaluate_overrides=evaluate_overrides,
        metrics=metrics,
        confusion=confusion,
        report=report,
    )
