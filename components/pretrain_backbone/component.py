"""The step pretrain_backbone as a Kubeflow component."""

from typing import NamedTuple

from kfp import dsl

from components.step import step


@step("pretrain_backbone")
def pretrain_backbone(
    settings: dict,
    dataset: str,
    backbone_curves: dsl.Output[dsl.HTML],
) -> NamedTuple("Outputs", [("backbone", str), ("record", str)]):
    """Pretrain the backbone as a classifier."""
    from kubeyolo.steps.component import pretrain_backbone as run

    return run(
        settings=settings,
        dataset=dataset,
        backbone_curves=backbone_curves,
    )
