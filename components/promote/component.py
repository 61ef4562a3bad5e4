"""promote as Kubeflow sees it."""

from typing import NamedTuple

from kfp import dsl

from components.image import image


@dsl.component(base_image=image("launch"), packages_to_install=[], install_kfp_package=False)
def promote(
    bundle: str,
    evaluation: str,
    in_use: str,
    latest: str,
    store: str,
    run_name: str,
    data: str,
    fingerprint: str,
    dataset_digest: str,
    evaluate_overrides: dict,
    max_regression: float,
    code_digest: str,
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
) -> NamedTuple("Outputs", [("bundle", str), ("record", str)]):
    """Publish a bundle that is not worse than the one in use, and let the pointer to the model in use name it.

    Args:
        bundle: URI of the bundle, exported and quantized.
        evaluation: URI of the record of the trained network's evaluation, for the model card.
        in_use: URI of the record of the evaluation of the model in use.
        latest: URI of the pointer to the model in use.
        store: URI of the store that receives the bundle.
        run_name: Name of the run, under which the record is stored.
        data: URI of the data set, as it was given.
        fingerprint: Fingerprint of the data set.
        dataset_digest: Digest of its content.
        evaluate_overrides: Values over those of the preset's section `evaluate`.
        max_regression: Most points of AP (AP x 100) that a network may lose against that of the model in use.
        code_digest: Digest of the library.
        metrics: AP of the new model and of the one in use, by network.
        report: The model card.

    Returns:
        bundle: URI of the published bundle.
        record: URI of metrics.json.
    """
    from kubeyolo.steps.component import promote as run

    return run(
        bundle=bundle,
        evaluation=evaluation,
        in_use=in_use,
        latest=latest,
        store=store,
        run_name=run_name,
        data=data,
        fingerprint=fingerprint,
        dataset_digest=dataset_digest,
        evaluate_overrides=evaluate_overrides,
        max_regression=max_regression,
        metrics=metrics,
        report=report,
    )
