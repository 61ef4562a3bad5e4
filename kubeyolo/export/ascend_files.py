"""What a bundle has for inference on Ascend cards: the commands that convert its files, and the AIPP configuration.

The forms are those of CANN 8.0 to 9.1 (``atc``, AIPP) and of MindSpore Lite 2.10 (``converter_lite``). kubeyolo runs
neither of them.
"""

from __future__ import annotations

from collections.abc import Collection

from kubeyolo.bundle import AIPP, AIR, MINDIR, ONNX, BundleManifest
from kubeyolo.evaluation.runtimes import INPUT_NAME

SOC = "Ascend310P3"
"""The chip in the commands, which the user replaces."""

OPSETS = {(11, 15): "8.0 and later", (16, 18): "9.0 and later"}
"""Versions of CANN whose ``atc`` accepts a range of opsets."""


def aipp_config(manifest: BundleManifest) -> str:
    """Return the static AIPP configuration: uint8 images (N, H, W, 3) in place of float32 images (N, 3, H, W).

    AIPP computes (pixel − mean − min) · var_reci for each channel, here pixel / divisor.
    """
    height, width = manifest.image_size
    factor = f"{1 / manifest.preprocessing.divisor:.12f}"
    lines = [
        "aipp_op {",
        "    aipp_mode: static",
        "    related_input_rank: 0",
        "    # RGB, letterboxed by the host. For BGR images, as OpenCV reads them, set rbuv_swap_switch to true.",
        "    input_format: RGB888_U8",
        "    rbuv_swap_switch: false",
        "    csc_switch: false",
        "    crop: false",
        f"    src_image_size_w: {width}",
        f"    src_image_size_h: {height}",
    ]
    for channel in range(3):
        lines += [f"    mean_chn_{channel}: 0", f"    min_chn_{channel}: 0.0", f"    var_reci_chn_{channel}: {factor}"]
    return "\n".join([*lines, "}"]) + "\n"


def ascend_text(manifest: BundleManifest, files: Collection[str], opset: int, batch: int) -> str:
    """Return the commands for the files of a bundle, as Markdown.

    Args:
        manifest: Manifest of the bundle.
        files: Names of the exported files.
        opset: Opset of the ONNX file.
        batch: Batch size of the MINDIR and AIR files.
    """
    height, width = manifest.image_size
    parts = ["# Inference on Ascend cards"]
    if ONNX in files:
        versions = next(text for (low, high), text in OPSETS.items() if low <= opset <= high)
        parts += [
            f"`atc` of CANN {versions} makes an .om file of `{ONNX}` (opset {opset}). It needs neither a card nor a "
            "driver, but since CANN 8.5 the operator package of the chip that will run the file. `--soc_version` is "
            "the exact chip: `npu-smi info` shows it.",
            _command(
                "export LD_LIBRARY_PATH=$ASCEND_HOME_PATH/$(uname -m)-linux/devlib:$LD_LIBRARY_PATH",
                f"atc --framework=5 --model={ONNX} --output={manifest.model} --soc_version={SOC} \\",
                f'  --input_format=NCHW --input_shape="{INPUT_NAME}:1,3,{height},{width}"',
            ),
            f"With `--insert_op_conf={AIPP}` the .om file takes uint8 images (1, {height}, {width}, 3): AIPP divides "
            f"by {manifest.preprocessing.divisor:g} and changes the layout, and can swap the channels of BGR images.",
        ]
    if MINDIR in files:
        parts += [
            f"`converter_lite` of MindSpore Lite converts `{MINDIR}`, for batches of {batch}; `atc` does not accept "
            "this format. MindSpore Lite also runs the file without conversion.",
            _command(
                "export LD_LIBRARY_PATH=$PACKAGE_ROOT_PATH/tools/converter/lib:$LD_LIBRARY_PATH",
                f"converter_lite --fmk=MINDIR --modelFile={MINDIR} --outputFile={manifest.model} \\",
                "  --saveType=MINDIR --optimize=ascend_oriented",
            ),
        ]
    if AIR in files:
        parts += [
            "An AIR file has the shape of its input, so `--input_shape` is left out:",
            _command(f"atc --framework=1 --model={AIR} --output={manifest.model} --soc_version={SOC}"),
        ]
    fill = manifest.preprocessing.fill
    parts += [
        f"The host has to decode each image, to resize it with its aspect ratio so that it fits {width} x {height} "
        f"pixels (linear interpolation), and to pad it on both sides with grey {fill}; padding by AIPP begins at the "
        "top left only, and its resizing does not keep the aspect ratio. After the network it has to do non-maximum "
        "suppression"
        + (", and for MINDIR and AIR to decode the raw levels." if {MINDIR, AIR} & {*files} else ".")
        + " `bundle.json` has preprocessing, anchors and strides.",
        "These commands were written by kubeyolo, which has not run them. Measure AP of the converted file.",
    ]
    return "\n\n".join(parts) + "\n"


def _command(*lines: str) -> str:
    return "\n".join(["```sh", *lines, "```"])
