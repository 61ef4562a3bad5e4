"""publish as Kubeflow sees it."""

from typing import NamedTuple

from kfp import dsl

from components.image import image


@dsl.component(base_image=image("launch"), packages_to_install=[], install_kfp_package=False)
def publish(
    bundle: str,
    evaluation: str,
    store: str,
    version: str,
    code_digest: str,
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
) -> NamedTuple("Outputs", [("bundle", str), ("record", str)]):
    """Publish a bundle under models/<model>/<version>/ with a model card.

    Args:
        bundle: URI of the bundle to publish.
        evaluation: URI of the record of the evaluation, whose numbers go into the model card.
        store: URI of the store that receives it.
        version: Version to publish under; empty makes one from the content.
        code_digest: Digest of the library.
        metrics: Size and AP of what was published.
        report: The model card.

    Returns:
        bundle: URI of the published bundle.
        record: URI of metrics.json.
    """
    from kubeyolo.steps.component import publish as run

    return run(bundle=bundle, evaluation=evaluation, store=store, version=version, metrics=metrics, report=report)
