# Two images from one source: the pod that holds database credentials has no Kubernetes client, the controller no
# database driver.
#   docker build --target controller -t session-policy-controller .
#   docker build --target job        -t session-policy-job .
ARG BASE_IMAGE=python:3.13-slim-trixie

# --- build: a virtual environment per image, without pip ----------------------------------------------------------
# hadolint ignore=DL3006
FROM ${BASE_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# pip stays outside: it installs into the environment by --python.
RUN python3 -m venv --without-pip /opt/session-policy
COPY pyproject.toml README.md LICENSE ./
COPY policy policy

FROM build AS build-job
COPY stores stores
COPY job job
# Installs first, then leaves out what is not this image's: the demo with its servers, the other command. Byte code is
# made here because the root file system is read-only later, and a start costs CPU.
RUN mkdir controller \
 && python3 -m pip --python /opt/session-policy/bin/python install '.[job,mysql]' \
 && site=$(/opt/session-policy/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
 && rm -rf "$site/job/demo" /opt/session-policy/bin/session-policy-controller \
 && /opt/session-policy/bin/python -m compileall -q -j 0 "$site"

FROM build AS build-controller
COPY controller controller
RUN mkdir job stores \
 && python3 -m pip --python /opt/session-policy/bin/python install '.[controller]' \
 && site=$(/opt/session-policy/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
 && rm -f /opt/session-policy/bin/session-policy \
 && /opt/session-policy/bin/python -m compileall -q -j 0 "$site"

# --- final images -------------------------------------------------------------------------------------------------
# hadolint ignore=DL3006
FROM ${BASE_IMAGE} AS runtime
ENV PATH=/opt/session-policy/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# The official images have no byte code of the standard library: each start would compile it again, for half a second of
# CPU.
RUN python3 -m compileall -q -j 0 -x '/(ensurepip|idlelib|pydoc_data|site-packages|tkinter|turtledemo)/' \
    "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
# A number, so that Kubernetes can tell it is not root.
USER 65532:65532
WORKDIR /

FROM runtime AS job
LABEL org.opencontainers.image.title="session-policy-job" \
      org.opencontainers.image.description="One cleanup run of a SessionPolicy" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build-job /opt/session-policy /opt/session-policy
ENTRYPOINT ["session-policy"]

FROM runtime AS controller
LABEL org.opencontainers.image.title="session-policy-controller" \
      org.opencontainers.image.description="Operator that runs SessionPolicy resources as CronJobs" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build-controller /opt/session-policy /opt/session-policy
ENTRYPOINT ["session-policy-controller"]
