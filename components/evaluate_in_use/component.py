"""evaluate_in_use as Kubeflow sees it."""

from typing import NamedTuple

from kfp import dsl

from components.image import image


@dsl.component(base_image=image("evaluate"), packages_to_install=[], install_kfp_package=False)
def evaluate_in_use(
    bundle: str,
    dataset: str,
    dataset_digest: str,
    store: str,
    model: str,
    run_name: str,
    evaluate_overrides: dict,
    code_digest: str,
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
) -> NamedTuple("Outputs", [("record", str)]):
    """Evaluate the ONNX and the int8 network of the model in use as those of the new model are evaluated.

    Args:
        bundle: URI of the bundle in use; empty for none.
        dataset: URI of the stored data set.
        dataset_digest: Digest of its content.
        store: URI of the store that receives the results.
        model: Name of the new model, whose preset counts.
        run_name: Name of the run, under which they are stored.
        evaluate_overrides: Values over those of the preset's section `evaluate`.
        code_digest: Digest of the library.
        metrics: The 12 COCO numbers of each network.
        report: Numbers, classes, curves and sample detections.

    Returns:
        record: URI of metrics.json.
    """
    from kubeyolo.steps.component import evaluate_in_use as run

    return run(
        bundle=bundle,
        dataset=dataset,
        store=store,
        model=model,
        run_name=run_name,
        evaluate_overrides=evaluate_overrides,
        metrics=metrics,
        report=report,
    )
