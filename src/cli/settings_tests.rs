use super::super::flags::parse;
use super::super::report;
use super::*;
use crate::build::{ContextSource, DockerfilePlace, NamedSource};
use crate::context::git::{History, Revision};
use crate::http::FilePlace;
use crate::registry::LayoutPlace;
use crate::rootfs::container::Mark;
use crate::snapshot::{ChangeTracker, SnapshotMode};

pub(in super::super) type Variables<'a> = &'a [(&'a str, &'a str)];

fn read(arguments: &str, variables: Variables<'_>) -> Result<Settings, Error> {
    let words = std::iter::once("executor").chain(arguments.split_whitespace());
    let flags = parse(words.map(Into::into)).unwrap_or_else(|error| panic!("{arguments}: {error}"));
    let variable = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
    settings(&flags, &variable, Surroundings::Container(Mark::DockerEnv), &Bars::hidden())
}

pub(in super::super) fn request(arguments: &str, variables: Variables<'_>) -> Request {
    read(&format!("--no-push {arguments}"), variables)
        .unwrap_or_else(|error| panic!("{arguments}: {}", report::chain(&error)))
        .request
}

fn refused(arguments: &str, variables: Variables<'_>) -> String {
    match read(arguments, variables) {
        Ok(_) => panic!("{arguments} is accepted"),
        Err(error) => report::chain(&error),
    }
}

#[test]
fn defaults() {
    let request = read("-d r.example/a", &[]).unwrap_or_else(|error| panic!("{error}")).request;
    assert_eq!(request.context, ContextSource::Directory("/workspace/".into()));
    assert_eq!(request.dockerfile, DockerfilePlace::Usual);
    assert_eq!(request.work_dir, Path::new("/kaniko"));
    assert_eq!(request.snapshot, SnapshotSettings::default());
    assert_eq!(request.compression, Compression::default());
    assert!(request.ignore_var_run && request.output.push);
    assert!(!request.in_place.force && !request.in_place.pre_cleanup && !request.cleanup && !request.reproducible);
    assert_eq!(request.output.destinations[0].tagged(), "r.example/a:latest");
    assert_eq!(request.http.extra_ca_directories, [Path::new("/kaniko/ssl/certs")]);
    assert_eq!(request.http.user_agent, concat!("kanna/", env!("CARGO_PKG_VERSION")));
}

#[test]
fn stages_at_the_same_time() {
    let jobs = |arguments: &str, variables| request(arguments, variables).jobs.get();
    // in place there is one root
    assert_eq!((jobs("", &[]), jobs("--jobs=4", &[])), (1, 1));
    assert_eq!(jobs("--isolation=namespaces --kaniko-dir=/w --jobs=4", &[]), 4);
    assert_eq!(jobs("--isolation=namespaces --kaniko-dir=/w", &[("GOMAXPROCS", "1")]), 1);
    let many = jobs("--isolation=namespaces --kaniko-dir=/w", &[("GOMAXPROCS", "100000")]);
    assert!((1..100_000).contains(&many), "no machine has memory for {many} stages");
    for (mebibytes, wanted) in [(0, 1), (256, 1), (1023, 1), (1024, 2), (16 * 1024, 32)] {
        assert_eq!(jobs_in(mebibytes << 20).get(), wanted, "{mebibytes} MiB");
    }
}

#[test]
fn contexts() {
    let directory = |path: &str| ContextSource::Directory(path.into());
    for (typed, meant) in [
        ("/c", directory("/c")),
        ("dir:///c/d", directory("/c/d")),
        ("relative", ContextSource::Directory(std::env::current_dir().expect("there is one").join("relative"))),
        ("tar:///c.tar.gz", ContextSource::Tar("/c.tar.gz".into())),
        ("tar://c.tar", ContextSource::Tar(std::env::current_dir().expect("there is one").join("c.tar"))),
        ("tar://stdin", ContextSource::TarStdin),
    ] {
        assert_eq!(request(&format!("--context={typed}"), &[]).context, meant, "{typed}");
    }
    for (typed, told) in [
        ("", "please specify a path to the build context"),
        ("dir://", "please specify a path to the build context"),
        ("gs://b/c.tar.gz", "--context: a context of the form gs://… is not supported yet"),
        ("git://", "please specify a path to the build context"),
        ("git://h/r#a#b", "invalid value \"git://h/r#a#b\" for --context: "),
        ("git@h:r.git", "invalid value \"git@h:r.git\" for --context: "),
        ("https://h/r.git?no=key", "invalid value \"https://h/r.git?no=key\" for --context: "),
        ("https://h/c.tar.gz", "--context: a context of the form https://… is not supported yet"),
        ("ftp://h/c", "unknown build context prefix ftp://"),
    ] {
        let text = refused(&format!("--no-push --context={typed}"), &[]);
        assert!(text.starts_with(told), "{typed}: {text}");
    }
}

#[test]
fn contexts_from_repositories() {
    let read = |arguments: &str, variables: &[(&str, &str)]| match request(arguments, variables).context {
        ContextSource::Repository(repository) => *repository,
        other => panic!("{arguments}: {other:?}"),
    };
    let address = |text: &str| text.parse::<http::Address>().expect(text);
    let found = read("--context=git://h/r#refs/heads/b --git=branch=c,recurse-submodules=true", &[]);
    assert_eq!(found.address, address("https://h/r"));
    assert_eq!(found.revision, Revision::Reference("refs/heads/b".to_owned()));
    assert_eq!((found.keeps_git_directory, found.has_submodules, found.history), (Some(true), true, History::Whole));
    let found = read("--context=https://h/r.git --git=branch=c,insecure-skip-tls=true", &[]);
    assert_eq!(found.revision, Revision::Reference("c".to_owned()));
    assert_eq!((found.keeps_git_directory, found.history, found.skips_verify), (None, History::NONE, true));
    for (context, value, kept) in [("https://h/r.git", "1", true), ("git://h/r", "false", false)] {
        let arguments = format!("--context={context} --build-arg=BUILDKIT_CONTEXT_KEEP_GIT_DIR={value}");
        assert_eq!(read(&arguments, &[]).keeps_git_directory, Some(kept), "{context}");
    }
    assert_eq!(request("-f -", &[]).dockerfile, DockerfilePlace::Stdin);
    assert!(refused("--no-push -f - --context=tar://stdin", &[]).contains("both read standard input"));
    for (context, variables, meant) in [
        ("git://h/r", &[("GIT_TOKEN", "t")][..], "https://t@h/r"),
        ("git://h/r", &[("GIT_USERNAME", "u"), ("GIT_PASSWORD", "p")], "https://u:p@h/r"),
        ("git://h/r", &[("GIT_USERNAME", "u"), ("GIT_PASSWORD", "p"), ("GIT_TOKEN", "t")], "https://t@h/r"),
        ("git://own@h/r", &[("GIT_TOKEN", "t")], "https://own@h/r"),
        ("git://h/r", &[("GIT_PULL_METHOD", "http"), ("GIT_TOKEN", "")], "http://h/r"),
        ("https://h/r.git", &[("GIT_TOKEN", "t")], "https://t@h/r.git"),
    ] {
        assert_eq!(read(&format!("--context={context}"), variables).address, address(meant), "{context} {variables:?}");
    }
    let text = refused("--no-push --context=git://h/r", &[("GIT_PULL_METHOD", "ssh")]);
    assert!(text.contains("https or http"), "{text}");
    for git in ["branches=b", "depth=all", "single-branch=no"] {
        let text = refused(&format!("--no-push --context=git://h/r --git={git}"), &[]);
        assert!(text.starts_with(&format!("invalid value \"{git}\" for --git: ")), "{text}");
    }
}

#[test]
fn where_the_image_goes() {
    assert_eq!(refused("", &[]), "you must provide --destination, or use --no-push");
    assert_eq!(refused("--tar-path=/t", &[]), "you must provide --destination, or use --no-push");
    let output = request("-d a -d b:1 --tar-path /t --oci-layout-path /o", &[]).output;
    assert!(!output.push);
    assert_eq!((output.tarball, output.oci_layout), (Some("/t".into()), Some("/o".into())));
    assert_eq!(output.destinations.len(), 2);
    assert!(refused("-d UPPER", &[]).starts_with("invalid value \"UPPER\" for --destination: "));
    assert!(refused("-d Team/app", &[]).contains("must be lowercase"));
    let digest = "a".repeat(64);
    assert!(refused(&format!("-d a@sha256:{digest}"), &[]).contains("pushed under a tag"));
}

#[test]
fn paths_mean_what_they_mean_at_the_start() {
    let here = std::env::current_dir().expect("there is one");
    let arguments = "-d a --tar-path t --oci-layout-path o/p --digest-file=d --kaniko-dir k";
    let settings = read(arguments, &[("BUILDER_OUTPUT", "b")]).unwrap_or_else(|error| panic!("{error}"));
    let Settings { request, results, .. } = settings;
    assert_eq!((request.output.tarball, request.output.oci_layout), (Some(here.join("t")), Some(here.join("o/p"))));
    assert_eq!(
        (results.digest_file, results.builder_output),
        (Some(FilePlace::Path(here.join("d"))), Some(here.join("b")))
    );
    assert_eq!(request.work_dir, here.join("k"));
    assert_eq!(request.dockerfile, DockerfilePlace::Usual);
    let named = self::request("-f d", &[]).dockerfile;
    assert_eq!(named, DockerfilePlace::Named(FilePlace::Path("d".into())), "looked for in two places");
}

#[test]
fn a_check_goes_nowhere() {
    let settings = read("--call=check", &[]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(settings.call, Call::Check);
    let settings = read("--call=check -d a --digest-file=d", &[]).unwrap_or_else(|error| panic!("{error}"));
    assert!(!settings.request.output.push);
    assert_eq!(read("-d a --call=build", &[]).map(|settings| settings.call).ok(), Some(Call::Build));
    assert!(refused("-d a --call=outline", &[]).starts_with("--call: the method outline is not supported yet"));
    assert!(refused("-d a --call=lint", &[]).contains("build or check"));
}

#[test]
fn annotations_need_a_format_that_has_them() {
    let format = |arguments: &str| request(arguments, &[]).image_format;
    assert_eq!(format(""), None);
    assert_eq!(format("--image-format="), None);
    assert_eq!(format("--image-format=docker"), Some(Format::Docker));
    assert_eq!(format("--image-format=oci --annotation a=b"), Some(Format::Oci));
    assert_eq!(format("--annotation a=b"), Some(Format::Oci));
    assert!(refused("-d a --annotation a=b --image-format=docker", &[]).contains("--image-format=oci"));
    assert!(refused("-d a --image-format=tar", &[]).contains("docker or oci is wanted"));
    assert!(refused("-d a --annotation a", &[]).contains("NAME=VALUE"));
    let annotations = request("--annotation a=b=c --annotation d=", &[]).annotations;
    assert_eq!(annotations, [("a".to_owned(), "b=c".to_owned()), ("d".to_owned(), String::new())].into());
}

#[test]
fn empty_values_are_as_good_as_none() {
    let arguments = "--registry-mirror= --registry-map= --insecure-registry= --skip-tls-verify-registry= \
                     --registry-certificate= --registry-client-cert= --tar-path= --oci-layout-path= --kaniko-dir= \
                     --target= --custom-platform= --context-sub-path=";
    let variables: Variables<'_> = &[("KANIKO_REGISTRY_MIRROR", ""), ("KANIKO_REGISTRY_MAP", ""), ("KANIKO_DIR", "")];
    let request = request(arguments, variables);
    let registry = &request.registry;
    assert!(registry.mirrors.is_empty() && registry.map.is_empty());
    assert!(registry.insecure_registries.is_empty() && registry.skip_tls_verify_registries.is_empty());
    assert!(request.http.authorities.is_empty() && request.http.identities.is_empty());
    assert!(request.output.tarball.is_none() && request.output.oci_layout.is_none() && request.target.is_none());
    assert_eq!(request.work_dir, Path::new("/kaniko"));
}

#[test]
fn no_push_by_variable() {
    for (arguments, variable, push) in
        [("-d a", "true", false), ("-d a", "0", true), ("-d a --no-push", "false", true), ("", "T", false)]
    {
        let settings = read(arguments, &[("KANIKO_NO_PUSH", variable)]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(settings.request.output.push, push, "{arguments} {variable}");
    }
    assert!(refused("-d a", &[("KANIKO_NO_PUSH", "maybe")]).contains("KANIKO_NO_PUSH"));
}

#[test]
fn build_arguments_and_labels() {
    let variables: Variables<'_> = &[("SET", "from outside"), ("EMPTY", "")];
    let arguments = "--build-arg A=1=2 --build-arg SET --build-arg EMPTY --build-arg UNSET --build-arg B=";
    let meant: Vec<(String, Option<&str>)> =
        [("A", Some("1=2")), ("SET", Some("from outside")), ("EMPTY", Some("")), ("UNSET", None), ("B", Some(""))]
            .map(|(name, value)| (name.to_owned(), value))
            .into();
    let resolved = request(arguments, variables).build_args;
    assert_eq!(resolved.iter().map(|(name, value)| (name.clone(), value.as_deref())).collect::<Vec<_>>(), meant);
    let labels = request("--label a=b --label c=d=e --label f=", &[]).labels;
    assert_eq!(labels, [("a", "b"), ("c", "d=e"), ("f", "")].map(|(key, value)| (key.to_owned(), value.to_owned())));
    assert_eq!(refused("--no-push --label a", &[]), "invalid value \"a\" for --label: it has the form NAME=VALUE");
}

#[test]
fn values_that_have_a_type() {
    let meant = request("--custom-platform=linux/arm/v6 --snapshot-mode=redo --single-snapshot", &[]);
    assert_eq!(meant.platform.map(|platform| platform.to_string()).as_deref(), Some("linux/arm/v6"));
    let snapshot = SnapshotSettings { mode: SnapshotMode::Redo, single: true, ..SnapshotSettings::default() };
    assert_eq!(meant.snapshot, snapshot);
    for (typed, tracker, verify) in [
        ("--change-tracker=inotify", ChangeTracker::Inotify, false),
        ("--change-tracker walk --verify-snapshots", ChangeTracker::Walk, true),
        ("--use-new-run", ChangeTracker::Walk, false),
        ("--use-new-run --change-tracker=inotify", ChangeTracker::Inotify, false),
    ] {
        let meant = request(typed, &[]).snapshot;
        assert_eq!(meant, SnapshotSettings { tracker, verify, ..SnapshotSettings::default() }, "{typed}");
    }
    let ignored = request("--ignore-path=/a/ --ignore-path b/../c --ignore-path=", &[]).ignore_paths;
    assert_eq!(ignored, [ImagePath::clean("/a"), ImagePath::clean("/c")]);
    for (typed, told) in [
        ("--custom-platform=nonsense", "for --custom-platform: "),
        ("--snapshot-mode=fast", "for --snapshot-mode: "),
        ("--change-tracker=dtrace", "for --change-tracker: "),
        ("--compression=estargz", "for --compression: gzip, zstd or none is wanted"),
        ("--compression-level=10", "for --compression-level: gzip's levels are 0 to 9, and -1 for the default"),
        ("--compression=zstd --compression-level=23", "for --compression-level: zstd's levels are 0 to 22"),
        ("--compression=none --compression-level=0", "for --compression-level: what is not compressed has no level"),
    ] {
        let text = refused(&format!("--no-push {typed}"), &[]);
        assert!(text.contains(told), "{typed}: {text}");
    }
}

#[test]
fn compressions() {
    for (typed, method, level, format) in [
        ("", Method::Gzip, -1, None),
        ("--compression= --compression-level=9", Method::Gzip, 9, None),
        ("--compression=gzip --image-format=docker", Method::Gzip, -1, Some(Format::Docker)),
        ("--compression=zstd", Method::Zstd, -1, Some(Format::Oci)),
        ("--compression=zstd --compression-level=22 --image-format=oci", Method::Zstd, 22, Some(Format::Oci)),
        ("--compression=none", Method::None, -1, None),
        ("--compression=none --image-format=docker", Method::None, -1, Some(Format::Docker)),
    ] {
        let meant = request(typed, &[]);
        assert_eq!((Ok(meant.compression), meant.image_format), (method.at_level(level), format), "{typed}");
    }
    let text = refused("--no-push --compression=zstd --image-format=docker", &[]);
    assert!(text.starts_with("--compression=zstd: ") && text.contains("give --image-format=oci"), "{text}");
}

#[test]
fn threads_by_variable() {
    let usual = request("", &[]).threads;
    for (variable, meant) in [("3", Some(3)), ("16", Some(16)), ("0", None), ("-1", None), ("", None), ("many", None)] {
        let threads = request("", &[("GOMAXPROCS", variable)]).threads;
        assert_eq!(threads.get(), meant.unwrap_or(usual.get()), "{variable:?}");
    }
}

#[test]
fn source_date_epoch_by_variable() {
    for (variable, meant) in [("1700000000", Some(1_700_000_000)), ("0", Some(0)), ("", None)] {
        assert_eq!(request("", &[("SOURCE_DATE_EPOCH", variable)]).source_date_epoch, meant, "{variable:?}");
    }
    assert!(refused("--no-push", &[("SOURCE_DATE_EPOCH", "yesterday")]).contains("SOURCE_DATE_EPOCH"));
}

#[test]
fn registries() {
    let variables: Variables<'_> = &[
        ("KANIKO_REGISTRY_MAP", "c=4;a=5"),
        ("KANIKO_REGISTRY_MIRROR", "third"),
        ("UPSTREAM_CLIENT_TYPE", "skaffold"),
    ];
    let arguments = "--registry-map a=1;a=https://2/path; --registry-map b=3 --registry-mirror first \
                     --registry-mirror=second --registry-certificate=r=/ca.pem \
                     --registry-certificate=docker.io=/hub.pem \
                     --registry-client-cert r:5000=/c.pem,/k.pem --insecure-registry x --insecure-registry y \
                     --skip-tls-verify-registry z --insecure --skip-tls-verify-pull --push-retry=3 \
                     --image-download-retry 2 --skip-default-registry-fallback";
    let request = request(arguments, variables);
    let settings = request.registry;
    let map: Vec<(&str, String)> = settings.map.iter().map(|(name, others)| (&**name, others.join(" "))).collect();
    assert_eq!(map, [("a", "1 https://2/path 5".to_owned()), ("b", "3".to_owned()), ("c", "4".to_owned())]);
    assert_eq!(settings.mirrors, ["first", "second", "third"]);
    let hub = self::request("--registry-map=index.docker.io=1;docker.io=2", &[]).registry.map;
    assert_eq!(hub.into_values().collect::<Vec<_>>(), [["1", "2"]], "one registry by two names, in the order given");
    assert_eq!(request.http.authorities["r"], Path::new("/ca.pem"));
    assert_eq!(request.http.authorities["index.docker.io"], Path::new("/hub.pem"));
    assert_eq!(request.http.identities["r:5000"], ("/c.pem".into(), "/k.pem".into()));
    assert_eq!(
        (settings.insecure_registries.join(" "), settings.skip_tls_verify_registries.join(" ")),
        ("x y".into(), "z".into())
    );
    assert!(settings.insecure_push && !settings.insecure_pull && settings.skip_default_fallback);
    assert!(!settings.skip_tls_verify_push && settings.skip_tls_verify_pull);
    assert_eq!((settings.push_retry, settings.download_retry), (3, 2));
    assert!(request.http.user_agent.ends_with(",skaffold"), "{}", request.http.user_agent);
    for (typed, told) in [
        ("--registry-map a", "for --registry-map: it has the form NAME=VALUE"),
        ("--registry-client-cert r=/only", "for --registry-client-cert: it has the form REGISTRY=CERTIFICATE,KEY"),
    ] {
        assert!(refused(&format!("--no-push {typed}"), &[]).contains(told), "{typed}");
    }
}

#[test]
fn the_variable_may_name_the_file_itself() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let variable = file.path().to_str().expect("UTF-8");
    let request = request("", &[("DOCKER_CONFIG", variable)]);
    assert_eq!(request.docker_config_files, [file.path(), Path::new("/kaniko/.docker/config.json")]);
}

#[test]
fn the_work_directory_moves_what_points_into_it() {
    for (arguments, variables, work_dir, config_files) in [
        ("", &[("HOME", "/root")][..], "/kaniko", &["/root/.docker/config.json", "/kaniko/.docker/config.json"][..]),
        ("", &[("DOCKER_CONFIG", "/kaniko/.docker/")], "/kaniko", &["/kaniko/.docker/config.json"]),
        (
            "",
            &[("DOCKER_CONFIG", "/c"), ("HOME", "/root")],
            "/kaniko",
            &["/c/config.json", "/kaniko/.docker/config.json"],
        ),
        (
            "",
            &[("DOCKER_CONFIG", "/kaniko/.docker/"), ("KANIKO_DIR", "/k")],
            "/k",
            &["/k/.docker/config.json", "/kaniko/.docker/config.json"],
        ),
        (
            "--kaniko-dir=/flag",
            &[("KANIKO_DIR", "/k")],
            "/flag",
            &["/flag/.docker/config.json", "/kaniko/.docker/config.json"],
        ),
    ] {
        let request = request(arguments, variables);
        assert_eq!(request.work_dir, Path::new(work_dir), "{arguments} {variables:?}");
        let expected: Vec<&Path> = config_files.iter().map(Path::new).collect();
        assert_eq!(request.docker_config_files, expected, "{arguments} {variables:?}");
    }
}

#[test]
fn where_the_root_is() {
    let container = Surroundings::Container(Mark::Kubernetes);
    let machine = Surroundings::Machine { despite: None };
    for (typed, surroundings, isolation, work_dir) in [
        ("", &container, Isolation::InPlace, "/kaniko"),
        ("--isolation=auto", &container, Isolation::InPlace, "/kaniko"),
        ("--isolation=namespaces", &container, Isolation::Namespaces, "/home/me/.cache/kanna"),
        ("", &machine, Isolation::Namespaces, "/home/me/.cache/kanna"),
        ("--kaniko-dir=/k", &machine, Isolation::Namespaces, "/k"),
        ("--isolation=in-place", &machine, Isolation::InPlace, "/kaniko"),
    ] {
        let words = format!("executor --no-push {typed}");
        let flags = parse(words.split_whitespace().map(Into::into)).expect("proper flags");
        let variable = |name: &str| (name == "HOME").then(|| "/home/me".into());
        let read = settings(&flags, &variable, surroundings.clone(), &Bars::hidden());
        let request = read.unwrap_or_else(|error| panic!("{typed}: {error}")).request;
        assert_eq!((request.isolation, request.work_dir.as_path()), (isolation, Path::new(work_dir)), "{typed}");
    }
    assert!(refused("--no-push --isolation=chroot", &[]).contains("auto, in-place or namespaces"));
    let with_call = |call: &str, variables: Variables<'_>| {
        let flags = parse(["executor", "--no-push", call].map(Into::into)).expect("proper flags");
        let variable = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        settings(&flags, &variable, machine.clone(), &Bars::hidden()).map(|settings| settings.request.work_dir)
    };
    let work_dir = |variables: Variables<'_>| with_call("--call=build", variables);
    let with_both = work_dir(&[("XDG_CACHE_HOME", "/c"), ("HOME", "/h")]);
    assert_eq!(with_both.expect("a directory"), Path::new("/c/kanna"));
    assert_eq!(
        work_dir(&[("XDG_CACHE_HOME", "c"), ("HOME", "/h")]).expect("a directory"),
        Path::new("/h/.cache/kanna")
    );
    assert!(work_dir(&[]).expect_err("nobody's directory").to_string().contains("--kaniko-dir"));
    assert!(with_call("--call=check", &[]).is_ok(), "nothing is written");
}

#[test]
fn result_files_need_what_they_tell_of() {
    let files = read("-d a --digest-file /d --image-name-with-digest-file=/n", &[("BUILDER_OUTPUT", "/b")]);
    let files = files.unwrap_or_else(|error| panic!("{error}")).results;
    assert_eq!(files.digest_file, Some(FilePlace::Path("/d".into())));
    assert_eq!(files.image_name_with_digest_file, Some(FilePlace::Path("/n".into())));
    assert_eq!(files.builder_output.as_deref(), Some(Path::new("/b")));
    let nothing_pushed = read("-d a --no-push", &[("BUILDER_OUTPUT", "/b")]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(nothing_pushed.results, ResultFiles::default());
    let told = "you must provide --destination if setting --image-name-tag-with-digest-file";
    assert_eq!(refused("--no-push --image-name-tag-with-digest-file=/n", &[]), told);
}

#[test]
fn files_on_servers() {
    let address = |text: &str| FilePlace::Address(text.parse().expect("an address"));
    let settings = read("--no-push -f https://h/D --digest-file=http://h:1/d?run=1", &[]);
    let settings = settings.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(settings.request.dockerfile, DockerfilePlace::Named(address("https://h/D")));
    assert_eq!(settings.results.digest_file, Some(address("http://h:1/d?run=1")));
    for flag in ["digest-file", "image-name-with-digest-file", "image-name-tag-with-digest-file", "dockerfile"] {
        let text = refused(&format!("--no-push -d a --{flag}=https://"), &[]);
        assert!(text.contains(&format!("invalid value \"https://\" for --{flag}: ")), "{text}");
    }
}

#[test]
fn named_contexts() {
    let arguments = "--build-context a=/a --build-context=b=dir:///b/c --build-context a:1=docker-image://r.example/x \
                     --build-context t=https://h/t.tar.gz --build-context=e=rel --build-context g=https://h/r.git#v1 \
                     --build-context l=oci-layout://rel:v1";
    let named = request(arguments, &[]).named_contexts;
    let files = |path: &str| NamedSource::Files(FilePlace::Path(path.into()));
    let relative = std::path::absolute("rel").expect("a current directory");
    let layout = LayoutPlace { directory: relative.clone(), name: Some("v1".to_owned()), digest: None };
    let meant = [
        ("docker.io/library/a:latest", files("/a")),
        ("docker.io/library/b:latest", files("/b/c")),
        ("docker.io/library/a:1", NamedSource::Image("r.example/x:latest".parse().expect("a reference"))),
        (
            "docker.io/library/t:latest",
            NamedSource::Files(FilePlace::Address("https://h/t.tar.gz".parse().expect("an address"))),
        ),
        ("docker.io/library/e:latest", NamedSource::Files(FilePlace::Path(relative))),
        (
            "docker.io/library/g:latest",
            NamedSource::Repository(Box::new("https://h/r.git#v1".parse().expect("a repository"))),
        ),
        ("docker.io/library/l:latest", NamedSource::Layout(layout)),
    ];
    let named: Vec<_> = named.into_iter().map(|context| (context.name.to_string(), context.source)).collect();
    assert_eq!(named, meant.map(|(name, source)| (name.to_owned(), source)));
    for (typed, told) in [
        ("a", "it has the form NAME=VALUE"),
        ("A=/a", "for --build-context: "),
        ("a=docker-image://", "for --build-context: "),
        ("a=https://", "for --build-context: "),
        ("a=https://h/r.git?no=key", "has no \"no\""),
        ("a=git@h:r", "not by ssh"),
        ("a=oci-layout:///l@v1", "for --build-context: "),
        ("a=s3://b/l", "a context of the form s3://… is not supported yet"),
    ] {
        let text = refused(&format!("--no-push --build-context {typed}"), &[]);
        assert!(text.contains(told), "{typed}: {text}");
    }
}

#[test]
fn log_settings_as_typed() {
    let read = |arguments: &str| {
        let words = std::iter::once("executor").chain(arguments.split_whitespace());
        log_settings(&parse(words.map(Into::into)).expect("proper flags"))
    };
    let settings = read("-v debug --log-format=json --log-timestamp").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((settings.format, settings.timestamps), (LogFormat::Json, true));
    assert_eq!(read("").unwrap_or_else(|error| panic!("{error}")).format, LogFormat::Auto);
    assert!(read("--verbosity=loud").is_err());
    assert!(read("--log-format=xml").is_err());
}
