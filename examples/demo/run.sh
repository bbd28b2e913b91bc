#!/usr/bin/env bash
# Builds an image with kanna in an ordinary container, pushes it to a registry on loopback, pulls it again and runs it.
# Needs a Rust toolchain and, from Debian: podman, runc, docker-registry, skopeo, busybox-static.
set -euo pipefail
demo=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$demo/../.." && pwd)
cd "$repository"
[ -n "${EXECUTOR:-}" ] || EXECUTOR=$("$repository/examples/build.sh" release executor)
export EXECUTOR

# containers with a root of their own are made as root
[ "$(id -u)" = 0 ] || exec sudo --preserve-env=EXECUTOR,CARGO_TARGET_DIR "$0" "$@"

result=$repository/target/demo
mkdir -p "$result"
work=$(mktemp -d "$result/work.XXXXXX")
say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }

registry_process=
cleanup() {
	[ -z "$registry_process" ] || kill "$registry_process" 2>/dev/null || true
	engine_stop
	rm -rf "$work"
}
trap cleanup EXIT

. "$repository/examples/engine.sh"

say "a registry on loopback"
cat >"$work/registry.yml" <<END
version: 0.1
log: {level: info, formatter: json}
storage: {filesystem: {rootdirectory: $work/registry}}
http: {addr: "127.0.0.1:0"}
END
docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
registry_process=$!
registry=
for _ in $(seq 100); do
	registry=$(sed -n 's/.*listening on \(127\.0\.0\.1:[0-9]*\).*/\1/p' "$work/registry.log" | head -1)
	[ -z "$registry" ] || break
	sleep 0.1
done
[ -n "$registry" ] || { cat "$work/registry.log" >&2; exit 1; }
echo "$registry"

say "a base image: busybox and nothing else"
root=$work/root
mkdir -p "$root"/{bin,etc,home,tmp,srv}
busybox=/bin/busybox
cp "$busybox" "$root/bin/busybox"
"$busybox" --list | while read -r applet; do [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"; done
echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
tar --create --owner=0 --group=0 --directory "$root" . |
	podman import --quiet --change 'ENV PATH=/bin' --change 'CMD ["/bin/sh"]' - "$registry/library/busybox:demo"
podman push --quiet --tls-verify=false "$registry/library/busybox:demo"

say "the executor image"
root=$work/executor
certificates=/etc/ssl/certs/ca-certificates.crt
[ -e "$certificates" ] || certificates=
executor_files "$root" "$certificates"
tar --create --owner=0 --group=0 --directory "$root" . |
	podman import --quiet --change 'ENTRYPOINT ["/kaniko/executor"]' --change 'WORKDIR /workspace' \
		--change 'ENV HOME=/root' --change 'ENV USER=root' --change 'ENV PATH=/usr/local/bin:/kaniko' \
		--change 'ENV SSL_CERT_DIR=/kaniko/ssl/certs' --change 'ENV DOCKER_CONFIG=/kaniko/.docker/' - localhost/kanna:demo

say "the build: an ordinary container, a read-only context, no daemon"
image=$registry/demo/site:latest
set -x
podman run --rm --network=host -v "$demo/context:/workspace:ro" localhost/kanna:demo \
	--context=dir:///workspace --build-arg=NAME=everybody --destination="$image" \
	--registry-map="index.docker.io=$registry" --insecure --insecure-pull
{ set +x; } 2>/dev/null

say "the image, pulled and run"
podman pull --quiet --tls-verify=false "$image"
podman run --rm --network=host "$image"

rm -rf "$result/site"
skopeo copy --quiet --src-tls-verify=false "docker://$image" "oci:$result/site:latest"
say "done; the image is in target/demo/site, an OCI layout. To look at it:"
cat <<END
  skopeo inspect --config oci:target/demo/site:latest     its configuration and history
  skopeo inspect oci:target/demo/site:latest              its layers
  umoci unpack --rootless --image target/demo/site:latest target/demo/unpacked
  examples/demo/context/Dockerfile                        what it was made of
END
