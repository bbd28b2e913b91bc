//! Bases of an unusual make: layers that no registry passes on, layers compressed with zstd, configs of an older time.

use std::fs;
use std::path::Path;

use kanna::oci::{Digest, media_type};
use rustix::fs::{CWD, Mode, mkfifoat};
use serde_json::{Value, json};
use tar::EntryType::Regular;

use crate::support::handmade::{Image, is_for, tar_of};
use crate::support::http::{Reply, Server};
use crate::support::podman::DOCKER_CAPABILITIES;
use crate::support::world::{World, assert_refused};
use crate::support::{flat, layout};

/// The same image with another manifest.
fn with_manifest(image: &Image, change: impl FnOnce(&mut Value)) -> Image {
    let mut manifest: Value = serde_json::from_slice(&image.manifest).expect("JSON");
    change(&mut manifest);
    Image { manifest: manifest.to_string().into_bytes(), ..image.clone() }
}

/// Where the registry has a foreign layer not, its URL has it. It is in files, but no push uploads it.
#[test]
fn foreign_layers() {
    let Some(world) = World::new() else { return };
    for (name, manifest_type, config_type, layer_type) in [
        ("docker", media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG, media_type::DOCKER_LAYER_FOREIGN),
        ("oci", media_type::OCI_MANIFEST, media_type::OCI_CONFIG, media_type::OCI_LAYER_FOREIGN),
    ] {
        let image = Image::of(tar_of(&[(Regular, "file", "", b"content")]));
        let foreign = Digest::of(&image.layers[0]);
        let answering = image.clone();
        let server = Server::start(move |request, _| match request.method.as_str() {
            "HEAD" => Reply::new(404, ""),
            "POST" => Reply::new(202, "").header("Location", "/v2/app/blobs/uploads/1"),
            "PUT" => Reply::new(201, ""),
            _ if request.path == "/elsewhere" => Reply::new(200, answering.layers[0].clone()),
            _ if is_for(request, &answering.layers[0]) => Reply::new(404, "not here"),
            _ if request.path.contains("/manifests/") => {
                let host = request.header("host").expect("HTTP/1.1").to_owned();
                let changed = with_manifest(&answering, |manifest| {
                    manifest["mediaType"] = manifest_type.into();
                    manifest["config"]["mediaType"] = config_type.into();
                    manifest["layers"][0]["mediaType"] = layer_type.into();
                    manifest["layers"][0]["urls"] = json!([format!("http://{host}/elsewhere")]);
                });
                Reply::new(200, changed.manifest).header("Content-Type", manifest_type)
            }
            _ => answering.answer(request),
        });
        let host = server.host();
        let context = world.context(name, &format!("FROM {host}/base:1\nCOPY Dockerfile /copied\n"));
        let result = world.scratch.path().join(format!("{name}-result"));
        fs::create_dir(&result).expect("created");
        let volume = format!("--volume={}:/result", result.display());
        let destination = format!("--destination={host}/app:1");
        let flags = [&*destination, "--tar-path=/result/image.tar", "--oci-layout-path=/result/layout"];
        world.build(&context, &[DOCKER_CAPABILITIES, &volume], &flags).success(name);

        let flat = flat::read_tarball(&result.join("image.tar")).expect("a tarball");
        flat.assert_text("/file", "content");
        assert!(flat.has("/copied"));
        let blob = fs::read(result.join("layout/blobs/sha256").join(foreign.hex())).expect("in the layout");
        assert_eq!(blob, image.layers[0]);

        let seen = server.seen();
        let hex = foreign.hex();
        let uploads = |request: &&crate::support::http::Request| matches!(request.method.as_str(), "PUT" | "POST");
        assert!(!seen.iter().filter(uploads).any(|request| request.path.contains(&hex)), "{name} is uploaded");
        let pushed = seen.iter().rfind(|request| request.method == "PUT").expect("a manifest");
        let pushed: Value = serde_json::from_slice(&pushed.body).expect("JSON");
        assert_eq!(pushed["mediaType"], manifest_type);
        let layer = &pushed["layers"][0];
        assert_eq!((&layer["mediaType"], &layer["digest"]), (&layer_type.into(), &foreign.to_string().into()));
        assert_eq!(layer["urls"], json!([format!("http://{host}/elsewhere")]));
    }
}

#[test]
fn layers_compressed_with_zstd() {
    let Some(world) = World::new() else { return };
    let tar = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/base/base.tar")).expect("there");
    let packed = zstd::encode_all(&tar[..], 3).expect("a Vec takes all");
    let image = Image::with_diff_ids(vec![packed.clone()], &[Digest::of(&tar)]);
    let image =
        with_manifest(&image, |manifest| manifest["layers"][0]["mediaType"] = media_type::OCI_LAYER_ZSTD.into());
    image.push(&world.registry, "library/packed:1");
    let context = world.context(
        "zstd",
        "FROM packed:1 AS one\nRUN cat /etc/motd >/seen\nFROM packed:1\nRUN echo more >/more\n\
         COPY --from=one /seen /seen\nCOPY --from=packed:1 /etc/motd /copied\n",
    );
    let built = world.image(&context, &[], &[]);
    for path in ["/seen", "/copied"] {
        built.assert_text(path, "base motd\n");
    }
    assert_eq!(built.diff_ids[0], Digest::of(&tar).to_string());

    let host = world.registry.host();
    let destination = format!("--destination={host}/app:1");
    world.build(&context, &[DOCKER_CAPABILITIES], &[&destination]).success("push");
    let inspected = crate::support::command::run(
        std::process::Command::new("skopeo")
            .args(["inspect", "--raw", "--tls-verify=false"])
            .arg(format!("docker://{host}/app:1")),
    );
    let manifest: Value = serde_json::from_str(&inspected).expect("JSON");
    let layer = &manifest["layers"][0];
    assert_eq!(layer["mediaType"], media_type::OCI_LAYER_ZSTD);
    assert_eq!(layer["digest"], Digest::of(&packed).to_string());

    let ended = world.build(&context, &[DOCKER_CAPABILITIES], &[&destination, "--image-format=docker"]);
    assert_refused("docker", &ended, media_type::OCI_LAYER_ZSTD);
}

/// As BuildKit does it: what the config says of how the base itself was made is not said of what is built on it.
#[test]
fn configs_of_an_older_time() {
    let Some(world) = World::new() else { return };
    let old = json!({
        "architecture": kanna::oci::Platform::host().architecture,
        "os": "linux",
        "os.version": "7",
        "author": "somebody",
        "comment": "first",
        "container": "0123456789ab",
        "container_config": {"Hostname": "0123456789ab", "Cmd": ["/bin/sh", "-c", "#(nop) CMD"]},
        "docker_version": "1.6.2",
        "id": "0123",
        "parent": "4567",
        "Size": 12,
        "config": {
            "Hostname": "0123456789ab",
            "Image": "sha256:0123",
            "AttachStdin": false,
            "NetworkDisabled": true,
            "ArgsEscaped": true,
            "Env": ["A=b"],
            "Cmd": ["old"],
            "Labels": {"c": "d"},
        },
    });
    let layout = world.scratch.path().join("old");
    layout::write(&layout, &tar_of(&[(Regular, "file", "", b"content")]), old);
    layout::push(&layout, &world.registry, "library/old:1");
    for (name, dockerfile) in [
        ("label", "FROM old:1\nLABEL e=f\n"),
        ("stages", "FROM old:1 AS one\nCOPY Dockerfile /\nFROM one\nLABEL e=f\n"),
    ] {
        let image = world.image(&world.context(name, dockerfile), &[], &[]);
        let config = &image.config;
        for gone in ["comment", "container", "container_config", "docker_version", "id", "parent", "Size"] {
            assert!(config.get(gone).is_none(), "{name}: {gone}");
        }
        for gone in ["Hostname", "Image", "AttachStdin", "NetworkDisabled"] {
            assert!(config["config"].get(gone).is_none(), "{name}: {gone}");
        }
        assert_eq!((&config["author"], &config["os.version"]), (&"somebody".into(), &"7".into()));
        let run = &config["config"];
        assert_eq!((&run["Cmd"], &run["Labels"]), (&json!(["old"]), &json!({"c": "d", "e": "f"})));
        assert_eq!(run["ArgsEscaped"], true);
        assert_eq!(run["Env"][1], "A=b", "after the PATH that it lacked");
    }
}

/// A layout is a base like any other: run, copied from, pushed; what its files are not is refused.
#[test]
fn layouts() {
    let Some(world) = World::with_busybox() else { return };
    let place = world.scratch.path().join("busybox");
    let volume = format!("--volume={}:/layout:ro", place.display());
    let running = world.context(
        "layout",
        "FROM base AS made\nRUN echo made >/made\nFROM scratch\nCOPY --from=made /made /\nCOPY --from=base /etc/passwd /\n",
    );
    let base = "--build-context=base=oci-layout:///layout";
    let image = world.image(&running, &[&volume], &[base]);
    assert!(image.has("/made") && image.has("/passwd"));

    let pushed = format!("{}/test/of-layout:1", world.registry.host());
    let context = world.context("pushed", "FROM base\nLABEL a=b\n");
    world.build(&context, &[&volume], &[base, &format!("--destination={pushed}")]).success("pushed");
    let again = world.context("again", &format!("FROM {pushed}\nRUN test -e /etc/passwd\n"));
    assert!(world.image(&again, &[], &[]).has("/bin/busybox"));

    let other = format!("{base}@{}", Digest::of(b"other"));
    for (name, base, told) in [
        ("digest", &*other, "read /layout/blobs/sha256/"),
        ("name", &format!("{base}:none"), "it has "),
        ("nowhere", "--build-context=base=oci-layout:///nowhere", "read /nowhere/index.json"),
    ] {
        let ended = world.build(&context, &[&volume], &[base, "--no-push", "--destination=test/x"]);
        assert_refused(name, &ended, told);
        assert!(ended.stderr.contains("find the image base"), "{name}: {}", ended.stderr);
    }
    let file_of = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().expect("a digest");
        place.join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
    };
    let read = |file: &Path| -> Value { serde_json::from_slice(&fs::read(file).expect("read")).expect("JSON") };
    let index = place.join("index.json");
    let manifest = file_of(&read(&index)["manifests"][0]);
    let layer = file_of(&read(&manifest)["layers"][0]);
    let build = |context: &Path| world.build(context, &[&volume], &[base, "--no-push", "--destination=test/x"]);
    let be_a_fifo = |file: &Path| {
        fs::remove_file(file).expect("removed");
        mkfifoat(CWD, file, Mode::RWXU).expect("created");
    };
    be_a_fifo(&layer);
    assert_refused("a layer is a fifo", &build(&running), ": it is no regular file");
    fs::write(&manifest, "{}").expect("written");
    assert_refused("changed", &build(&context), "instead of");
    for (name, file) in [("the manifest is a fifo", manifest), ("the index is a fifo", index)] {
        be_a_fifo(&file);
        assert_refused(name, &build(&context), ": it is no regular file");
    }
}
