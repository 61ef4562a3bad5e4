"""Words of other programs for detectors, and the keys and options of kubeyolo that they correspond to.

The words are those of Ultralytics YOLO, YOLOv5, Scaled-YOLOv4, darknet, mindyolo, mmyolo, detectron2 and keras-yolo.
A word is listed if its value means the same here; a word without a counterpart is listed with advice on what to do
instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

_KEYS_AND_WORDS = (
    (
        ("train.per_batch_size", "evaluate.per_batch_size", "pretrain.per_batch_size", "export.batch_size"),
        "batch batch_size batchsize total_batch_size ims_per_batch samples_per_gpu train_batch_size "
        "train_batch_size_per_gpu per_batch_size",
    ),
    (("evaluate.per_batch_size",), "val_batch_size val_batch_size_per_gpu test_batch_size"),
    (
        ("train.max_epoch", "pretrain.max_epoch"),
        "epoch epochs num_epoch num_epochs n_epochs nb_epochs max_epochs total_epochs",
    ),
    (
        ("train.image_size", "evaluate.image_size", "pretrain.image_size"),
        "img imgsz img_size imgsize input_size image_sz input_shape img_scale imsize width height training_shape",
    ),
    (("evaluate.image_size",), "testing_shape"),
    (("train.multi_scale",), "multiscale multi_scale_training"),
    (("evaluate.split",), "task"),
    (("train.lr", "pretrain.lr"), "lr0 lr_init learning_rate base_lr init_lr initial_lr"),
    (("train.lr_final",), "lrf lr_factor"),
    (("train.lr_scheduler",), "cos_lr scheduler lr_schedule"),
    (("train.lr_gamma",), "gamma"),
    (("train.weight_decay", "pretrain.weight_decay"), "decay wd"),
    (("train.warmup_steps",), "burn_in warmup_iters min_warmup_step warmup_iter"),
    (("train.warmup_epochs",), "warmup_epoch lr_warmup_epochs"),
    (("train.optimizer",), "optim adam"),
    (("train.grad_scaler",), "ms_loss_scaler loss_scaler"),
    (("train.grad_scaler_value",), "ms_loss_scaler_value loss_scaler_value"),
    (("train.label_smooth_factor",), "label_smoothing"),
    (("train.box_gain",), "box loss_box_weight"),
    (("train.cls_gain",), "cls loss_cls_weight"),
    (("train.obj_gain",), "obj loss_obj_weight"),
    (("train.keep_checkpoints",), "keep_checkpoint_max max_keep_ckpts"),
    (("train.val_interval",), "eval_interval validation_interval"),
    (("train.patience",), "early_stop_patience"),
    (("train.processes",), "gpus num_gpus nproc_per_node world_size group_size"),
    (("train.device_target", "evaluate.device_target", "pretrain.device_target", "export.device_target"), "device"),
    (("train.bind_core",), "bind_cpu"),
    (("train.seed",), "random_seed global_seed manual_seed"),
    (("augment.close_mosaic",), "close_mosaic_epochs"),
    (("augment.mosaic",), "mosaic_prob"),
    (("augment.mixup",), "mixup_prob"),
    (("augment.degrees",), "max_rotate_degree"),
    (("augment.shear",), "max_shear_degree"),
    (("augment.translate",), "max_translate_ratio"),
    (("augment.fliplr",), "flip_lr horizontal_flip"),
    (("augment.flipud",), "flip_ud vertical_flip"),
    (("data.workers",), "worker num_workers nw n_workers num_parallel_workers train_num_workers workers_per_gpu"),
    (("data.cache",), "cache_images"),
    (
        ("predict.conf_threshold", "evaluate.conf_threshold"),
        "conf conf_thres conf_thresh conf_thr confidence confidence_threshold score_thr score_threshold score_thresh "
        "thresh ignore_threshold",
    ),
    (
        ("predict.iou_threshold", "evaluate.iou_threshold"),
        "iou iou_thres iou_thresh iou_thr nms_thres nms_thresh nms_iou nms_threshold nms_iou_threshold",
    ),
    (("predict.max_det", "evaluate.max_det"), "max_detections max_per_img max_per_image detections_per_image"),
    (("export.formats",), "include"),
)

KEYS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {word: keys for keys, words in _KEYS_AND_WORDS for word in words.split()}
)
"""Dotted keys by word; the key of the section train comes first."""

_ABSENT_AND_WORDS = (
    ("train.patience sets after how many epochs without a higher AP a training stops", "early_stop early_stopping"),
    (
        "set train.precision to float16; on Ascend it is the default: leave it out",
        "amp amp_level ms_amp_level fp16 mixed_precision half",
    ),
    ("the classes are those of the data set: leave it out", "nc num_classes names class_names classes_path"),
    ("run the same command again to continue an interrupted training: leave it out", "resume"),
    (
        "the length of a training is set in epochs, by train.max_epoch",
        "max_iter max_iters max_batches total_steps num_steps",
    ),
    ("a training has several processes if train.processes is larger than 1: leave it out", "is_distributed"),
    ("processes get their ranks by themselves: leave it out", "rank local_rank device_id"),
    ("the first process alone writes checkpoints: leave it out", "is_save_on_master"),
    ("checkpoints and the bundle are always written: leave it out", "nosave"),
    ("train.val_interval = 0 switches validation off: leave it out", "notest noval"),
    ("hyperparameters are not searched: leave it out", "evolve"),
    ("classes are not merged; change them in the annotations: leave it out", "single_cls single_class"),
    ("give the bundle of a backbone to 'kubeyolo train' with --backbone: leave it out", "pretrained_backbone"),
    (
        "compute anchors with 'kubeyolo anchors', and set them in train.anchors: leave it out",
        "autoanchor noautoanchor auto_anchor recompute_anchors",
    ),
    (
        "there is no such augmentation: leave it out",
        "paste_in erasing auto_augment cutmix bgr",
    ),
)

ABSENT: Mapping[str, str] = MappingProxyType(
    {word: text for text, words in _ABSENT_AND_WORDS for word in words.split()}
)
"""What to do instead, by words for features that do not exist here."""

_ABSENT_IN_EVALUATION_AND_WORDS = (
    ("test-time augmentation is the option --tta", "augment"),
    ("overlapping boxes are dropped, not merged: leave it out", "merge"),
    ("the report always has the metrics of each class: leave it out", "verbose"),
    ("evaluation uses float32 only: leave it out", "half fp16"),
    ("the classes are those of the bundle: leave it out", "single_cls nc"),
    ("detections.json is always written, in the format of COCO results: leave it out", "save_json save_txt save_conf"),
)

ABSENT_IN_EVALUATION: Mapping[str, str] = MappingProxyType(
    {word: text for text, words in _ABSENT_IN_EVALUATION_AND_WORDS for word in words.split()}
)
"""What to do instead in an evaluation, by words for features that do not exist here."""

_MEANINGS_AND_WORDS = (
    (
        "bundle",
        "weights weight ckpt checkpoint ckpt_path ckpt_file weights_path model_path model pretrained load_from "
        "resume_yolov3 resume_yolov4 resume_yolov5",
    ),
    ("images", "source input image image_path img_path images"),
    ("data", "data dataset data_dir data_path data_root dataset_path data_url"),
    ("model", "cfg arch model_name yolov5_version"),
    ("config", "hyp hyps config_file"),
    ("output", "project save_dir out_dir output_dir outdir work_dir save_path out logdir log_dir"),
    ("name", "name exp exp_name"),
)

MEANINGS: Mapping[str, str] = MappingProxyType(
    {word: meaning for meaning, words in _MEANINGS_AND_WORDS for word in words.split()}
)
"""The kind of value of another program's option, by word: bundle, images, data, model, config, output or name."""

_OF_TRAINING = ("train", "data", "augment")


def plain_word(name: str) -> str:
    """Return the last word of a key or an option in the form of the tables: ``--Conf-Thres`` is ``conf_thres``."""
    return name.strip("-").replace("-", "_").lower().rpartition(".")[2]


def meant_keys(name: str, sections: Iterable[str]) -> tuple[str, ...]:
    """Return the keys that correspond to the key of another program; an empty tuple if that key is not known.

    Args:
        name: The key, with or without a section.
        sections: Sections of the configuration.
    """
    keys = KEYS.get(plain_word(name), ())
    section = name.partition(".")[0] if "." in name else ""
    if section in sections and section not in _OF_TRAINING:
        return tuple(key for key in keys if key.startswith(f"{section}."))
    return tuple(key for key in keys if key.split(".")[0] in _OF_TRAINING) or keys
