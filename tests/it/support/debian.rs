//! A real base image: Debian, as debootstrap makes it, with the machine's own settings for apt, pip and npm.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use serde_json::json;

use super::command::run;
use super::{folder, layout};

/// Where the machine keeps what is needed to reach the sources of packages: mirrors, proxies, keys, certificates.
const SETTINGS: [&str; 11] = [
    "etc/apt/sources.list",
    "etc/apt/sources.list.d",
    "etc/apt/apt.conf.d",
    "etc/apt/auth.conf.d",
    "etc/apt/keyrings",
    "etc/apt/trusted.gpg.d",
    "usr/share/keyrings",
    "etc/ssl/certs/ca-certificates.crt",
    // `ca-certificates` makes a new bundle when it is installed, with what is here in it
    "usr/local/share/ca-certificates",
    "etc/pip.conf",
    "etc/npmrc",
];

/// An OCI layout with the image; made once, in half a minute, and then kept in the target directory.
pub fn base_layout() -> Result<PathBuf, String> {
    static MAKING: Mutex<()> = Mutex::new(());
    // a test that failed while it held the lock left nothing half-done
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let home = folder("debian");
    let layout = home.join("layout");
    if layout.exists() {
        return Ok(layout);
    }
    let suite = codename().ok_or("this is no Debian")?;
    let mirror = mirror().ok_or("apt has no source of packages")?;
    let work = tempfile::tempdir_in(&home).map_err(|error| error.to_string())?;
    let root = work.path().join("root");
    // what it mounts below the root goes with it, also when it is killed
    run(Command::new("unshare")
        .args(["--mount", "--propagation=private", "debootstrap"])
        .arg("--variant=minbase")
        .arg(suite)
        .arg(&root)
        .arg(mirror));
    for settings in SETTINGS {
        let ours = Path::new("/").join(settings);
        let theirs = root.join(settings);
        if ours.exists() {
            let parent = theirs.parent().expect("a setting has a directory");
            fs::create_dir_all(parent).map_err(|error| error.to_string())?;
            run(Command::new("cp").args(["-rLT"]).arg(&ours).arg(&theirs));
        }
    }
    let tar = work.path().join("layer.tar");
    run(Command::new("tar")
        .args(["--create", "--sort=name", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--file"])
        .arg(&tar)
        .arg("--directory")
        .arg(&root)
        .arg("."));
    let plain = work.path().join("plain");
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["/bin/sh"]},
    });
    layout::write(&plain, &fs::read(&tar).map_err(|error| error.to_string())?, config);
    let compressed = work.path().join("compressed");
    run(Command::new("skopeo")
        .args(["copy", "--quiet", "--dest-compress"])
        .arg(format!("oci:{}", plain.display()))
        .arg(format!("oci:{}", compressed.display())));
    fs::rename(compressed, &layout).map_err(|error| error.to_string())?;
    Ok(layout)
}

fn codename() -> Option<String> {
    let release = fs::read_to_string("/etc/os-release").ok()?;
    let name = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    release.contains("ID=debian").then(|| name.to_owned())
}

/// The first mirror that apt knows, from either form of its sources.
fn mirror() -> Option<String> {
    let listed = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = listed.chain([PathBuf::from("/etc/apt/sources.list")]).collect();
    files.sort_by_key(|file| !file.ends_with("debian.sources"));
    let texts =
        files.into_iter().filter(|file| file.extension().is_none_or(|kind| kind == "sources" || kind == "list"));
    texts.filter_map(|file| fs::read_to_string(file).ok()).find_map(|text| {
        text.lines().find_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            match *words.first()? {
                "URIs:" => words.get(1).copied(),
                "deb" => words.iter().copied().find(|word| word.contains("://")),
                _ => None,
            }
            .map(str::to_owned)
        })
    })
}
