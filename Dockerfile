# One image for all services; compose.yaml says which one a container runs.
FROM python:3.13-slim
WORKDIR /app
COPY requirements.txt .
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --quiet --require-hashes -r requirements.txt
COPY schemas schemas
COPY services services
# State lives in volumes that take their owner from these folders.
RUN useradd --system --uid 10001 keyledger \
    && mkdir -p /state /ledger-keys && chown keyledger /state /ledger-keys
USER keyledger
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    KEYLEDGER_HOST=0.0.0.0 KEYLEDGER_STATE_DIR=/state KEYLEDGER_LEDGER_KEYS=/ledger-keys/keys.json
