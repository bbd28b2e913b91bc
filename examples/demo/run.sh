#!/usr/bin/env bash
# Builds an image with kanna, pushes it to a registry on loopback, pulls it again and runs its command. No container engine, no
# daemon, and no root: each build has a root of its own. Needs a Rust toolchain and, from Debian: docker-registry, jq, busybox-static,
# and uidmap where a plain user calls.
set -euo pipefail
demo=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$demo/../.." && pwd)
cd "$repository"
[ -n "${EXECUTOR:-}" ] || EXECUTOR=$("$repository/examples/build.sh" release executor)
# builds begin elsewhere
EXECUTOR=$(realpath "$EXECUTOR")

result=${RESULT:-$repository/target/demo}
mkdir -p "$result"
work=$(mktemp -d "$result/work.XXXXXX")
say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }

registry_process=
cleanup() {
	[ -z "$registry_process" ] || kill "$registry_process" 2>/dev/null || true
	rm -rf "$work"
}
trap cleanup EXIT

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

# build CONTEXT FLAG …: shows the command, and runs it with this registry in place of Docker Hub
build() (
	context=$1
	shift
	printf '\033[2m$ executor --context=%s %s\033[0m\n' "$context" "$*"
	# not from here: a Dockerfile of the current directory goes first, as with kaniko
	cd "$work"
	"$EXECUTOR" --isolation=namespaces --kaniko-dir="$work/kanna" --context="$context" \
		--registry-map="index.docker.io=$registry" --insecure --insecure-pull "$@"
)

say "a base image: busybox and nothing else"
mkdir -p "$work/busybox/bin"
cp /bin/busybox "$work/busybox/bin/busybox"
/bin/busybox --list | while read -r applet; do
	[ "$applet" = busybox ] || ln -s busybox "$work/busybox/bin/$applet"
done
cat >"$work/busybox/Dockerfile" <<'END'
FROM scratch
COPY bin /bin
COPY <<passwd <<group /etc/
root:x:0:0:root:/root:/bin/sh
passwd
root:x:0:
group
RUN mkdir -m 1777 /tmp && mkdir /home /srv
ENV PATH=/bin
CMD ["/bin/sh"]
END
build "$work/busybox" --destination="$registry/library/busybox:demo" --verbosity=warn

say "the build: two stages, users, links"
image=$registry/demo/site:latest
rm -rf "$result/site"
build "$demo/context" --build-arg=NAME=everybody --destination="$image" --oci-layout-path="$result/site"

say "the image, pulled, and its command run"
mkdir "$work/look"
blob() { echo "$result/site/blobs/sha256/${1#sha256:}"; }
manifest=$(jq --raw-output '.manifests[0].digest' "$result/site/index.json")
config=$(jq --raw-output .config.digest "$(blob "$manifest")")
command=$(jq --compact-output .config.Cmd "$(blob "$config")")
printf 'FROM %s\nRUN %s\n' "$image" "$command" >"$work/look/Dockerfile"
build "$work/look" --no-push --verbosity=warn

shown=${result#"$repository/"}
say "done; the image is in $shown/site, an OCI layout. To look at it:"
cat <<END
  skopeo inspect --config oci:$shown/site:latest     its configuration and history
  skopeo inspect oci:$shown/site:latest              its layers
  umoci unpack --rootless --image $shown/site:latest $shown/unpacked
  examples/demo/context/Dockerfile                   what it was made of
END
