//! May `/` be replaced? The one guard before a build in place.
//!
//! The root of the executor image holds next to nothing: what the image brings, what container runtimes put there, and
//! mounts. [`unexpected`] names all else; [`admit`] weighs it and alone gives out the [`InPlacePermit`] without which
//! nothing builds or deletes in place.

use super::container::{Mark, Surroundings};
use super::{Directory, Error, Ignored, Root};
use crate::sys::Errno;
use crate::sys::fs::FileType;
use crate::tree::ImagePath;

/// How many unexpected paths a refusal names.
const PATHS_NAMED: usize = 5;

/// What may be found at a path of a pristine root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// Anything, with all below it.
    Tree,
    /// A directory; what it holds is looked at.
    Directory,
    /// Anything but a directory.
    File,
    /// A symlink to the debug image's busybox.
    BusyboxLink,
    /// The directories of mounted libraries, as the runtime of a GPU names them to the linker.
    LinkerLists,
}

/// In the names of the files that NVIDIA's runtime puts into `/etc/ld.so.conf.d`.
const NVIDIA_LINKER_LIST: &[u8] = b"nvcr-";

/// What the image and container runtimes put into a root (COMPAT: "Image"; what podman, CRI-O, Docker and Kubernetes
/// were seen to add to an image that holds nothing). `/root` and `/tmp` are where tools beside us leave their traces.
const EXPECTED: [(&str, Expected); 29] = [
    ("/.dockerenv", Expected::File),
    ("/bin", Expected::Directory),
    ("/bin/sh", Expected::BusyboxLink),
    ("/busybox", Expected::Tree),
    ("/busybox2", Expected::Tree),
    ("/cache", Expected::Tree),
    ("/dev", Expected::Tree),
    ("/etc", Expected::Directory),
    ("/etc/group", Expected::File),
    ("/etc/hostname", Expected::File),
    ("/etc/hosts", Expected::File),
    ("/etc/ld.so.cache", Expected::File),
    ("/etc/ld.so.conf", Expected::File),
    ("/etc/ld.so.conf.d", Expected::LinkerLists),
    ("/etc/localtime", Expected::File),
    ("/etc/mtab", Expected::File),
    ("/etc/nsswitch.conf", Expected::File),
    ("/etc/passwd", Expected::File),
    ("/etc/resolv.conf", Expected::File),
    ("/kaniko", Expected::Tree),
    ("/proc", Expected::Tree),
    ("/root", Expected::Tree),
    ("/run", Expected::Tree),
    ("/secret", Expected::Tree),
    ("/sys", Expected::Tree),
    ("/tmp", Expected::Tree),
    ("/var", Expected::Directory),
    ("/var/run", Expected::Tree),
    ("/workspace", Expected::Tree),
];

/// The paths of the root that neither the executor image nor a container runtime puts there, sorted; of a tree only its
/// top. Mount points and the work directory (all that `ignored` calls untouchable), what leads to them and symlinks that end
/// there (a runtime mounts the driver of a GPU file by file, and names its libraries by links) are expected.
pub fn unexpected(root: &Root, ignored: &Ignored) -> Result<Vec<ImagePath>, Error> {
    let mut survey = Survey { root, ignored, found: Vec::new() };
    survey.look_into(root.top())?;
    survey.found.sort();
    Ok(survey.found)
}

/// The search for what is unexpected.
struct Survey<'a> {
    root: &'a Root,
    ignored: &'a Ignored,
    found: Vec<ImagePath>,
}

impl Survey<'_> {
    fn look_into(&mut self, directory: &Directory) -> Result<(), Error> {
        for (name, file_type) in directory.entries()? {
            let path = directory.path().join(&name);
            if self.ignored.is_untouchable(&path) {
                continue;
            }
            let is_directory = file_type == FileType::Directory;
            let expected =
                EXPECTED.iter().find(|(at, _)| at.as_bytes() == path.as_bytes()).map(|(_, expected)| *expected);
            match expected {
                Some(Expected::Tree) => {}
                Some(Expected::File) if !is_directory => {}
                Some(Expected::BusyboxLink) if is_busybox_link(directory, &name, file_type)? => {}
                Some(Expected::LinkerLists) if is_directory && holds_linker_lists(&directory.directory(&name)?)? => {}
                _ if is_directory
                    && (expected == Some(Expected::Directory) || self.ignored.leads_to_untouchable(&path)) =>
                {
                    match directory.directory(&name).and_then(|below| self.look_into(&below)) {
                        // what may not be looked at is somebody else's
                        Err(error) if error.errno() == Some(Errno::ACCESS) => self.found.push(path),
                        other => other?,
                    }
                }
                _ if file_type == FileType::Symlink && self.leads_away(&path) => {}
                _ => self.found.push(path),
            }
        }
        Ok(())
    }

    /// Does the symlink at `path` end at something that is not ours?
    fn leads_away(&self, path: &ImagePath) -> bool {
        self.root.resolve(path, true).is_ok_and(|at| self.ignored.is_untouchable(&at))
    }
}

fn holds_linker_lists(directory: &Directory) -> Result<bool, Error> {
    let is_list = |name: &[u8]| name.windows(NVIDIA_LINKER_LIST.len()).any(|part| part == NVIDIA_LINKER_LIST);
    Ok(directory.entries()?.iter().all(|(name, _)| is_list(name)))
}

fn is_busybox_link(directory: &Directory, name: &[u8], file_type: FileType) -> Result<bool, Error> {
    Ok(file_type == FileType::Symlink && directory.read_link(name)?.starts_with(b"/busybox"))
}

/// What the user said about a root in place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InPlaceRequest {
    /// `--force`: go on although this is no container, or although its root is not pristine; never both.
    pub force: bool,
    /// `--pre-cleanup`: remove first what is unexpected.
    pub pre_cleanup: bool,
}

/// Proof that the root may be replaced. Only [`admit`] gives one.
#[derive(Debug)]
pub struct InPlacePermit(());

/// Why the root must not be replaced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No container, and the root holds what somebody may need. No flag changes this.
    #[error(
        "build in place: this is no container{}, and / is in use, with {}",
        in_spite_of(*.despite),
        named(.unexpected)
    )]
    Machine {
        /// What is there.
        unexpected: Vec<ImagePath>,
        /// A mark of a container that turned out wrong.
        despite: Option<Mark>,
    },
    /// No container, though nothing would be lost.
    #[error("build in place: this is no container{}", in_spite_of(*.despite))]
    NotInContainer {
        /// A mark of a container that turned out wrong.
        despite: Option<Mark>,
    },
    /// A container whose root holds more than the executor image.
    #[error("build in place: the root of this container is not that of the executor image, it holds {}", named(.unexpected))]
    NotPristine {
        /// What is there.
        unexpected: Vec<ImagePath>,
    },
}

fn in_spite_of(mark: Option<Mark>) -> String {
    mark.map_or_else(String::new, |mark| format!(" (in spite of {mark})"))
}

fn named(unexpected: &[ImagePath]) -> String {
    let mut named: Vec<String> = unexpected.iter().take(PATHS_NAMED).map(ImagePath::to_string).collect();
    if unexpected.len() > PATHS_NAMED {
        named.push(format!("{} more", unexpected.len() - PATHS_NAMED));
    }
    named.join(", ")
}

/// Decides whether the root, in which `unexpected` was found, may be replaced. The in-place root was asked for: nothing
/// here chooses it. A real machine's root is refused whatever the flags say; only an empty one can be forced.
pub fn admit(
    surroundings: &Surroundings,
    unexpected: &[ImagePath],
    request: InPlaceRequest,
) -> Result<InPlacePermit, Refusal> {
    let is_pristine = unexpected.is_empty();
    match surroundings {
        Surroundings::Machine { despite } if !is_pristine => {
            Err(Refusal::Machine { unexpected: unexpected.to_vec(), despite: *despite })
        }
        Surroundings::Machine { despite } if !request.force => Err(Refusal::NotInContainer { despite: *despite }),
        Surroundings::Container(_) if !is_pristine && !request.force && !request.pre_cleanup => {
            Err(Refusal::NotPristine { unexpected: unexpected.to_vec() })
        }
        Surroundings::Machine { .. } | Surroundings::Container(_) => Ok(InPlacePermit(())),
    }
}

/// Removes what [`unexpected`] named (`--pre-cleanup`).
pub fn pre_cleanup(_permit: &InPlacePermit, root: &Root, unexpected: &[ImagePath]) -> Result<(), Error> {
    for path in unexpected.iter().filter(|path| !path.is_root()) {
        root.parent_directory(path)?.remove_tree(path.file_name())?;
    }
    Ok(())
}

/// Removes all that the build put into the root (`--cleanup`): what is neither untouchable nor leads to it, and was not
/// there before, as `was_there` knows.
pub fn cleanup(
    _permit: &InPlacePermit,
    root: &Root,
    ignored: &Ignored,
    was_there: &dyn Fn(&ImagePath) -> bool,
) -> Result<(), Error> {
    clean_out(root.top(), ignored, was_there)
}

fn clean_out(directory: &Directory, ignored: &Ignored, was_there: &dyn Fn(&ImagePath) -> bool) -> Result<(), Error> {
    for (name, file_type) in directory.entries()? {
        let path = directory.path().join(&name);
        if ignored.is_untouchable(&path) {
            continue;
        }
        let stays = was_there(&path) || ignored.leads_to_untouchable(&path);
        match (stays, file_type) {
            (true, FileType::Directory) => clean_out(&directory.directory(&name)?, ignored, was_there)?,
            (true, _) => {}
            (false, _) => drop(directory.remove_tree(&name)?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    const IN_CONTAINER: Surroundings = Surroundings::Container(Mark::ContainerEnv);
    const ON_MACHINE: Surroundings = Surroundings::Machine { despite: Some(Mark::DockerEnv) };

    fn request(force: bool, pre_cleanup: bool) -> InPlaceRequest {
        InPlaceRequest { force, pre_cleanup }
    }

    #[test]
    fn a_machine_in_use_is_refused_whatever_the_flags_say() {
        let in_use = [ImagePath::clean("/usr/bin")];
        for despite in [None, Some(Mark::DockerEnv)] {
            for flags in [request(false, false), request(true, false), request(false, true), request(true, true)] {
                let refusal = admit(&Surroundings::Machine { despite }, &in_use, flags).expect_err("never");
                assert_eq!(refusal, Refusal::Machine { unexpected: in_use.to_vec(), despite });
            }
        }
    }

    #[test]
    fn who_is_admitted() {
        let some = [ImagePath::clean("/lib")];
        let not_pristine = Some(Refusal::NotPristine { unexpected: some.to_vec() });
        let not_in_container = Some(Refusal::NotInContainer { despite: Some(Mark::DockerEnv) });
        for (surroundings, unexpected, flags, refusal) in [
            (IN_CONTAINER, &[][..], request(false, false), None),
            (IN_CONTAINER, &some, request(false, false), not_pristine),
            (IN_CONTAINER, &some, request(true, false), None),
            (IN_CONTAINER, &some, request(false, true), None),
            (ON_MACHINE, &[], request(false, false), not_in_container.clone()),
            (ON_MACHINE, &[], request(false, true), not_in_container),
            (ON_MACHINE, &[], request(true, false), None),
        ] {
            let found = admit(&surroundings, unexpected, flags).err();
            assert_eq!(found, refusal, "{surroundings:?} {unexpected:?} {flags:?}");
        }
    }

    #[test]
    fn refusals_name_five_paths() {
        let unexpected: Vec<ImagePath> = (1..=7).map(|n| ImagePath::clean(format!("/d{n}"))).collect();
        let text = Refusal::Machine { unexpected: unexpected.clone(), despite: Some(Mark::DockerEnv) }.to_string();
        assert_eq!(
            text,
            "build in place: this is no container (in spite of the file /.dockerenv), and / is in use, \
             with /d1, /d2, /d3, /d4, /d5, 2 more"
        );
        let text = Refusal::NotPristine { unexpected: unexpected[..5].to_vec() }.to_string();
        assert!(text.ends_with("it holds /d1, /d2, /d3, /d4, /d5"), "{text}");
    }

    /// A root as `podman run -v …` makes it of the debug image.
    fn container(place: &Path) -> (Root, Ignored) {
        for directory in ["etc", "kaniko/.docker", "workspace", "busybox", "bin", "proc", "sys", "dev", "run", "a/b/c"]
        {
            fs::create_dir_all(place.join(directory)).expect("made");
        }
        for file in ["etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/nsswitch.conf", "etc/passwd", "etc/group"] {
            fs::write(place.join(file), "").expect("written");
        }
        for file in [".dockerenv", "run/.containerenv", "kaniko/executor", "busybox/sh", "a/b/c/mounted", "dev/null"] {
            fs::write(place.join(file), "").expect("written");
        }
        symlink("/proc/mounts", place.join("etc/mtab")).expect("linked");
        symlink("/busybox/sh", place.join("bin/sh")).expect("linked");
        for directory in ["usr/lib/gpu", "etc/ld.so.conf.d"] {
            fs::create_dir_all(place.join(directory)).expect("made");
        }
        for file in ["usr/lib/gpu/libcuda.so.1.2", "etc/ld.so.cache", "etc/ld.so.conf.d/00-nvcr-123.conf"] {
            fs::write(place.join(file), "").expect("written");
        }
        symlink("libcuda.so.1.2", place.join("usr/lib/gpu/libcuda.so.1")).expect("linked");
        symlink("libcuda.so.1", place.join("usr/lib/gpu/libcuda.so")).expect("linked");
        let mut ignored = Ignored::new();
        for path in ["/kaniko", "/a/b/c", "/etc/hosts", "/proc", "/usr/lib/libgpu.so", "/usr/lib/gpu/libcuda.so.1.2"] {
            ignored.add_untouchable(ImagePath::clean(path));
        }
        (Root::open(place).expect("opened"), ignored)
    }

    #[test]
    fn a_container_is_pristine_until_something_is_added() {
        let place = tempfile::tempdir().expect("a directory");
        let (root, ignored) = container(place.path());
        assert_eq!(unexpected(&root, &ignored).expect("looked"), []);
        fs::create_dir_all(place.path().join("usr/lib/x86")).expect("made");
        fs::create_dir_all(place.path().join("etc/apt/deep")).expect("made");
        fs::create_dir_all(place.path().join("lib")).expect("made");
        for file in ["usr/lib/libgpu.so", "usr/lib/libc.so", "a/b/file", "bin/ls", "lib/x", "vmlinuz"] {
            fs::write(place.path().join(file), "").expect("written");
        }
        fs::write(place.path().join("etc/ld.so.conf.d/libc.conf"), "").expect("written");
        symlink("../libc.so", place.path().join("usr/lib/gpu/libc.so")).expect("linked");
        fs::remove_file(place.path().join("bin/sh")).expect("removed");
        symlink("dash", place.path().join("bin/sh")).expect("linked");
        fs::remove_file(place.path().join("etc/passwd")).expect("removed");
        fs::create_dir(place.path().join("etc/passwd")).expect("made");
        symlink("usr/sbin", place.path().join("sbin")).expect("linked");
        let found = unexpected(&root, &ignored).expect("looked");
        let expected = [
            "/a/b/file",
            "/bin/ls",
            "/bin/sh",
            "/etc/apt",
            "/etc/ld.so.conf.d",
            "/etc/passwd",
            "/lib",
            "/sbin",
            "/usr/lib/gpu/libc.so",
            "/usr/lib/libc.so",
            "/usr/lib/x86",
            "/vmlinuz",
        ];
        assert_eq!(found, expected.map(ImagePath::clean));

        let permit = admit(&IN_CONTAINER, &found, request(false, true)).expect("a container");
        pre_cleanup(&permit, &root, &found).expect("cleaned");
        assert_eq!(unexpected(&root, &ignored).expect("looked"), []);
        for kept in [
            "a/b/c/mounted",
            "usr/lib/libgpu.so",
            "usr/lib/gpu/libcuda.so",
            "kaniko/executor",
            "etc/hosts",
            "busybox/sh",
        ] {
            assert!(place.path().join(kept).exists(), "{kept}");
        }
    }

    #[test]
    fn cleanup_leaves_what_was_there() {
        let place = tempfile::tempdir().expect("a directory");
        let (root, ignored) = container(place.path());
        let before: Vec<ImagePath> =
            ["/etc", "/etc/hostname", "/.dockerenv", "/run", "/busybox", "/busybox/sh"].map(ImagePath::clean).to_vec();
        for file in ["etc/debian_version", "busybox/new", "a/new", "vmlinuz", "kaniko/blob"] {
            fs::write(place.path().join(file), "").expect("written");
        }
        let permit = admit(&IN_CONTAINER, &[], request(false, false)).expect("a container");
        cleanup(&permit, &root, &ignored, &|path| before.contains(path)).expect("cleaned");
        for kept in [".dockerenv", "etc/hosts", "etc/hostname", "busybox/sh", "kaniko/blob", "a/b/c/mounted", "proc"] {
            assert!(place.path().join(kept).exists(), "{kept}");
        }
        for gone in ["etc/debian_version", "busybox/new", "a/new", "vmlinuz", "run/.containerenv", "workspace", "dev"] {
            assert!(!place.path().join(gone).exists(), "{gone}");
        }
    }

    /// Whoever compiles this sits on a machine, or in a container that is not the executor's.
    #[test]
    fn where_tests_run_is_not_pristine() {
        let root = Root::open(Path::new("/")).expect("opened");
        let mut ignored = Ignored::new();
        let mountinfo = super::super::mounts::read().expect("a proc file system");
        super::super::mounts::ignore_mounts(&mut ignored, &mountinfo, root.place());
        assert!(!unexpected(&root, &ignored).expect("looked").is_empty());
    }
}
