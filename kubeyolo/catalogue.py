"""The steps of the pipelines, each described once.

Components, lists and tables of steps, the drawing of a run, its cards and the settings that ``configure`` hands to each
step are derived from these entries. Dependencies between steps are in the compiled pipelines, not here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

Kind = Literal["HTML", "Markdown", "Metrics", "ClassificationMetrics", "Dataset", "Model"]
"""Kind of an artifact, as Kubeflow names it."""

READING_KEYS = (
    "data.format",
    "data.split",
    "data.split_seed",
    "data.split_group",
    "data.slice_keys",
    "data.orientation",
    "data.levels",
    "data.findings",
    "data.strict",
)
"""Keys of the configuration that decide how a data set is read; they change nothing but the stored data set."""

_DATASET = "Reference of the stored data set: its URI and the digest of its content."
_RECORD = "Reference of metrics.json, the record of the step."


@dataclass(frozen=True)
class Artifact:
    """An artifact of a step in Kubeflow: its name, unique in a run, its kind, and a description."""

    name: str
    kind: Kind
    about: str


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Requests and limits of a step's pod, as quantities of Kubernetes; empty if there is none.

    Attributes:
        cpu: Processors that it requests; it may also use idle processors.
        memory: Memory that it may use. If it uses more, it is killed.
        memory_request: Memory that it requests, at most ``memory``.
        cpu_limit: Processors that it may use.
    """

    cpu: str = ""
    memory: str = ""
    memory_request: str = ""
    cpu_limit: str = ""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step of a pipeline.

    Attributes:
        name: Its name, also the name of its function in ``kubeyolo.steps.component``.
        title: What it does, in a line.
        image: Image that it runs in, without the prefix ``kubeyolo-``.
        resources: Requests and limits of its pod.
        reads: Sections of the configuration that it reads, or single keys of them (``train.seed``).
        inputs: Values from other steps, with their descriptions; ``settings`` come from ``configure``.
        outputs: Values that it passes to other steps, with their descriptions.
        artifacts: Its artifacts in Kubeflow.
        device_key: Key of the configuration that sets its device, for a step that may have a job: a launcher starts its
            processes, with Volcano in pods of their own.
        processes_key: Key that sets the number of its processes; empty if no key does.
        is_shared: Whether all devices of its job share the work, though no key sets the number of processes.
        cached: Whether Kubeflow may take its result from the cache.
        cards: Values on its card on the page of the run, each with a label and its dotted path in the metrics of the
            record.
        networks: Networks that it evaluates, each with a label and the path of its COCO metrics in the metrics of the
            record.
    """

    name: str
    title: str
    image: str
    resources: Resources
    reads: tuple[str, ...] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    artifacts: tuple[Artifact, ...] = ()
    device_key: str = ""
    processes_key: str = ""
    is_shared: bool = False
    cached: bool = True
    cards: Mapping[str, str] = field(default_factory=dict)
    networks: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_job(self) -> bool:
        """Whether it may have a job."""
        return bool(self.device_key)

    @property
    def is_alone(self) -> bool:
        """Whether one process does its work, however many pods and devices the cluster settings name."""
        return not self.processes_key and not self.is_shared


# Requests are what a small run takes, so that it starts on a small cluster; limits leave room for larger data and
# models. docs/cluster.md has the measured peaks. There is no limit of processors: steps use idle ones.
_SMALL = Resources(cpu="100m", memory="2Gi", memory_request="256Mi")
"""Resources of steps that read lists and copy files."""
_DATA = Resources(cpu="250m", memory="8Gi", memory_request="1Gi")
"""Resources of the step that reads all annotations and images."""
_NETWORK = Resources(cpu="250m", memory="16Gi", memory_request="1Gi")
"""Resources of steps that run a network. If such a step has a job, its pod only waits for the job."""

_PUBLISHED = (
    Artifact("published_detector", "Model", "The published bundle: URI, digest, version and AP."),
    Artifact("model_card", "Markdown", "What the model is, how good it is, and how to use it."),
    Artifact("summary", "Metrics", "The metrics of the whole run, for the comparison page."),
)

_ALL = (
    Step(
        name="configure",
        title="Resolves and checks every setting, reads the data, and shows the plan of the run with an estimate.",
        image="validate",
        resources=_SMALL,
        artifacts=(
            Artifact("plan", "Markdown", "Model, data and steps, an estimate, and every setting with its origin."),
        ),
        cached=False,
        cards={"changed settings": "changed", "estimate": "estimate"},
    ),
    Step(
        name="validate_dataset",
        title="Checks every annotation and every image, and stores the data set as shards, named after its content.",
        image="validate",
        resources=_DATA,
        reads=(*READING_KEYS, "evaluate.split", "evaluate.test_dev"),
        outputs={"dataset": _DATASET, "record": _RECORD},
        artifacts=(
            Artifact("validated_dataset", "Dataset", "The stored data set: URI, digest, classes and counts."),
            Artifact("data_report", "HTML", "Findings, counts, distributions and sample images."),
            Artifact(
                "data_findings", "Markdown", "Findings that were corrected, left out or need a check, with counts."
            ),
        ),
        cards={
            "training images": "train_images",
            "validation images": "val_images",
            "training boxes": "train_boxes",
            "validation boxes": "val_boxes",
            "classes": "classes",
            "findings": "findings_count",
        },
    ),
    Step(
        name="evaluate_current",
        title="Evaluates the current model on the new data, so that the new model can be compared with it.",
        image="evaluate-onnx",
        resources=_NETWORK,
        reads=("evaluate",),
        inputs={"dataset": _DATASET},
        outputs={"record": _RECORD},
        artifacts=(Artifact("current_model_report", "HTML", "COCO metrics and sample images of the current model."),),
        cards={"AP of the current model in ONNX": "onnx.AP", "in int8": "int8.AP"},
    ),
    Step(
        name="pretrain_backbone",
        title="Trains the backbone as a classifier, on image folders or on crops of the data set's objects.",
        image="train",
        resources=_NETWORK,
        reads=(
            "pretrain",
            "augment.hsv_h",
            "augment.hsv_s",
            "augment.hsv_v",
            "train.seed",
            "train.grad_clip",
        ),
        inputs={"dataset": _DATASET},
        outputs={
            "backbone": "Reference of the bundle of the backbone; empty if pretraining is off.",
            "record": _RECORD,
        },
        artifacts=(Artifact("backbone_curves", "HTML", "Loss and accuracy of the pretraining."),),
        device_key="pretrain.device_target",
        processes_key="pretrain.processes",
        cards={"steps": "steps", "top-1, held out": "accuracy", "top-5, held out": "top5"},
    ),
    Step(
        name="train",
        title="Trains the detector, in processes of this step or in a separate job, with checkpoints in the store.",
        image="train",
        resources=_NETWORK,
        reads=(
            "data.workers",
            "data.cache",
            "data.cache_limit_mb",
            "data.label_capacity",
            "augment",
            "train",
            "evaluate.image_size",
            "evaluate.conf_threshold",
            "evaluate.iou_threshold",
            "evaluate.max_det",
            "evaluate.multi_label",
            "evaluate.nms",
            "evaluate.engine",
        ),
        inputs={
            "dataset": _DATASET,
            "backbone": "Reference of the bundle of a pretrained backbone to start from; empty if there is none.",
        },
        outputs={"bundle": "Reference of the bundle with the trained weights.", "record": _RECORD},
        artifacts=(
            Artifact("trained_detector", "Model", "The trained bundle: URI, digest, classes and steps."),
            Artifact("training_curves", "HTML", "Curves of losses, learning rate and AP, batches, and the settings."),
        ),
        device_key="train.device_target",
        processes_key="train.processes",
        cards={
            "steps": "steps",
            "loss": "loss",
            "images per second": "images_per_second",
            "AP of the weights": "choice.ap",
        },
    ),
    Step(
        name="evaluate",
        title="Computes the 12 COCO metrics, also per class; fails if AP is below evaluate.min_ap.",
        image="evaluate",
        resources=_NETWORK,
        reads=("evaluate",),
        inputs={"bundle": "Reference of the bundle.", "dataset": _DATASET},
        outputs={"record": _RECORD},
        artifacts=(
            Artifact("evaluation_report", "HTML", "COCO metrics, metrics of each class, curves and sample images."),
            Artifact("confusion_matrix", "ClassificationMetrics", "Annotated classes against detected classes."),
        ),
        device_key="evaluate.device_target",
        is_shared=True,
        cards={"AP": "AP", "AP50": "AP50", "AP75": "AP75"},
        networks={"trained": ""},
    ),
    Step(
        name="export_model",
        title="Writes MINDIR and ONNX, and compares each with the trained network on real images.",
        image="export",
        resources=_NETWORK,
        reads=("export", "evaluate"),
        inputs={"bundle": "Reference of the trained bundle.", "dataset": _DATASET},
        outputs={"bundle": "Reference of the bundle with the exported files.", "record": _RECORD},
        artifacts=(
            Artifact("exported_detector", "Model", "The bundle with the exported files: URI, digest and AP in ONNX."),
            Artifact("export_report", "HTML", "Files and their largest differences from the trained network."),
        ),
        device_key="export.device_target",
        cards={"AP in ONNX": "onnx.AP", "largest difference": "largest_difference"},
        networks={"ONNX": "onnx"},
    ),
    Step(
        name="quantize",
        title="Quantizes the network to int8 ONNX, with calibration images or a training; fails if AP falls too much.",
        image="quantize",
        resources=_NETWORK,
        reads=("quantize", "evaluate", "train.seed"),
        inputs={"bundle": "Reference of the exported bundle.", "dataset": _DATASET},
        outputs={
            "bundle": "Reference of the bundle with the int8 network, or without it if it was left out.",
            "record": _RECORD,
        },
        artifacts=(
            Artifact("quantized_detector", "Model", "The bundle with the int8 network: URI, digest, AP and drop."),
            Artifact("quantization_report", "HTML", "COCO metrics of float and int8, and the size of both."),
        ),
        device_key="quantize.device_target",
        processes_key="quantize.processes",
        cards={
            "AP in int8": "int8.AP",
            "loss of AP, points": "drop",
            "size, int8 to float": "size_ratio",
            "speed, int8 to float": "speed.ratio",
        },
        networks={"int8": "int8"},
    ),
    Step(
        name="publish",
        title="Publishes the bundle under its version, with a model card.",
        image="launch",
        resources=_SMALL,
        inputs={
            "bundle": "Reference of the bundle to publish.",
            "evaluation": "Reference of the record of its evaluation, which must have passed its gate.",
            "training": "Reference of the record of its training; empty if unknown.",
        },
        outputs={"bundle": "Reference of the published bundle.", "record": _RECORD},
        artifacts=_PUBLISHED,
        cards={"version": "version"},
    ),
    Step(
        name="promote",
        title="Publishes a bundle that is not worse than the current model, and makes it the current model.",
        image="launch",
        resources=_SMALL,
        reads=("evaluate", "retrain.max_regression"),
        inputs={
            "bundle": "Reference of the bundle to publish.",
            "evaluation": "Reference of the record of its evaluation.",
            "training": "Reference of the record of its training.",
            "current": "Reference of the record of evaluate_current.",
            "dataset": _DATASET,
        },
        outputs={"bundle": "Reference of the published bundle.", "record": _RECORD},
        artifacts=_PUBLISHED,
        cached=False,
        cards={"version": "version"},
    ),
)

STEPS: Mapping[str, Step] = MappingProxyType({step.name: step for step in _ALL})
"""Every step by name, in the order in which pipelines run them."""

IMAGES = tuple(sorted({step.image for step in _ALL}))
"""Names of the images of the steps, without the prefix ``kubeyolo-``."""


DETECTOR_TRAINING, DETECTOR_RETRAINING = "detector-training", "detector-retraining"
MODEL_EVALUATION = "model-evaluation"

PIPELINES: Mapping[str, str] = MappingProxyType(
    {
        DETECTOR_TRAINING: "A data set goes in; a checked, evaluated, exported and quantized detector comes out.",
        DETECTOR_RETRAINING: "If the data set has changed, a detector is trained on it; it becomes the current model "
        "unless it is worse than the previous model.",
        MODEL_EVALUATION: "The COCO metrics of a bundle, and of a baseline, on a data set.",
    }
)
"""Every pipeline by name: what goes in and what comes out, in a line."""

FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "data": "URI of the data set, in COCO or in the layout of an annotation tool; see docs/data.md.",
        "pointer": 'URI of a document {"data": URI} that names the data set to train on.',
        "store": "URI of the store for data sets, checkpoints and models, such as minio://bucket/prefix; if empty, "
        "KUBEYOLO_STORE in the ConfigMap kubeyolo-store is used.",
        "model": "Name of the detector.",
        "launcher": "Where steps with a job run: local, in the pod of the step; volcano, in the pods of a Volcano job.",
        "cluster": "Preset of the cluster for the launcher volcano, such as cpu, or its settings as JSON; if empty, "
        "the defaults are used.",
        "version": "Version to publish under; if empty, it is derived from the content.",
        "bundle": "URI of the bundle to evaluate, or of a pointer to it.",
        "baseline": "URI of the bundle to compare with, or of a pointer to it; empty if there is none.",
        "runtime": "What runs the networks: mindspore, onnx, int8, mindir, openvino or openvino-int8.",
        "settings": "All other settings, nested as in a configuration file, as JSON or YAML text; such as "
        "{train: {seed: 1}, pretrain: {enabled: false}}.",
    }
)
"""Descriptions of the fields of the forms; fields that are settings are described by the configuration's schema."""


def steps_of(names: Iterable[str]) -> tuple[Step, ...]:
    """Return the steps with these names, in the order of the catalogue; names of tasks may have dashes."""
    step_names = {name.replace("-", "_") for name in names}
    return tuple(step for step in STEPS.values() if step.name in step_names)
