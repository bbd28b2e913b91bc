use super::*;

fn resolved(raw: &str) -> Result<Mount, BadMount> {
    let lookup = |name: &str| (name == "V").then(|| "/value".to_owned());
    MountFlag::parse(raw.to_owned())?.resolve(&lookup, '\\')
}

#[test]
fn every_type_has_its_options() {
    let owned = Ownership { mode: Some(0o700), uid: Some(1), gid: Some(2) };
    let none = Ownership::default();
    let some = |text: &str| Some(text.to_owned());
    let bind =
        |from: Option<&str>, source: &str| MountKind::Bind { from: from.map(str::to_owned), source: source.into() };
    let cache = |id, sharing, ownership| MountKind::Cache { id, from: None, source: String::new(), sharing, ownership };
    for (raw, target, read_only, kind) in [
        ("target=/m", some("/m"), true, bind(None, "")),
        ("type=bind,from=a,source=b,dst=/m,rw", some("/m"), false, bind(Some("a"), "b")),
        ("type=bind,src=$V,destination=${V}/x,ro=false", some("/value/x"), false, bind(None, "/value")),
        ("TYPE=Bind,\"target=/a,b\"", some("/a,b"), true, bind(None, "")),
        ("type=cache,target=/c", some("/c"), false, cache(None, Sharing::Shared, none)),
        (
            "type=cache,target=/c,id=x,sharing=locked,mode=700,uid=1,gid=2,ro",
            some("/c"),
            true,
            cache(some("x"), Sharing::Locked, owned),
        ),
        ("type=tmpfs,target=/t", some("/t"), false, MountKind::Tmpfs { size_bytes: None }),
        ("type=tmpfs,target=/t,size=1.5GiB", some("/t"), false, MountKind::Tmpfs { size_bytes: Some(1_610_612_736) }),
        (
            "type=secret,id=s",
            None,
            true,
            MountKind::Secret { id: some("s"), env: None, required: false, ownership: none },
        ),
        (
            "type=secret,source=s,env=E,required",
            None,
            true,
            MountKind::Secret { id: some("s"), env: some("E"), required: true, ownership: none },
        ),
        (
            "type=ssh,id=k,required=1,mode=700,uid=1,gid=2",
            None,
            true,
            MountKind::Ssh { id: some("k"), required: true, ownership: owned },
        ),
        ("required,type=ssh", None, true, MountKind::Ssh { id: None, required: true, ownership: none }),
    ] {
        assert_eq!(resolved(raw), Ok(Mount { target, read_only, kind }), "{raw}");
    }
}

#[test]
fn wrong_options_are_refused() {
    for (raw, expected) in [
        ("type=nope", "\"nope\" is no mount type; bind, cache, tmpfs, secret and ssh are"),
        ("tagret=/x", "unknown option \"tagret\" (did you mean target?)"),
        ("target", "the option \"target\" needs a value: target=value"),
        ("ro=x", "the option \"ro\" cannot be \"x\""),
        ("type=cache,sharing=x", "the option \"sharing\" cannot be \"x\""),
        ("type=cache,mode=8", "the option \"mode\" cannot be \"8\""),
        ("type=tmpfs,size=x", "the option \"size\" cannot be \"x\""),
        ("type=bind,size=1", "a bind mount has no option \"size\""),
        ("required", "a bind mount has no option \"required\""),
        ("type=secret,from=x,id=y", "a secret mount has no option \"from\""),
        ("type=secret", "a secret needs an id or a target"),
        ("type=secret,id=a,source=b", "a secret takes id or source, not both"),
        ("from=$V", "variables are not replaced in from: add a stage FROM $V AS name and mount from that name"),
        ("\"target=/x", "the list of options has an unbalanced quote"),
        ("type=$NO", "\"\" is no mount type; bind, cache, tmpfs, secret and ssh are"),
    ] {
        assert_eq!(resolved(raw).expect_err(raw).to_string(), expected, "{raw}");
    }
    assert!(MountFlag::parse("type=$V".into()).is_ok(), "a variable is checked when its value is known");
    assert!(MountFlag::parse("type=nope".into()).is_err(), "without variables the line itself is wrong");
}

#[test]
fn devices_have_a_name() {
    let device = |name: &str, required| Ok(Device { name: name.into(), required });
    assert_eq!(Device::parse("vendor.com/gpu=all"), device("vendor.com/gpu=all", false));
    assert_eq!(Device::parse("name=gpu,required=false"), device("gpu", false));
    assert_eq!(Device::parse("required,gpu"), device("gpu", true));
    assert_eq!(Device::parse("required"), Err(BadMount::DeviceWithoutName));
    assert!(matches!(Device::parse("gpu,nam=x"), Err(BadMount::UnknownOption { suggestion: Some("name"), .. })));
}
