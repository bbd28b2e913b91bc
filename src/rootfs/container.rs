//! Are we in a container, where `/` is ours to replace, or on a machine that somebody needs?
//!
//! Container runtimes leave marks (COMPAT: "Container detection"). A mark can be wrong: a machine that was made from a
//! container image still has its `/.dockerenv`. So there is a proof of the contrary, too, and it outweighs every mark:
//! kernel threads among the processes, and a root that is all of a block device.
//!
//! An overlay root says nothing: image-based hosts have one.

use std::ffi::OsString;
use std::path::Path;
use std::{fmt, fs, io};

use super::mounts::{self, Mount};

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Surroundings {
    /// A container, known by this mark.
    Container(Mark),
    /// A machine, or at least nothing that is known to be a container. With the mark that claimed otherwise, if any.
    Machine {
        /// A mark that the proof of a machine outweighed.
        despite: Option<Mark>,
    },
}

/// What tells a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// The file `/.dockerenv`.
    DockerEnv,
    /// The file `/run/.containerenv`.
    ContainerEnv,
    /// The variable `container`, which podman, systemd-nspawn and others set.
    Variable,
    /// The variables of a Kubernetes service.
    Kubernetes,
    /// A control group named by a container runtime.
    ControlGroup,
    /// Host name, hosts and resolver files that are mounted one by one.
    NetworkFiles,
    /// The kernel of gVisor.
    Gvisor,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mark::DockerEnv => "the file /.dockerenv",
            Mark::ContainerEnv => "the file /run/.containerenv",
            Mark::Variable => "the variable container",
            Mark::Kubernetes => "the variables of Kubernetes",
            Mark::ControlGroup => "the name of the control group",
            Mark::NetworkFiles => "the mounts on /etc/hostname, /etc/hosts and /etc/resolv.conf",
            Mark::Gvisor => "the kernel of gVisor",
        })
    }
}

/// What there is to be seen of the surroundings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Does `/.dockerenv` exist?
    pub has_docker_env: bool,
    /// Does `/run/.containerenv` exist?
    pub has_container_env: bool,
    /// Does `/proc/gvisor` exist?
    pub has_proc_gvisor: bool,
    /// Is the variable `container` set, and not to nothing?
    pub has_container_variable: bool,
    /// Is `KUBERNETES_SERVICE_HOST` set, and not to nothing?
    pub has_kubernetes_variable: bool,
    /// `/proc/self/cgroup`.
    pub cgroup: Vec<u8>,
    /// `/proc/self/mountinfo`.
    pub mountinfo: Vec<u8>,
    /// `/proc/version`.
    pub kernel_version: Vec<u8>,
    /// `/proc/2/comm`: the name of the process with the id 2.
    pub second_process: Vec<u8>,
}

impl Facts {
    /// Looks at this process' surroundings; `variable` answers for the environment.
    pub fn read(variable: impl Fn(&str) -> Option<OsString>) -> io::Result<Facts> {
        let is_set = |name| variable(name).is_some_and(|value| !value.is_empty());
        let exists = |path: &str| Path::new(path).symlink_metadata().is_ok();
        Ok(Facts {
            has_docker_env: exists("/.dockerenv"),
            has_container_env: exists("/run/.containerenv"),
            has_proc_gvisor: exists("/proc/gvisor"),
            has_container_variable: is_set("container"),
            has_kubernetes_variable: is_set("KUBERNETES_SERVICE_HOST"),
            cgroup: read_if_there("/proc/self/cgroup")?,
            mountinfo: mounts::read()?,
            kernel_version: read_if_there("/proc/version")?,
            second_process: read_if_there("/proc/2/comm")?,
        })
    }

    /// What these facts say.
    pub fn surroundings(&self) -> Surroundings {
        let mark = self.mark();
        match mark {
            Some(mark) if !self.is_machine() => Surroundings::Container(mark),
            despite => Surroundings::Machine { despite },
        }
    }

    fn mark(&self) -> Option<Mark> {
        let marks = [
            (self.has_docker_env, Mark::DockerEnv),
            (self.has_container_env, Mark::ContainerEnv),
            (self.has_container_variable, Mark::Variable),
            (self.has_kubernetes_variable, Mark::Kubernetes),
            (names_a_runtime(&self.cgroup), Mark::ControlGroup),
            (self.has_proc_gvisor || is_gvisor(&self.kernel_version), Mark::Gvisor),
            (has_network_files_mounted(&mounts::parse(&self.mountinfo)), Mark::NetworkFiles),
        ];
        marks.into_iter().find(|(found, _)| *found).map(|(_, mark)| mark)
    }

    /// Is this proven to be a machine? Process 2 is the parent of the kernel's threads only outside of every PID
    /// namespace; a container's root is an overlay or a part of a file system, not all of a device.
    fn is_machine(&self) -> bool {
        let root = mounts::parse(&self.mountinfo).into_iter().rfind(|mount| mount.point.is_root());
        let is_whole_device = |root: Mount| root.part == b"/" && root.source.starts_with(b"/dev/");
        self.second_process.trim_ascii() == b"kthreadd" && root.is_some_and(is_whole_device)
    }
}

fn read_if_there(path: &str) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

/// Hexadecimal digits from which on a name is a container's id, not a word.
const ID_DIGITS: usize = 12;

/// Is a component of a control group's path one that a container runtime gives?
fn names_a_runtime(cgroup: &[u8]) -> bool {
    cgroup.split(|&byte| byte == b'\n' || byte == b'/').any(|component| {
        let names = [&b"docker"[..], b"libpod_parent", b"lxc", b"garden", b"ecs", b"actions_job"];
        let id_prefixes = [&b"docker-"[..], b"libpod-", b"crio-", b"cri-containerd-", b"nerdctl-"];
        names.contains(&component)
            || component.starts_with(b"kubepods")
            || component.starts_with(b"lxc.payload")
            || id_prefixes.iter().filter_map(|prefix| component.strip_prefix(*prefix)).any(starts_with_id)
    })
}

fn starts_with_id(text: &[u8]) -> bool {
    text.len() >= ID_DIGITS && text[..ID_DIGITS].iter().all(u8::is_ascii_hexdigit)
}

/// gVisor says the same of itself on every machine.
fn is_gvisor(kernel_version: &[u8]) -> bool {
    kernel_version.starts_with(b"Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016")
        || kernel_version.windows(6).any(|window| window == b"gvisor")
}

fn has_network_files_mounted(mounts: &[Mount]) -> bool {
    ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"]
        .iter()
        .all(|file| mounts.iter().any(|mount| mount.point.as_bytes() == file.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::super::mounts::tests::CONTAINER;
    use super::*;

    const OVERLAY_ROOT: &[u8] = b"27 1 0:40 / / rw - overlay overlay rw,lowerdir=/l\n";
    const DEVICE_ROOT: &[u8] = b"1 1 0:1 / / rw - rootfs rootfs rw\n27 1 254:0 / / rw - ext4 /dev/vda rw\n";
    const PART_ROOT: &[u8] = b"27 1 254:0 /containers/1/rootfs / rw - ext4 /dev/vda rw\n";
    const MACHINE: Surroundings = Surroundings::Machine { despite: None };

    fn nothing() -> Facts {
        Facts { cgroup: b"0::/user.slice/session-1.scope\n".to_vec(), ..Facts::default() }
    }

    #[test]
    fn marks() {
        let cgroup = |path: &str| Facts { cgroup: path.into(), ..nothing() };
        for (facts, mark) in [
            (Facts { has_docker_env: true, ..nothing() }, Mark::DockerEnv),
            (Facts { has_container_env: true, ..nothing() }, Mark::ContainerEnv),
            (Facts { has_container_variable: true, ..nothing() }, Mark::Variable),
            (Facts { has_kubernetes_variable: true, ..nothing() }, Mark::Kubernetes),
            (cgroup("12:pids:/docker/0123456789abcdef\n0::/\n"), Mark::ControlGroup),
            (cgroup("0::/system.slice/docker-0123456789abcdef.scope\n"), Mark::ControlGroup),
            (cgroup("1:cpu:/kubepods.slice/kubepods-burstable.slice/x\n"), Mark::ControlGroup),
            (cgroup("4:memory:/machine.slice/libpod-abcdef0123456789.scope/container\n"), Mark::ControlGroup),
            (Facts { has_proc_gvisor: true, ..nothing() }, Mark::Gvisor),
            (
                Facts {
                    kernel_version: b"Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016\n".to_vec(),
                    ..nothing()
                },
                Mark::Gvisor,
            ),
            (Facts { mountinfo: CONTAINER.to_vec(), ..nothing() }, Mark::NetworkFiles),
            // a container that shares the machine's processes still has a root of its own
            (
                Facts {
                    has_docker_env: true,
                    mountinfo: OVERLAY_ROOT.to_vec(),
                    second_process: b"kthreadd\n".to_vec(),
                    ..nothing()
                },
                Mark::DockerEnv,
            ),
            (
                Facts {
                    has_docker_env: true,
                    mountinfo: PART_ROOT.to_vec(),
                    second_process: b"kthreadd\n".to_vec(),
                    ..nothing()
                },
                Mark::DockerEnv,
            ),
            // a container in a small virtual machine whose disk it has whole
            (
                Facts {
                    has_kubernetes_variable: true,
                    mountinfo: DEVICE_ROOT.to_vec(),
                    second_process: b"sh\n".to_vec(),
                    ..nothing()
                },
                Mark::Kubernetes,
            ),
        ] {
            assert_eq!(facts.surroundings(), Surroundings::Container(mark), "{facts:?}");
        }
    }

    #[test]
    fn machines() {
        for facts in [
            Facts::default(),
            nothing(),
            Facts { mountinfo: OVERLAY_ROOT.to_vec(), ..nothing() },
            Facts { cgroup: b"0::/system.slice/docker.service\n".to_vec(), ..nothing() },
            Facts { cgroup: b"0::/system.slice/docker-compose.service\n".to_vec(), ..nothing() },
            Facts { kernel_version: b"Linux version 6.1.0 (gcc)\n".to_vec(), ..nothing() },
            Facts { mountinfo: b"1 1 0:1 /h /etc/hosts rw - ext4 /dev/vda rw\n".to_vec(), ..nothing() },
        ] {
            assert_eq!(facts.surroundings(), MACHINE, "{facts:?}");
        }
    }

    #[test]
    fn a_mark_left_on_a_machine_does_not_count() {
        let facts = Facts {
            has_docker_env: true,
            mountinfo: DEVICE_ROOT.to_vec(),
            second_process: b"kthreadd\n".to_vec(),
            ..nothing()
        };
        assert_eq!(facts.surroundings(), Surroundings::Machine { despite: Some(Mark::DockerEnv) });
    }

    #[test]
    fn the_environment_is_asked_by_name() {
        let only = |wanted: &'static str, value: &'static str| {
            Facts::read(move |name| (name == wanted).then(|| OsString::from(value))).expect("a proc file system")
        };
        assert!(only("container", "podman").has_container_variable);
        assert!(!only("container", "").has_container_variable);
        assert!(only("KUBERNETES_SERVICE_HOST", "10.0.0.1").has_kubernetes_variable);
        assert!(!only("KUBERNETES_SERVICE_HOST", "10.0.0.1").has_container_variable);
    }
}
