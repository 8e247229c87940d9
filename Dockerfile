# The reference operator. For an operator of your own, copy its modules in place of kopf_ha_ipam and change CMD.
# scripts/image makes build/wheelhouse and then this; nothing is fetched during the build.
ARG BASE=python:3.13-slim-bookworm
# For a base without a shell: an image with one, and with the same Python at the same path, which a venv needs.
ARG BUILD_BASE=${BASE}

FROM ${BUILD_BASE} AS build
COPY build/wheelhouse /wheelhouse
COPY requirements/image.txt /src/
# pip runs from its wheel, since a base may have none, and does not end up in the image.
RUN export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1 \
 && python3 -m venv --without-pip /opt/kopf-ha \
 && pip() { PYTHONPATH="$(echo /wheelhouse/pip-*.whl)" /opt/kopf-ha/bin/python3 -m pip "$@"; } \
 && pip install --no-index --find-links /wheelhouse --no-compile --require-hashes -r /src/image.txt \
 && pip install --no-index --no-deps --no-compile /wheelhouse/kopf_ha-*.whl
COPY operator/kopf_ha_ipam /app/kopf_ha_ipam
# What nothing here imports: tests, and kubernetes.aio, 68 MB of a client that the fence does not cover.
RUN find /opt/kopf-ha/lib/ -depth \( -path '*/kubernetes/aio' -o -name tests -o -name '*_test.py' \) -exec rm -r {} +
# The file system is read-only later, and the official Python images hold no bytecode of Python's own library: every
# start would compile it anew, and take twice as long. So there is a folder with all bytecode: by file time for what is
# the base's, unchecked for what is ours.
# PYTHONHASHSEED, since the order of a set would be another one in each build.
RUN export PYTHONPYCACHEPREFIX=/opt/kopf-ha/bytecode PYTHONHASHSEED=0 \
 && python="/opt/kopf-ha/bin/python3" \
 && $python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/kopf-ha/lib /app \
 && $python -m compileall -q -j 0 --invalidation-mode timestamp \
    -x '/(test|tests|idlelib|lib2to3|ensurepip|tkinter|turtledemo|pydoc_data|site-packages|dist-packages)/' \
    "$($python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
 && chmod -R go-w /opt/kopf-ha /app

FROM ${BASE}
LABEL org.opencontainers.image.title="kopf-ha-ipam" \
      org.opencontainers.image.description="An IP address manager for Kubernetes, with one fenced leader" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/kopf-ha /opt/kopf-ha
COPY --from=build /app /app
# USER for Kopf, which asks for the user's name, and 65532 has none.
ENV PATH=/opt/kopf-ha/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONPYCACHEPREFIX=/opt/kopf-ha/bytecode \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    USER=kopf-ha
# A number: the kubelet cannot tell whether a name is root.
USER 65532:65532
ENTRYPOINT ["kopf-ha"]
CMD ["run", "-m", "kopf_ha_ipam.handlers", "-A", "--deciding", "addresspools.ipam.kopf-ha.dev", "--barrier", "each"]
