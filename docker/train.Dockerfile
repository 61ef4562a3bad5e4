# pretrain_backbone and train. DEVICE=ascend needs a BASE_IMAGE with CANN. msrun calls ip.
ARG BASE_IMAGE=python:3.11-slim
ARG DEVICE=cpu

FROM ${BASE_IMAGE} AS dependencies
ARG DEVICE
WORKDIR /build
COPY pyproject.toml constraints.txt docker/install.py ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=certificates,target=/run/secrets/certificates.pem \
    python3 install.py dependencies train --device "$DEVICE"

FROM dependencies AS library
COPY LICENSE README.md ./
COPY kubeyolo kubeyolo
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=certificates,target=/run/secrets/certificates.pem \
    python3 install.py library

FROM ${BASE_IMAGE} AS base-cpu

# The command of a pod skips the ENTRYPOINT of CANN's images, which sets variables: here ENV alone sets them, so that an
# image does the same with and without it. The node mounts the driver.
FROM ${BASE_IMAGE} AS base-ascend
ENV LD_LIBRARY_PATH=/usr/local/Ascend/driver/lib64:/usr/local/Ascend/driver/lib64/common:/usr/local/Ascend/driver/lib64/driver:$LD_LIBRARY_PATH
ENTRYPOINT []

FROM base-${DEVICE} AS train
ARG DEVICE
RUN --mount=type=bind,source=docker/system.py,target=/run/system.py \
    python3 /run/system.py --device "$DEVICE" iproute2 libgomp1
COPY --from=dependencies /opt/kubeyolo /opt/kubeyolo
COPY --from=library /opt/library /opt/kubeyolo
# MindSpore's generated code works only with protobuf's Python implementation, and kfp may import protobuf first.
ENV PATH=/opt/kubeyolo/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    HF_HUB_DISABLE_TELEMETRY=1 \
    DO_NOT_TRACK=1 \
    PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python
ARG BASE_IMAGE
ARG VERSION=unknown
ARG REVISION=unknown
LABEL io.kubeyolo.device="$DEVICE" \
      org.opencontainers.image.title="kubeyolo-train" \
      org.opencontainers.image.description="Pretrains backbones and trains detectors" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.base.name="$BASE_IMAGE"
WORKDIR /tmp
USER 10001:10001
CMD ["kubeyolo", "--help"]
