"""pretrain_backbone as Kubeflow sees it."""

from typing import NamedTuple

from kfp import dsl

from components.image import image


@dsl.component(base_image=image("train"), packages_to_install=[], install_kfp_package=False)
def pretrain_backbone(
    dataset: str,
    dataset_digest: str,
    store: str,
    model: str,
    classification: str,
    classification_fingerprint: str,
    pretrain_overrides: dict,
    augment_overrides: dict,
    train_overrides: dict,
    seed: int,
    code_digest: str,
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
) -> NamedTuple("Outputs", [("backbone", str), ("record", str)]):
    """Pretrain the backbone as a classifier, on a folder of classes or on crops of the data set's objects.

    Args:
        dataset: URI of the stored data set.
        dataset_digest: Digest of its content.
        store: URI of the store that receives the backbone.
        model: Name of the detector whose backbone it is.
        classification: Folder or store URI with <split>/<class>/ images; empty takes crops of the data set's objects.
        classification_fingerprint: Digest of what lies there.
        pretrain_overrides: Values over those of the preset's section `pretrain`.
        augment_overrides: Values over those of the preset's section `augment`; pretraining follows hsv_h, hsv_s, hsv_v.
        train_overrides: Values over those of the preset's section `train`; pretraining follows seed, grad_clip and
            device_target.
        seed: Seed of the weights and of the order of the images; 0 takes the preset's.
        code_digest: Digest of the library.
        metrics: Accuracy and loss.
        report: Curves and settings.

    Returns:
        backbone: URI of the bundle of the backbone; empty when pretraining is off.
        record: URI of metrics.json.
    """
    from kubeyolo.steps.component import pretrain_backbone as run

    return run(
        dataset=dataset,
        dataset_digest=dataset_digest,
        store=store,
        model=model,
        classification=classification,
        classification_fingerprint=classification_fingerprint,
        pretrain_overrides=pretrain_overrides,
        augment_overrides=augment_overrides,
        train_overrides=train_overrides,
        seed=seed,
        code_digest=code_digest,
        metrics=metrics,
        report=report,
    )
