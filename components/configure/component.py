"""The step configure, the first step of every pipeline, as a Kubeflow component; its inputs are the form's fields."""

from typing import NamedTuple

from kfp import dsl

from components.step import step


@step("configure")
def configure_training(
    plan: dsl.Output[dsl.Markdown],
    data: str,
    store: str = "",
    model: str = "yolov5n-r7",
    weights: str = "",
    max_epoch: str = "",
    image_size: str = "",
    per_batch_size: str = "",
    lr: str = "",
    launcher: str = "local",
    cluster: str = "",
    min_ap: str = "",
    max_drop: str = "",
    version: str = "",
    settings: str = "",
) -> NamedTuple(
    "Outputs",
    [
        ("run", dict),
        ("validate_dataset", dict),
        ("pretrain_backbone", dict),
        ("train", dict),
        ("evaluate", dict),
        ("export_model", dict),
        ("quantize", dict),
        ("publish", dict),
        ("record", str),
    ],
):
    """Resolve and check every setting of a training."""
    from kubeyolo.steps.component import configure_training as run

    return run(
        plan=plan,
        data=data,
        store=store,
        model=model,
        weights=weights,
        max_epoch=max_epoch,
        image_size=image_size,
        per_batch_size=per_batch_size,
        lr=lr,
        launcher=launcher,
        cluster=cluster,
        min_ap=min_ap,
        max_drop=max_drop,
        version=version,
        settings=settings,
    )


@step("configure")
def configure_retraining(
    plan: dsl.Output[dsl.Markdown],
    pointer: str,
    store: str = "",
    model: str = "yolov5n-r7",
    start_from: str = "",
    weights: str = "",
    max_epoch: str = "",
    image_size: str = "",
    per_batch_size: str = "",
    lr: str = "",
    launcher: str = "local",
    cluster: str = "",
    min_ap: str = "",
    max_drop: str = "",
    max_regression: str = "",
    settings: str = "",
) -> NamedTuple(
    "Outputs",
    [
        ("run", dict),
        ("validate_dataset", dict),
        ("evaluate_current", dict),
        ("pretrain_backbone", dict),
        ("train", dict),
        ("evaluate", dict),
        ("export_model", dict),
        ("quantize", dict),
        ("promote", dict),
        ("data", str),
        ("record", str),
    ],
):
    """Resolve and check every setting of a retraining, and decide whether it must train."""
    from kubeyolo.steps.component import configure_retraining as run

    return run(
        plan=plan,
        pointer=pointer,
        store=store,
        model=model,
        start_from=start_from,
        weights=weights,
        max_epoch=max_epoch,
        image_size=image_size,
        per_batch_size=per_batch_size,
        lr=lr,
        launcher=launcher,
        cluster=cluster,
        min_ap=min_ap,
        max_drop=max_drop,
        max_regression=max_regression,
        settings=settings,
    )


@step("configure")
def configure_evaluation(
    plan: dsl.Output[dsl.Markdown],
    bundle: str,
    data: str,
    baseline: str = "",
    store: str = "",
    runtime: str = "mindspore",
    launcher: str = "local",
    cluster: str = "",
    settings: str = "",
) -> NamedTuple(
    "Outputs",
    [
        ("run", dict),
        ("validate_dataset", dict),
        ("evaluate", dict),
        ("evaluate_baseline", dict),
        ("bundle", str),
        ("baseline", str),
        ("record", str),
    ],
):
    """Resolve and check every setting of an evaluation."""
    from kubeyolo.steps.component import configure_evaluation as run

    return run(
        plan=plan,
        bundle=bundle,
        data=data,
        baseline=baseline,
        store=store,
        runtime=runtime,
        launcher=launcher,
        cluster=cluster,
        settings=settings,
    )
