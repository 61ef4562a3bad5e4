"""export_model as Kubeflow sees it."""

from typing import NamedTuple

from kfp import dsl

from components.image import image


@dsl.component(base_image=image("export"), packages_to_install=[], install_kfp_package=False)
def export_model(
    bundle: str,
    dataset: str,
    dataset_digest: str,
    store: str,
    run_name: str,
    export_overrides: dict,
    evaluate_overrides: dict,
    code_digest: str,
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
) -> NamedTuple("Outputs", [("bundle", str), ("record", str)]):
    """Export the trained network to MINDIR and ONNX, compare it with the trained one, and evaluate the ONNX network.

    Args:
        bundle: URI of the bundle with the trained weights.
        dataset: URI of the stored data set.
        dataset_digest: Digest of its content.
        store: URI of the store that receives the bundle.
        run_name: Name of the run, under which it is stored.
        export_overrides: Values over those of the preset's section `export`.
        evaluate_overrides: Values over those of the preset's section `evaluate`.
        code_digest: Digest of the library.
        metrics: Largest differences to the trained network, and the COCO numbers of the ONNX network.
        report: Files, differences and numbers.

    Returns:
        bundle: URI of the bundle with the exported files.
        record: URI of metrics.json.
    """
    from kubeyolo.steps.component import export_model as run

    return run(
        bundle=bundle,
        dataset=dataset,
        store=store,
        run_name=run_name,
        export_overrides=export_overrides,
        evaluate_overrides=evaluate_overrides,
        metrics=metrics,
        report=report,
    )
