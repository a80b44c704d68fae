# syntax=docker/dockerfile:1
# The imagetune command in a container; docs/docker.md explains it and lists what was tested.
#   docker build -t imagetune .                          CPU
#   docker build -t imagetune:gpu --target gpu .         GPU: CUDA comes in pip wheels, the host needs only the driver
#   docker run -v $PWD:/data imagetune fit recipe.yaml
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM scratch AS source
COPY pyproject.toml setup.cfg README.md LICENSE /
COPY imagetune /imagetune
COPY recipes /recipes

# The environment has no pip of its own. Byte code is compiled here: the finished image may be read-only.
FROM ${PYTHON_IMAGE} AS build-cpu
WORKDIR /src
RUN python -m venv --without-pip /opt/imagetune
COPY requirements.lock requirements.lock
RUN pip --python /opt/imagetune/bin/python install --no-cache-dir --compile --require-hashes -r requirements.lock
COPY --from=source / .
# setuptools is in the lock, so that nothing without a hash is fetched to build the wheel.
RUN pip --python /opt/imagetune/bin/python wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
    && pip --python /opt/imagetune/bin/python install --no-cache-dir --compile --no-deps --no-index /wheels/*.whl

FROM ${PYTHON_IMAGE} AS build-gpu
WORKDIR /src
RUN python -m venv --without-pip /opt/imagetune
COPY requirements-gpu.lock requirements-gpu.lock
RUN pip --python /opt/imagetune/bin/python install --no-cache-dir --compile --require-hashes -r requirements-gpu.lock
COPY --from=source / .
RUN pip --python /opt/imagetune/bin/python wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
    && pip --python /opt/imagetune/bin/python install --no-cache-dir --compile --no-deps --no-index /wheels/*.whl

FROM ${PYTHON_IMAGE} AS runtime
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="imagetune" \
      org.opencontainers.image.description="Fine-tune image models from one recipe file" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
# 1000 is the first user id of most hosts, so that files in /data belong to that user. Any user may write to /cache.
RUN groupadd --gid 1000 imagetune \
    && useradd --uid 1000 --gid 1000 --no-create-home --home-dir /cache --shell /usr/sbin/nologin imagetune \
    && install -d -m 1777 /cache \
    && install -d -o imagetune -g imagetune /data
# A user id given with --user has no name in /etc/passwd: MLflow and others then use $USER.
ENV PATH=/opt/imagetune/bin:$PATH \
    HOME=/cache \
    USER=imagetune \
    XDG_CACHE_HOME=/cache \
    KERAS_HOME=/cache/keras \
    MPLCONFIGDIR=/cache/matplotlib \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    NO_ALBUMENTATIONS_UPDATE=1
VOLUME /cache
WORKDIR /data
USER 1000:1000
ENTRYPOINT ["imagetune"]
CMD ["--help"]

FROM runtime AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-gpu /opt/imagetune /opt/imagetune

# The last stage is what a build without --target makes.
FROM runtime AS cpu
COPY --from=build-cpu /opt/imagetune /opt/imagetune
