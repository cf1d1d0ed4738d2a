# One image for api, worker, beat and migrate; the command chooses (docker-compose.yml).

FROM python:3.13-slim AS build
RUN python -m venv /opt/orchestrator
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY orchestrator orchestrator
COPY workers workers
COPY migrations migrations
RUN --mount=type=cache,target=/root/.cache/pip /opt/orchestrator/bin/pip install --constraint constraints.txt .

FROM python:3.13-slim
LABEL org.opencontainers.image.title="restart-orchestrator" \
      org.opencontainers.image.description="Restarts a workspace once after a burst of file writes, and says why" \
      org.opencontainers.image.licenses="Apache-2.0"
# A number, not a name: Kubernetes' runAsNonRoot can check it.
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/restart-orchestrator orchestrator \
    && chmod 0700 /var/lib/restart-orchestrator
COPY --from=build /opt/orchestrator /opt/orchestrator
ENV PATH="/opt/orchestrator/bin:$PATH" \
    PYTHONUNBUFFERED=1 \
    ORCHESTRATOR_DATA=/var/lib/restart-orchestrator
USER 10001
WORKDIR /var/lib/restart-orchestrator
EXPOSE 8321
ENTRYPOINT ["orchestrator"]
CMD ["--help"]
