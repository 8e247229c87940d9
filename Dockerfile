# The reference operator. For an operator of your own, copy its modules in place of kopf_ha_ipam and change CMD.
# Both stages have one base, since a venv finds its Python by path.
ARG BASE=python:3.13-slim-bookworm

FROM ${BASE} AS build
# For mirrors; the hashes are checked in any case.
ARG PIP_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv --without-pip /opt/kopf-ha /opt/build
# What changes least comes first.
COPY requirements/build.txt requirements/image.txt /src/requirements/
RUN python3 -m pip --python /opt/build/bin/python3 install --require-hashes -r /src/requirements/build.txt \
 && python3 -m pip --python /opt/kopf-ha/bin/python3 install --require-hashes --only-binary :all: \
    -r /src/requirements/image.txt
COPY pyproject.toml LICENSE /src/
COPY operator/kopf_ha /src/operator/kopf_ha
RUN python3 -m pip --python /opt/build/bin/python3 wheel --no-build-isolation --no-deps --wheel-dir /wheels /src \
 && python3 -m pip --python /opt/kopf-ha/bin/python3 install --no-index --no-deps /wheels/*.whl
COPY operator/kopf_ha_ipam /app/kopf_ha_ipam
# The file system is read-only later; without bytecode every start would compile for seconds.
RUN /opt/kopf-ha/bin/python3 -m compileall -q /app

FROM ${BASE}
LABEL org.opencontainers.image.title="kopf-ha-ipam" \
      org.opencontainers.image.description="An IP address manager for Kubernetes, with one fenced leader" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/kopf-ha /opt/kopf-ha
COPY --from=build /app /app
# USER for Kopf, which asks for the user's name, and 65532 has none.
ENV PATH=/opt/kopf-ha/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    USER=kopf-ha
# A number: the kubelet cannot tell whether a name is root.
USER 65532:65532
ENTRYPOINT ["kopf-ha"]
CMD ["run", "-m", "kopf_ha_ipam.handlers", "-A", "--deciding", "addresspools.ipam.kopf-ha.dev"]
