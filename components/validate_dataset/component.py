"""validate_dataset as Kubeflow sees it."""

from typing import NamedTuple

from kfp import dsl

from components.image import image


@dsl.component(base_image=image("validate"), packages_to_install=[], install_kfp_package=False)
def validate_dataset(
    data: str,
    store: str,
    fingerprint: str,
    code_digest: str,
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
) -> NamedTuple("Outputs", [("dataset", str), ("digest", str), ("record", str)]):
    """Check a COCO data set and store it as shards with an index and a manifest.

    Args:
        data: Folder or store URI with annotations/<split>.json and <split>/ for train and val.
        store: URI of the store that receives the data set.
        fingerprint: Digest of what lies at `data`, so that changed data is validated again.
        code_digest: Digest of the library, so that a result of other code is not taken from the cache.
        metrics: Counts of images, boxes and classes.
        report: Histograms and sample images.

    Returns:
        dataset: URI of the stored data set.
        digest: Digest of its content.
        record: URI of metrics.json.
    """
    from kubeyolo.steps.component import validate_dataset as run

    return run(data=data, store=store, metrics=metrics, report=report)
