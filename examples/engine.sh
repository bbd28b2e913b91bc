# shellcheck shell=bash
# To be sourced, with the folder $work to be in: podman with settings and storage of its own, so that the images of this
# machine are neither seen nor touched, and what belongs into the executor image. Undone by `engine_stop`.

# podman's sockets need short paths: with long ones every container ends twenty seconds late
engine_run=$(mktemp -d /tmp/kanna-engine.XXXXXX)

cat >"$work/containers.conf" <<END
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "file"
tmp_dir = "$engine_run/libpod"
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=30000:30000"]
END
cat >"$work/storage.conf" <<END
[storage]
driver = "overlay"
graphroot = "$work/graph"
runroot = "$engine_run/storage"
END
export CONTAINERS_CONF=$work/containers.conf CONTAINERS_STORAGE_CONF=$work/storage.conf

# executor_files FOLDER [CERTIFICATES]: the files of the executor image, with the program $EXECUTOR.
executor_files() {
	mkdir -p "$1"/{etc,kaniko/{.docker,ssl/certs},workspace}
	chmod 0777 "$1/kaniko"
	cp "$EXECUTOR" "$1/kaniko/executor"
	[ -z "${2:-}" ] || cp -L "$2" "$1/kaniko/ssl/certs/ca-certificates.crt"
	echo 'hosts: files dns' >"$1/etc/nsswitch.conf"
}

engine_stop() {
	umount "$work/graph/overlay" 2>/dev/null || true
	rm -rf "$work/graph" "$engine_run"
}
