# Kaskade on CPUs and NVIDIA GPUs alike: the wheels of PyTorch bring the CUDA libraries with them.
#   docker build -t kaskade .
#   docker run --rm --gpus all -v ./models:/kaskade/models -v ./outputs:/kaskade/outputs kaskade inference --help
# docs/deploy.md says more. BASE: any image with Python 3.11 or newer, its venv module and a CA bundle.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}

ENV PATH=/opt/kaskade/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    OMP_WAIT_POLICY=PASSIVE \
    HF_HOME=/kaskade/models/hub \
    XDG_CACHE_HOME=/tmp/cache \
    MPLCONFIGDIR=/tmp/cache/matplotlib

WORKDIR /kaskade
COPY requirements.txt ./
RUN python3 -m venv /opt/kaskade \
 && /opt/kaskade/bin/pip install --no-cache-dir --disable-pip-version-check -r requirements.txt

COPY pyproject.toml LICENSE ./
COPY configs configs
COPY gdf gdf
COPY modules modules
COPY dataset_tools dataset_tools
COPY train train
COPY inference inference
COPY scripts scripts

# What is read and written lies outside of the image.
RUN useradd --uid 1000 --no-create-home --shell /usr/sbin/nologin kaskade \
 && mkdir models outputs data \
 && chown kaskade:kaskade models outputs data
USER kaskade
VOLUME ["/kaskade/models", "/kaskade/outputs", "/kaskade/data"]

EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s CMD ["sh", "scripts/container.sh", "healthy"]
ENTRYPOINT ["sh", "scripts/container.sh"]
CMD ["help"]
