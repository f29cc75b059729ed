# The image of Formwork: the binary with its libraries, models and plugins. `make image` puts into the context what was
# built and tested on this machine; nothing is compiled in here, so image and tests cannot differ.
ARG BASE=debian:bookworm-slim
FROM ${BASE}

RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/formwork --create-home formwork

COPY bin/formwork /usr/local/bin/formwork
COPY share/ /usr/share/formwork/

# Only /var/lib/formwork is written to: the embedded store, and machine code of plugins.
ENV FORMWORK_CACHE=/usr/share/formwork \
    FORMWORK_ENGINE__CACHE_FOLDER=/var/lib/formwork/compiled \
    FORMWORK_STORE=sqlite:/var/lib/formwork/formwork.db \
    FORMWORK_HTTP__LISTEN=0.0.0.0:8080
USER formwork
WORKDIR /var/lib/formwork
# The image shows that it works, and keeps the machine code of the plugins: a container starts in seconds.
RUN formwork demo --examples /usr/share/formwork/examples
VOLUME /var/lib/formwork
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s CMD ["formwork", "ready"]
ENTRYPOINT ["formwork"]
CMD ["serve"]
