"""A bundle evaluated on a data set, beside the one it is compared with: what a CI decides by."""

import copy
import dataclasses

from kfp import dsl

from components.evaluate.component import evaluate
from components.validate_dataset.component import validate_dataset
from pipelines.surroundings import give_surroundings

PRESET: dict = {}
"""No overrides: every value of the section is that of the bundle."""

# A task is called after its component, and Kubeflow would call the second one evaluate-2.
evaluate_baseline = copy.copy(evaluate)
evaluate_baseline.component_spec = dataclasses.replace(evaluate.component_spec, name="evaluate-baseline")


@dsl.pipeline(name="model-evaluation", description="The COCO numbers of a bundle, and of a baseline, on a data set.")
def model_evaluation(
    bundle: str,
    data: str,
    store: str,
    baseline: str = "",
    run_name: str = "model-evaluation",
    runtime: str = "mindspore",
    evaluate_overrides: dict = PRESET,
    fingerprint: str = "",
    code_digest: str = "",
):
    """Evaluate a bundle, and a baseline where one is given, on the same images.

    Args:
        bundle: URI of the bundle.
        data: Store URI of the COCO data set: annotations/<split>.json and <split>/ for train and val.
        store: URI of the store for the checked data set and the results, such as minio://bucket/prefix.
        baseline: URI of the bundle it is compared with; empty for none.
        run_name: Name under which the results are stored: runs/<run_name>/evaluate and evaluate-baseline.
        runtime: What runs the networks: mindspore, onnx, int8 or mindir.
        evaluate_overrides: Values over the section `evaluate` of the bundles (split, iou_threshold ...), as JSON.
        fingerprint: Digest of what lies at `data`; with it, changed data is never taken from the cache.
        code_digest: Digest of the library; with it, results of other code are never taken from the cache.
    """
    validated = validate_dataset(data=data, store=store, fingerprint=fingerprint, code_digest=code_digest)
    give_surroundings(validated)
    common = {
        "dataset": validated.outputs["dataset"],
        "dataset_digest": validated.outputs["digest"],
        "store": store,
        "run_name": run_name,
        "runtime": runtime,
        "min_ap": 0.0,
        "evaluate_overrides": evaluate_overrides,
        "code_digest": code_digest,
    }
    give_surroundings(evaluate(bundle=bundle, place="evaluate", **common))
    with dsl.If(baseline != ""):
        give_surroundings(evaluate_baseline(bundle=baseline, place="evaluate-baseline", **common))
