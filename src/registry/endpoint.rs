//! Where a repository is, and in which order to ask: names only, nothing is sent.

use std::net::IpAddr;

use super::error::Error;
use super::settings::Settings;
use crate::http::{host_without_port, is_loopback};
use crate::oci::Reference;

const DOCKER_HUB: &str = "docker.io";
/// Docker Hub's name in logs and credentials, and the one of its registry's API.
const DOCKER_HUB_NAME: &str = "index.docker.io";
const DOCKER_HUB_API: &str = "registry-1.docker.io";

/// What a registry is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Access {
    Pull,
    Push,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

/// A repository at a registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// Host and, if there is one, port; Docker Hub is `index.docker.io`.
    pub(super) registry: String,
    /// Prescribed by a mirror's address.
    pub(super) scheme: Option<Scheme>,
    pub(super) repository: String,
}

impl Place {
    /// The repository that a reference names.
    pub(super) fn of(reference: &Reference) -> Place {
        let registry = canonical(reference.registry()).to_owned();
        Place { registry, scheme: None, repository: reference.repository().to_owned() }
    }

    /// Where to look for a reference's image, in order.
    pub(super) fn candidates(reference: &Reference, settings: &Settings) -> Result<Vec<Place>, Error> {
        let original = Place::of(reference);
        let mapped = settings.map.iter().filter(|(key, _)| canonical(key) == original.registry);
        let mirrors = settings.mirrors.iter().filter(|_| original.registry == DOCKER_HUB_NAME);
        let mut places = (mapped.flat_map(|(_, values)| values).chain(mirrors))
            .map(|value| Place::mirrored(value, &original.repository))
            .collect::<Result<Vec<_>, _>>()?;
        if places.is_empty() || !settings.skip_default_fallback {
            places.push(original);
        }
        Ok(places)
    }

    /// Are all mirrors addresses?
    pub(super) fn check(settings: &Settings) -> Result<(), Error> {
        let mut mirrors = settings.map.values().flatten().chain(&settings.mirrors);
        mirrors.try_for_each(|mirror| Place::mirrored(mirror, "check").map(drop))
    }

    fn mirrored(mirror: &str, repository: &str) -> Result<Place, Error> {
        let (scheme, rest) = match mirror.trim().split_once("://") {
            None => (None, mirror.trim()),
            Some(("http", rest)) => (Some(Scheme::Http), rest),
            Some(("https", rest)) => (Some(Scheme::Https), rest),
            Some(_) => return Err(Error::BadMirror { mirror: mirror.to_owned() }),
        };
        let (host, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_matches('/');
        if host.is_empty() || host.contains([' ', '@', '?', '#']) {
            return Err(Error::BadMirror { mirror: mirror.to_owned() });
        }
        let repository = if prefix.is_empty() { repository.to_owned() } else { format!("{prefix}/{repository}") };
        Ok(Place { registry: canonical(host).to_owned(), scheme, repository })
    }

    /// Host and port of the registry's API.
    pub(super) fn api_host(&self) -> &str {
        if self.registry == DOCKER_HUB_NAME { DOCKER_HUB_API } else { &self.registry }
    }

    /// `registry/repository`, as logs name it.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Which schemes may be tried, in order. Plain HTTP only where somebody said so, or where the name says that it
    /// is this machine or this house (as docker and kaniko have it).
    pub(super) fn schemes(&self, access: Access, settings: &Settings) -> Vec<Scheme> {
        if let Some(scheme) = self.scheme {
            return vec![scheme];
        }
        let everywhere = match access {
            Access::Pull => settings.insecure_pull,
            Access::Push => settings.insecure_push,
        };
        let named = settings.insecure_registries.iter().any(|name| canonical(name) == self.registry);
        match everywhere || named || is_near(&self.registry) {
            true => vec![Scheme::Https, Scheme::Http],
            false => vec![Scheme::Https],
        }
    }

    /// May certificates of this registry go unverified?
    pub(super) fn skips_tls_verify(&self, access: Access, settings: &Settings) -> bool {
        let everywhere = match access {
            Access::Pull => settings.skip_tls_verify_pull,
            Access::Push => settings.skip_tls_verify_push,
        };
        everywhere || settings.skip_tls_verify_registries.iter().any(|name| canonical(name) == self.registry)
    }
}

/// The one name that settings and credentials are looked up by: Docker Hub has several.
pub fn canonical(registry: &str) -> &str {
    match registry {
        DOCKER_HUB | DOCKER_HUB_API => DOCKER_HUB_NAME,
        other => other,
    }
}

/// This machine, a private IPv4 address (RFC 1918), or a `.local` name.
fn is_near(host: &str) -> bool {
    let name = host_without_port(host);
    let private = || matches!(name.parse(), Ok(IpAddr::V4(address)) if address.is_private());
    is_loopback(host) || name.ends_with(".local") || name.ends_with(".localhost") || private()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(image: &str, settings: &Settings) -> Vec<String> {
        let reference = image.parse().expect("a reference");
        let candidates = Place::candidates(&reference, settings).expect("candidates");
        candidates
            .iter()
            .map(|place| match place.scheme {
                Some(scheme) => format!("{}://{}", scheme.as_str(), place.name()),
                None => place.name(),
            })
            .collect()
    }

    #[test]
    fn maps_and_mirrors_come_first_and_the_registry_itself_last() {
        let mut settings = Settings {
            map: [
                ("gcr.io".to_owned(), vec!["one:5000".to_owned(), "http://two.dots.example/a/b/".to_owned()]),
                ("docker.io".to_owned(), vec!["mapped".to_owned()]),
            ]
            .into(),
            mirrors: vec!["https://mirror:5000/prefix".to_owned()],
            ..Settings::default()
        };
        let debian = ["mapped/library/debian", "https://mirror:5000/prefix/library/debian"];
        let app = ["one:5000/team/app", "http://two.dots.example/a/b/team/app"];
        assert_eq!(names("debian", &settings), [&debian[..], &["index.docker.io/library/debian"]].concat());
        assert_eq!(names("gcr.io/team/app:1", &settings), [&app[..], &["gcr.io/team/app"]].concat());
        assert_eq!(names("quay.io/team/app", &settings), ["quay.io/team/app"]);
        settings.skip_default_fallback = true;
        assert_eq!(names("debian", &settings), debian);
        assert_eq!(names("gcr.io/team/app:1", &settings), app);
        assert_eq!(names("quay.io/team/app", &settings), ["quay.io/team/app"]);
    }

    #[test]
    fn mirrors_that_are_none() {
        for mirror in ["", "ftp://mirror", "http://", "user@mirror", "mirror?x/y"] {
            assert!(matches!(Place::mirrored(mirror, "a"), Err(Error::BadMirror { .. })), "{mirror}");
        }
    }

    #[test]
    fn plain_http_only_where_somebody_said_so() {
        let place = |registry: &str| Place { registry: registry.into(), scheme: None, repository: "a".into() };
        let settings = Settings { insecure_registries: vec!["old:5000".into()], ..Settings::default() };
        for (registry, may) in [
            ("localhost:5000", true),
            ("localhost", true),
            ("127.0.0.1:1", true),
            ("127.1.2.3", true),
            ("[::1]:5000", true),
            ("10.1.2.3:5000", true),
            ("172.16.0.1", true),
            ("172.32.0.1", false),
            ("192.168.7.7", true),
            ("nas.local:80", true),
            ("old:5000", true),
            ("old", false),
            ("registry.example", false),
            ("localhost.example", false),
            ("index.docker.io", false),
        ] {
            let schemes = place(registry).schemes(Access::Pull, &settings);
            assert_eq!(schemes[0], Scheme::Https, "{registry}");
            assert_eq!(schemes.contains(&Scheme::Http), may, "{registry}");
        }
        let push = Settings { insecure_push: true, skip_tls_verify_pull: true, ..Settings::default() };
        let far = place("registry.example");
        assert_eq!(far.schemes(Access::Push, &push).len(), 2);
        assert_eq!(far.schemes(Access::Pull, &push).len(), 1);
        assert!(far.skips_tls_verify(Access::Pull, &push) && !far.skips_tls_verify(Access::Push, &push));
    }
}
