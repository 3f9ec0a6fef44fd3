# One image for all services; compose chooses which one runs. It runs as a user without rights.
#
#   docker build -t brigade .                                                  torch as pip chooses it (CUDA on x86-64)
#   docker build -t brigade --build-arg TORCH_INDEX_URL=URL .      a CPU build of torch, from the index that PyTorch names
ARG BASE_IMAGE=python:3.11-slim
FROM ${BASE_IMAGE}

# the CPU attention kernel is compiled for the machine's own processor when a worker first starts
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends g++ >/dev/null \
 && rm -rf /var/lib/apt/lists/*

# Workers of all containers write KV pools to one tmpfs volume, which is mounted for this user id.
RUN useradd --uid 10001 --user-group --create-home brigade

WORKDIR /app

ARG TORCH_SPEC="torch>=2.6,<2.14"
ARG TORCH_INDEX_URL=""
RUN python -m pip install --no-cache-dir --quiet ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} "$TORCH_SPEC"

# what the project depends on changes less often than the project
COPY pyproject.toml ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
      > /tmp/requirements.txt \
 && python -m pip install --no-cache-dir --quiet --requirement /tmp/requirements.txt \
 && rm /tmp/requirements.txt

COPY README.md LICENSE ./
COPY brigade brigade
COPY services services
COPY verification verification
COPY models/demo models/demo
COPY profiles profiles
RUN python -m pip install --no-cache-dir --quiet --no-deps --editable .

USER brigade
ENV HOME=/home/brigade \
    PYTHONUNBUFFERED=1 \
    OMP_NUM_THREADS=1 \
    BRIGADE_MODEL=/app/models/demo
EXPOSE 8000
CMD ["python", "-m", "services.router", "--host", "0.0.0.0"]
