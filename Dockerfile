# A demo of the explorer for looking only: the sample comics and the sample run, on the processor, without a network.
#
#   docker build -t stage3-demo .
#   docker run --rm -p 8501:8501 --memory 4g stage3-demo
#   docker run --rm -p 8501:8501 -v "$PWD/runs:/srv/runs:ro" -v "$PWD/data:/srv/data:ro" stage3-demo    (your own runs)
#
# Whoever can reach the port can look. Under a name other than localhost, say that name behind the image's:
#   … stage3-demo streamlit run app/main.py --server.address=0.0.0.0 --server.allowedHosts=demo.example.org
FROM python:3.11-slim

ENV PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1 \
    OMP_NUM_THREADS=1 \
    HF_HUB_OFFLINE=1 \
    STAGE3_READ_ONLY=1

WORKDIR /srv
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY stage3 stage3
# torch from its own index: the default one brings several GB of libraries for GPUs
RUN pip install --index-url https://download.pytorch.org/whl/cpu "$(grep '^torch==' constraints.txt)" \
    && pip install -c constraints.txt ".[app]" \
    && rm -rf build stage3

COPY app app
COPY data/samples data/samples

# maps and what else is computed for showing is kept beside the runs, so these are the user's
RUN useradd --create-home --uid 1000 demo && chown -R demo:demo /srv
USER demo

EXPOSE 8501
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8501/_stcore/health', timeout=4)"]
CMD ["streamlit", "run", "app/main.py", "--server.address=0.0.0.0", "--server.port=8501"]
