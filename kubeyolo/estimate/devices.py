"""What devices can do, from data sheets and publications, and the share of it that trainings reach.

Nothing was measured on these devices. Data sheets give peaks; the two shares of each device say how much of them a
training of a detector reaches. They are fitted to published trainings, or taken from them:

- ``compute_share`` is from ResNet-152 in MindSpore's model zoo on 8 Ascend 910: 41.0 ms for a step of 32 images on each
  device, and 11.6e9 multiply-adds for an image, so 27e12 multiply-adds per second: 21 % of the peak.
- ``bandwidth_share`` is fitted, one number for each kind of device, to the runs that
  :mod:`kubeyolo.estimate.published` marks. It is low: these programs fuse few operators, and convert layouts and types
  between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DeviceKind = Literal["Ascend910", "Ascend910B"]


@dataclass(frozen=True, kw_only=True)
class Link:
    """A connection over which devices exchange gradients.

    Attributes:
        bandwidth: Bytes per second that a device sends while it receives as many.
        latency: Seconds of one exchange of a small message.
    """

    bandwidth: float
    latency: float


@dataclass(frozen=True, kw_only=True)
class DeviceFacts:
    """A kind of device, and the machine that it is part of.

    Attributes:
        kind: Its name.
        multiply_adds: Peak of multiply-adds per second in half precision: half of the FLOPS of a data sheet.
        bandwidth: Bytes per second from and to its memory.
        memory: Bytes of its memory.
        compute_share: Share of ``multiply_adds`` that a training reaches.
        bandwidth_share: Share of ``bandwidth`` that a training reaches.
        per_machine: Devices of a machine.
        inside: Connection between the devices of a machine.
        outside: Connection of a device to other machines.
        host_cores: Processor cores of a machine.
        sources: Documents of these facts.
    """

    kind: DeviceKind
    multiply_adds: float
    bandwidth: float
    memory: float
    compute_share: float
    bandwidth_share: float
    per_machine: int
    inside: Link
    outside: Link
    host_cores: int
    sources: tuple[str, ...]


_COMPUTE_SHARE = 0.21

# Assumed: no published figure was found. The exchange is 2 (n - 1) messages, so 64 machines spend 3 ms on it.
_INSIDE_LATENCY, _OUTSIDE_LATENCY = 15e-6, 25e-6

DEVICES: dict[DeviceKind, DeviceFacts] = {
    "Ascend910": DeviceFacts(
        kind="Ascend910",
        multiply_adds=128e12,
        bandwidth=1.2e12,
        memory=32e9,
        compute_share=_COMPUTE_SHARE,
        bandwidth_share=0.097,
        per_machine=8,
        # A ring of four devices has a link of HCCS each; PCIe 4.0 with 32 GB/s joins two rings.
        inside=Link(bandwidth=30e9, latency=_INSIDE_LATENCY),
        outside=Link(bandwidth=12.5e9, latency=_OUTSIDE_LATENCY),
        host_cores=192,
        sources=(
            "256 TFLOPS in half precision, 32 GB of HBM with 1.2 TB/s, HCCS 30 GB/s, PCIe 32 GB/s, RoCE 100 Gb/s: "
            "Liao et al., Ascend: a Scalable and Unified Architecture for Ubiquitous Deep Neural Network Computing, "
            "HPCA 2021, doi 10.1109/HPCA51647.2021.00071",
            "8 devices and 192 cores of 2.6 GHz in a machine: MindSpore models, official/cv/YOLOv5/README.md",
        ),
    ),
    "Ascend910B": DeviceFacts(
        kind="Ascend910B",
        multiply_adds=156.5e12,
        bandwidth=1.6e12,
        memory=64e9,
        compute_share=_COMPUTE_SHARE,
        bandwidth_share=0.135,
        per_machine=8,
        # 392 GB/s is the sum of both directions of the links to the seven other devices.
        inside=Link(bandwidth=196e9, latency=_INSIDE_LATENCY),
        outside=Link(bandwidth=25e9, latency=_OUTSIDE_LATENCY),
        host_cores=192,
        sources=(
            "910B3: 313 TFLOPS in half precision, 64 GB of HBM with 1.6 TB/s, HCCS 392 GB/s, RoCE 200 Gb/s: data "
            "sheet of the Atlas 800T A2 training server",
            "8 devices and 4 x 48 cores of 2.6 GHz in a machine, 200 Gb/s for each device: a machine of Huawei Cloud, "
            "described at arthurchiao.art, GPU notes 2 (2023)",
        ),
    ),
}
"""Every kind of device by name; the first is assumed if the kind is not known."""
