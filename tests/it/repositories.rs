//! Files from git repositories, in a container, beside git's own server: ADD, `--context` and `--build-context`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use kanna::oci::Digest;

use crate::support::command::{Ended, run};
use crate::support::flat::{FlatImage, read_tarball};
use crate::support::git::{COMMIT_TIME, Worktree, answer};
use crate::support::http::{Ending, Reply, Request, Server};
use crate::support::world::{World, assert_refused};

/// Repositories on a server.
struct Served {
    world: World,
    server: Server,
    /// The commits of `app.git`, oldest first.
    commits: Vec<String>,
}

impl Served {
    /// `app.git` with two commits on `main`, a branch, two tags, a pull request and submodules within each other. What `first`
    /// answers goes before what git does.
    fn start(first: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static) -> Option<Served> {
        let world = World::with_busybox()?;
        let served = world.scratch.path().join("served");
        fs::create_dir(&served).expect("created");
        let work = |name: &str| Worktree::new(&world.scratch.path().join(name));

        let deepest = work("deepest");
        deepest.file("deepest.txt", "deepest\n").commit("deepest");
        deepest.publish(&served, "deepest.git");
        let library = work("library");
        library.file("library.txt", "library\n").commit("library");
        let submodule = ["submodule", "-q", "add"];
        library.git(&[&submodule[..], &[&format!("{}", deepest.place().display()), "inner"]].concat());
        library.file(".gitmodules", "[submodule \"inner\"]\n\tpath = inner\n\turl = ../deepest.git\n").commit("inner");
        library.publish(&served, "library.git");

        let app = work("app");
        app.file("README", "one\n").file("src/main.c", "int main;\n").file("run.sh", "#!/bin/sh\n");
        fs::set_permissions(app.place().join("run.sh"), fs::Permissions::from_mode(0o700)).expect("set");
        symlink("src/main.c", app.place().join("link")).expect("linked");
        app.file(".gitattributes", "*.bat text eol=crlf\n").file("a.bat", "line\n");
        let mut commits = vec![app.commit("one")];
        app.git(&["tag", "v1"]);
        app.git(&["branch", "old"]);
        app.git(&[&submodule[..], &[&format!("{}", library.place().display()), "vendor/library"]].concat());
        app.file(".gitmodules", "[submodule \"l\"]\n\tpath = vendor/library\n\turl = ../library.git\n");
        commits.push(app.file("README", "two\n").commit("two"));
        app.git(&["tag", "-a", "-m", "the second", "v2"]);
        app.git(&["checkout", "-q", "-b", "proposed"]);
        commits.push(app.file("README", "three\n").commit("three"));
        app.git(&["update-ref", "refs/pull/7/head", "proposed"]);
        app.git(&["checkout", "-q", "main"]);
        app.git(&["branch", "-q", "-D", "proposed"]);
        // a tag and a branch of one name: the branch is meant
        app.git(&["tag", "both", "old"]);
        app.git(&["branch", "both"]);
        app.publish(&served, "app.git");
        work("empty").publish(&served, "empty.git");

        let server =
            Server::start(move |request, before| first(request, before).unwrap_or_else(|| answer(&served, request)));
        Some(Served { world, server, commits })
    }

    fn address(&self, rest: &str) -> String {
        format!("http://{}/{rest}", self.server.host())
    }

    /// Builds an image without a registry.
    fn build(&self, name: &str, dockerfile: &str, options: &[&str], flags: &[&str]) -> (Ended, Option<FlatImage>) {
        let context = self.world.context(name, dockerfile);
        let result = self.world.scratch.path().join(format!("{name}-result"));
        fs::create_dir(&result).expect("created");
        let volume = format!("{}:/result", result.display());
        let options: Vec<&str> = ["-v", &volume].iter().chain(options).copied().collect();
        let usual = ["--no-push", "--tar-path=/result/image.tar", "--destination=test/git"];
        let flags: Vec<&str> = usual.iter().chain(flags).copied().collect();
        let ended = self.world.build(&context, &options, &flags);
        (ended, read_tarball(&result.join("image.tar")).ok())
    }

    #[track_caller]
    fn image(&self, name: &str, dockerfile: &str, options: &[&str], flags: &[&str]) -> FlatImage {
        let (ended, image) = self.build(name, dockerfile, options, flags);
        ended.success(name);
        image.expect("an image")
    }
}

#[track_caller]
fn assert_text(image: &FlatImage, path: &str, text: &str) {
    let digest = image.file(path).content.as_ref().map(|content| content.digest.clone());
    assert_eq!(digest, Some(Digest::of(text.as_bytes()).to_string()), "{path}");
}

#[test]
fn add_checks_out_what_is_meant() {
    let Some(served) = Served::start(|_, _| None) else { return };
    let app = served.address("app.git");
    let [one, two, three] = &served.commits[..] else { panic!("three commits") };
    let dockerfile = format!(
        "FROM busybox:base\n\
         ADD {app} /default\n\
         ADD {app}#old /branch\n\
         ADD {app}#both /both\n\
         ADD {app}#v2 /tag\n\
         ADD {app}?tag=v1 /query\n\
         ADD {app}#pull/7/head /pull\n\
         ADD {app}#{one} /commit\n\
         ADD --checksum={two} {app}#v2 /checked\n\
         ADD {app}?commit={three} /unnamed\n\
         ADD --chown=12:34 --exclude=*.c {app}#v1:src /src/\n\
         ADD --keep-git-dir=true {app}#v2 /kept\n\
         ADD {app}?submodules=false /alone\n\
         ADD {app}#v1:src {app}#v1:vendor/../src Dockerfile /several/\n\
         RUN [ \"$(cat /default/README)\" = two ] && [ -x /default/run.sh ] && [ ! -e /src/main.c ]\n"
    );
    let image = served.image("add", &dockerfile, &[], &[]);
    for (directory, text) in [
        ("default", "two\n"),
        ("branch", "one\n"),
        ("both", "two\n"),
        ("tag", "two\n"),
        ("query", "one\n"),
        ("pull", "three\n"),
        ("commit", "one\n"),
        ("checked", "two\n"),
        ("unnamed", "three\n"),
        ("kept", "two\n"),
        ("alone", "two\n"),
    ] {
        assert_text(&image, &format!("/{directory}/README"), text);
        assert_eq!(image.has(&format!("/{directory}/.git")), directory == "kept", "{directory}");
    }
    assert_text(&image, "/default/vendor/library/library.txt", "library\n");
    assert_text(&image, "/default/vendor/library/inner/deepest.txt", "deepest\n");
    assert!(!image.has("/default/vendor/library/.git") && !image.has("/default/vendor/library/inner/.git"));
    assert!(!image.has("/alone/vendor/library/library.txt"));
    assert_text(&image, "/several/main.c", "int main;\n");
    assert_text(&image, "/default/a.bat", "line\r\n");
    assert_eq!(image.file("/default/link").link.as_deref(), Some(&b"src/main.c"[..]));
    for (path, mode) in [("/default/run.sh", 0o755), ("/default/README", 0o644), ("/default/src", 0o755)] {
        let file = image.file(path);
        assert_eq!((file.mode, file.uid, file.gid, file.mtime), (mode, 0, 0, COMMIT_TIME), "{path}");
    }
    assert_eq!((image.file("/src").uid, image.file("/src").gid), (12, 34));
    assert!(image.has("/kept/.git/HEAD") && image.has("/kept/.git/shallow"));
}

#[test]
fn the_same_commit_is_the_same_image() {
    let Some(served) = Served::start(|_, _| None) else { return };
    let dockerfile = format!("FROM scratch\nADD {} /new/directory/\n", served.address("app.git"));
    let [first, second] =
        ["first", "second"].map(|name| served.image(name, &dockerfile, &[], &["--reproducible"]).diff_ids);
    assert_eq!(first, second);
    assert_eq!(first.len(), 1);
}

/// The context is kaniko's: a clone, of which git can tell the whole story.
#[test]
fn contexts_from_repositories() {
    let secret = |request: &Request, _: usize| match request.header("authorization") {
        // "token:" and "me:secret"
        Some("Basic dG9rZW46" | "Basic bWU6c2VjcmV0") => None,
        _ => Some(Reply::new(401, "who are you?").header("WWW-Authenticate", "Basic realm=\"git\"")),
    };
    let Some(served) = Served::start(secret) else { return };
    let host = served.server.host();
    let dockerfile = "FROM busybox:base\nCOPY . /context/\n";
    let own = "--dockerfile=/own/Dockerfile";
    let mount = format!("{}:/own:ro", served.world.context("own", dockerfile).display());
    let build = |name: &str, variables: &[&str], flags: &[&str]| {
        let options: Vec<&str> =
            ["-v", &mount, "--env=GIT_PULL_METHOD=http"].iter().chain(variables).copied().collect();
        let flags: Vec<&str> = flags.iter().copied().chain([own]).collect();
        let (ended, image) = served.build(name, "not read", &options, &flags);
        ended.success(name);
        image.expect("an image")
    };
    let context = |rest: &str| format!("--context=git://{host}/app.git{rest}");
    let token = "--env=GIT_TOKEN=token";
    let login = ["--env=GIT_USERNAME=me", "--env=GIT_PASSWORD=secret"];

    let whole = build("whole", &[token], &[&context("")]);
    assert_text(&whole, "/context/README", "two\n");
    assert!(!whole.has("/context/vendor/library/library.txt"), "kaniko leaves submodules");
    assert_text(&whole, "/context/.git/HEAD", "ref: refs/heads/main\n");
    assert!(!whole.has("/context/.git/shallow"));
    let config = whole.file("/context/.git/config").content.as_ref().map(|content| content.size);
    assert!(config.is_some_and(|size| size > 100), "the way back is in it");

    let pinned = format!("#refs/heads/main#{}", served.commits[0]);
    let pinned = build("pinned", &login, &[&context(&pinned), "--git=branch=both,single-branch=true"]);
    assert_text(&pinned, "/context/README", "one\n");
    assert_text(&pinned, "/context/.git/HEAD", &format!("{}\n", served.commits[0]));

    let nested = build("nested", &[token], &[&context("#refs/pull/7/head"), "--git=recurse-submodules=true,depth=1"]);
    assert_text(&nested, "/context/README", "three\n");
    assert_text(&nested, "/context/vendor/library/inner/deepest.txt", "deepest\n");
    assert!(nested.has("/context/.git/shallow"));

    let part = build("part", &[], &[&format!("--context=http://me:secret@{host}/app.git#v1:src")]);
    assert_text(&part, "/context/main.c", "int main;\n");
    assert!(!part.has("/context/README") && !part.has("/context/.git"));

    let sub_path = build("sub-path", &[token], &[&context("#refs/tags/v1"), "--context-sub-path=src"]);
    assert_text(&sub_path, "/context/main.c", "int main;\n");

    let (ended, _) = served.build("nobody", "not read", &["--env=GIT_PULL_METHOD=http"], &[&context("")]);
    assert_refused("nobody", &ended, "the server answered 401");
    let (ended, _) = served.build("wrong", "not read", &["--env=GIT_TOKEN=wr0ng"], &[&context("")]);
    assert!(ended.code == Some(1) && !ended.stderr.contains("wr0ng"), "{}", ended.stderr);
}

#[test]
fn named_contexts_from_repositories() {
    let Some(served) = Served::start(|_, _| None) else { return };
    let dockerfile = "FROM busybox:base\nCOPY --from=sources . /all/\nCOPY --from=sources src/main.c /one\n";
    let named = format!("--build-context=sources={}#v2", served.address("app.git"));
    let image = served.image("named", dockerfile, &[], &[&named]);
    assert_text(&image, "/all/README", "two\n");
    assert_text(&image, "/all/vendor/library/inner/deepest.txt", "deepest\n");
    assert_text(&image, "/one", "int main;\n");
    assert!(!image.has("/all/.git"));
}

#[test]
fn certificates_of_servers() {
    let Some(served) = Served::start(|_, _| None) else { return };
    let place = served.world.scratch.path();
    let [certificate, key] = ["server.crt", "server.key"].map(|name| place.join(name));
    run(Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout"])
        .args([&key, Path::new("-out"), &certificate]));
    let served_at = place.join("served");
    let server = Server::start_tls(&certificate, &key, move |request, _| answer(&served_at, request));
    let host = server.host();
    let mounts = ["-v", &own_dockerfile(&served.world), "-v", &format!("{}:/ca.crt:ro", certificate.display())];
    let build = |name: &str, flag: &str| {
        let flags = [&format!("--context=git://{host}/app.git"), "--dockerfile=/own/Dockerfile", flag];
        served.build(name, "not read", &mounts, &flags)
    };
    let (ended, _) = build("unknown", "--git=branch=main");
    assert_refused("unknown", &ended, "certificate");
    for (name, flag) in [
        ("unverified", "--git=insecure-skip-tls=true".to_owned()),
        ("known", format!("--registry-certificate={host}=/ca.crt")),
    ] {
        let (ended, image) = build(name, &flag);
        ended.success(name);
        assert_text(&image.expect("an image"), "/README", "two\n");
    }
}

#[test]
fn an_answer_that_breaks_off_is_asked_for_again() {
    let Some(served) = Served::start(|_, _| None) else { return };
    let served_at = served.world.scratch.path().join("served");
    let cut = Server::start(move |request, before| {
        let whole = answer(&served_at, request);
        let bytes = whole.body.len();
        // the second request asks for references, the third for the files
        match (request.method.as_str(), before) {
            ("POST", 1) if bytes > 500 => whole.ending(Ending::CutAfter(bytes / 2)),
            ("GET", 0) => Reply::new(503, "later"),
            _ => whole,
        }
    });
    let dockerfile = format!("FROM scratch\nADD http://{}/app.git?submodules=0 /\n", cut.host());
    let image = served.image("cut", &dockerfile, &[], &[]);
    assert_text(&image, "/README", "two\n");
    let posts = cut.seen().iter().filter(|request| request.method == "POST").count();
    assert!(posts > 2, "{posts}");
}

#[test]
fn redirects_lead_to_the_repository() {
    let Some(served) = Served::start(|request, _| {
        let rest = request.path.strip_prefix("/old/app/")?;
        Some(Reply::new(301, "").header("Location", format!("/app.git/{rest}")))
    }) else {
        return;
    };
    let context = format!("--context=git://{}/old/app", served.server.host());
    let (ended, image) = served.build(
        "moved",
        "not read",
        &["--env=GIT_PULL_METHOD=http", "-v", &own_dockerfile(&served.world)],
        &[&context, "--dockerfile=/own/Dockerfile"],
    );
    ended.success("moved");
    assert_text(&image.expect("an image"), "/README", "two\n");
}

/// A Dockerfile that is not in the context, as a mount.
fn own_dockerfile(world: &World) -> String {
    format!("{}:/own:ro", world.context("own", "FROM scratch\nCOPY . /\n").display())
}

#[test]
fn repositories_that_cannot_be_added() {
    let Some(served) = Served::start(|request, _| match request.path.split('?').next() {
        Some("/closed.git/info/refs") => Some(Reply::new(403, "not you")),
        Some("/page.git/info/refs") => Some(Reply::new(200, "<html>").header("Content-Type", "text/html")),
        Some("/garbage.git/info/refs") => {
            Some(Reply::new(200, "000bgarbage").header("Content-Type", "application/x-git-upload-pack-advertisement"))
        }
        _ => None,
    }) else {
        return;
    };
    let work = served.world.scratch.path();
    submodules_that_lead_nowhere(work, &work.join("served"));
    let other = "0123456789012345678901234567890123456789";
    for (name, what, told) in [
        ("gone", "gone.git".to_owned(), "the server answered 404"),
        ("closed", "closed.git".to_owned(), "the server answered 403 Forbidden: not you"),
        ("page", "page.git".to_owned(), "ask for its branches and tags"),
        ("garbage", "garbage.git".to_owned(), "ask for its branches and tags"),
        ("empty", "empty.git".to_owned(), "it is empty"),
        ("branch", "app.git#none".to_owned(), "there is no branch, tag or reference \"none\""),
        ("tag", "app.git?tag=main".to_owned(), "reference \"refs/tags/main\""),
        ("odd", "app.git#a..b".to_owned(), "there is no branch, tag or reference \"a..b\""),
        ("commit", format!("app.git#{other}"), "0123456"),
        ("checksum", format!("app.git?tag=v1&checksum={other}"), "and not at 0123456789"),
        ("directory", "app.git#v1:none".to_owned(), "none"),
        ("unlisted", "unlisted.git".to_owned(), "the submodule sub: .gitmodules does not say where it is"),
        ("by-ssh", "by-ssh.git".to_owned(), "\"git@example.com:a.git\" cannot be fetched"),
        ("itself", "itself.git".to_owned(), "submodules within each other"),
    ] {
        let dockerfile = format!("FROM scratch\nCOPY Dockerfile /\nADD {} /a\n", served.address(&what));
        let (ended, image) = served.build(name, &dockerfile, &[], &[]);
        assert_refused(name, &ended, told);
        assert!(ended.stderr.contains("dockerfile line 3"), "{name}: {}", ended.stderr);
        assert!(image.is_none(), "{name}");
    }
}

/// Repositories whose submodules cannot be had: one of which nothing tells, one by ssh, one that is in itself.
fn submodules_that_lead_nowhere(work: &Path, served: &Path) {
    for (name, url) in
        [("unlisted", None), ("by-ssh", Some("git@example.com:a.git")), ("itself", Some("../itself.git"))]
    {
        let tree = Worktree::new(&work.join(name));
        let first = tree.file("file", "text\n").commit("one");
        if let Some(url) = url {
            tree.file(".gitmodules", &format!("[submodule \"s\"]\n\tpath = sub\n\turl = {url}\n"));
        }
        tree.git(&["add", "-A"]);
        let mut entry = format!("160000,{first},sub");
        tree.git(&["update-index", "--add", "--cacheinfo", &entry]);
        tree.git(&["commit", "-q", "-m", "two"]);
        if name == "itself" {
            // a commit cannot name itself, but one that names one that names one … is long enough
            for _ in 0..25 {
                entry = format!("160000,{},sub", tree.git(&["rev-parse", "HEAD"]));
                tree.git(&["update-index", "--add", "--cacheinfo", &entry]);
                tree.git(&["commit", "-q", "-m", "more"]);
            }
        }
        tree.publish(served, &format!("{name}.git"));
    }
}
