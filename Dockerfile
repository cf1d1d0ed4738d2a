# syntax=docker/dockerfile:1
# One image for api, worker, beat and migrate; the command chooses (docker-compose.yml).

FROM python:3.13-slim AS build
RUN python -m venv /opt/orchestrator
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY orchestrator orchestrator
COPY workers workers
COPY migrations migrations
RUN --mount=type=cache,target=/root/.cache/pip /opt/orchestrator/bin/pip install .

FROM python:3.13-slim
# A number, not a name: Kubernetes' runAsNonRoot can check it.
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/restart-orchestrator orchestrator \
    && install --directory --owner=10001 --mode=0700 /var/lib/restart-orchestrator /var/lib/restart-orchestrator/seal
COPY --from=build /opt/orchestrator /opt/orchestrator
ENV PATH="/opt/orchestrator/bin:$PATH" \
    PYTHONUNBUFFERED=1 \
    ORCHESTRATOR_DATA=/var/lib/restart-orchestrator
USER 10001
WORKDIR /var/lib/restart-orchestrator
EXPOSE 8321
ENTRYPOINT ["orchestrator"]
CMD ["--help"]
