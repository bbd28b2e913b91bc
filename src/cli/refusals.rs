//! kaniko's flags whose features are not built: refused by name, and only if the value asks for the feature.

use super::Error;
use super::flags::{Flags, OtherFlags};

/// Is something asked for that is not there?
pub(super) fn check(flags: &Flags) -> Result<(), Error> {
    let is_given = |value: &Option<String>| value.as_deref().is_some_and(|text| !text.is_empty());
    let other: &OtherFlags = &flags.other;
    let rows = [
        ("cache", other.cache, "the layer cache", "leave it out, or give --cache=false"),
        ("secret", !other.secrets.is_empty(), "a build secret", "RUN --mount is not supported either"),
        (
            "credential-helpers",
            other.credential_helpers.iter().any(|name| !name.is_empty()),
            "choosing credential helpers",
            "name them in config.json, as credHelpers or credsStore",
        ),
        (
            "azure-container-registry-config",
            is_given(&other.azure_container_registry_config),
            "Azure's own login",
            LOGIN,
        ),
        ("dryrun", other.dryrun, "printing the plan", "leave it out"),
        ("materialize", other.materialize, "leaving the root as the image has it", "leave it out"),
        ("preserve-context", other.preserve_context, "restoring the context", "mount the context as a volume"),
        ("bucket", is_given(&other.bucket), "a context in a bucket", CONTEXT),
    ];
    match rows.into_iter().find(|row| row.1) {
        Some((flag, _, feature, instead)) => Err(Error::Unsupported { flag, feature: feature.to_owned(), instead }),
        None => Ok(()),
    }
}

/// What to do instead of a context that has to be fetched.
pub(super) const CONTEXT: &str = "fetch it first and give a directory, tar://PATH or tar://stdin";

/// What to do instead of a named context that has to be fetched.
pub(super) const NAMED_CONTEXT: &str =
    "give a directory, docker-image://NAME, oci-layout://DIRECTORY, or the https:// address of a tar or a repository";

const LOGIN: &str = "put a token for the registry into config.json";

#[cfg(test)]
mod tests {
    use super::super::flags::parse;
    use super::*;

    fn refused(arguments: &str) -> Option<&'static str> {
        let words = std::iter::once("executor").chain(arguments.split_whitespace());
        match check(&parse(words.map(Into::into)).expect("proper flags")) {
            Ok(()) => None,
            Err(Error::Unsupported { flag, .. }) => Some(flag),
            Err(other) => panic!("{arguments}: {other}"),
        }
    }

    #[test]
    fn accepted_where_nothing_is_asked_for() {
        for accepted in [
            "",
            "--cache=false",
            "--cache=false --cache-repo=r/x --cache-dir=/c",
            "--cache-ttl=24h --cache-copy-layers --cache-run-layers=false",
            "--compressed-caching --no-push-cache",
            "--compressed-caching=false",
            "--bucket= --azure-container-registry-config=",
            "--use-new-run --force-build-metadata",
            "--git branch=main",
            "--dryrun=false --materialize=false --preserve-context=false",
        ] {
            assert_eq!(refused(accepted), None, "{accepted}");
        }
    }

    #[test]
    fn refused_by_name_where_it_is() {
        for (typed, flag) in [
            ("--cache", "cache"),
            ("--cache=true --cache-repo=r/x", "cache"),
            ("--secret id=x", "secret"),
            ("--credential-helpers=ecr", "credential-helpers"),
            ("--azure-container-registry-config=/x", "azure-container-registry-config"),
            ("--dryrun", "dryrun"),
            ("--materialize", "materialize"),
            ("--preserve-context", "preserve-context"),
            ("-b bucket", "bucket"),
        ] {
            assert_eq!(refused(typed), Some(flag), "{typed}");
        }
    }
}
