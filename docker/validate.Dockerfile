# configure and validate_dataset: neither MindSpore nor onnxruntime.
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS dependencies
WORKDIR /build
COPY pyproject.toml constraints.txt docker/install.py ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=certificates,target=/run/secrets/certificates.pem \
    python3 install.py dependencies validate

FROM dependencies AS library
COPY LICENSE README.md ./
COPY kubeyolo kubeyolo
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=certificates,target=/run/secrets/certificates.pem \
    python3 install.py library

FROM ${BASE_IMAGE} AS validate
RUN --mount=type=bind,source=docker/system.py,target=/run/system.py \
    python3 /run/system.py
COPY --from=dependencies /opt/kubeyolo /opt/kubeyolo
COPY --from=library /opt/library /opt/kubeyolo
ENV PATH=/opt/kubeyolo/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    HF_HUB_DISABLE_TELEMETRY=1 \
    DO_NOT_TRACK=1
ARG BASE_IMAGE
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="kubeyolo-validate" \
      org.opencontainers.image.description="Configures runs; checks a COCO data set and stores it as shards" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.base.name="$BASE_IMAGE"
WORKDIR /tmp
USER 10001:10001
CMD ["kubeyolo", "--help"]
