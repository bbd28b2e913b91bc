# Our images, of files that .ci/images puts together: nothing is pulled. Build with --target.
FROM scratch AS executor
COPY executor/ /
ENV HOME=/root \
    USER=root \
    PATH=/usr/local/bin:/kaniko \
    SSL_CERT_DIR=/kaniko/ssl/certs \
    DOCKER_CONFIG=/kaniko/.docker/ \
    DOCKER_CREDENTIAL_GCR_CONFIG=/kaniko/.config/gcloud/docker_credential_gcr_config.json
WORKDIR /workspace
ENTRYPOINT ["/kaniko/executor"]

# With a shell and its tools in /busybox, out of the way of what is built, and the warmer.
FROM executor AS debug
COPY debug/ /
ENV PATH=/usr/local/bin:/kaniko:/busybox
VOLUME /busybox
