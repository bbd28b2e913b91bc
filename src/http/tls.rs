//! Whom TLS trusts and who we are in it. All files are read at the start: builds replace the root that they are in.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};

use super::client::is_loopback;
use super::names::Names;
use super::verifier::{Anybody, Verifier};
use super::{Error, Settings};

/// Certificates and keys, loaded.
pub(super) struct Certificates {
    provider: Arc<CryptoProvider>,
    authorities: Vec<CertificateDer<'static>>,
    authorities_by_host: HashMap<String, Vec<CertificateDer<'static>>>,
    identities: HashMap<String, Arc<SingleCertAndKey>>,
}

/// What tells one kind of connection from another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Trust {
    /// The host whose certificate authorities count: of a registry, also for the storage and the token server that it
    /// names.
    pub authorities_of: String,
    /// The host that is spoken to: our own certificate is shown to the one that it is for, and to no other.
    pub host: String,
    /// Any certificate will do.
    pub skips_verify: bool,
}

impl Certificates {
    pub(super) fn load(settings: &Settings) -> Result<Certificates, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::debug!("system certificates: {error}");
        }
        let mut authorities = found.certs;
        for directory in &settings.extra_ca_directories {
            authorities.extend(directory_certificates(directory));
        }
        let mut authorities_by_host = HashMap::new();
        for (host, path) in &settings.authorities {
            authorities_by_host.insert(host.clone(), bundle(path)?);
        }
        let mut identities = HashMap::new();
        for (host, (certificate, key)) in &settings.identities {
            identities.insert(host.clone(), Arc::new(identity(certificate, key, &provider)?));
        }
        Ok(Certificates { provider, authorities, authorities_by_host, identities })
    }

    /// Makes the connections for a kind of trust. This machine is not reached through a proxy.
    pub(super) fn client(&self, trust: &Trust, names: &Names, settings: &Settings) -> Result<reqwest::Client, Error> {
        let mut builder = reqwest::Client::builder()
            .user_agent(&settings.user_agent)
            .dns_resolver(names.clone())
            .connect_timeout(settings.patience.min(CONNECT_PATIENCE))
            .redirect(reqwest::redirect::Policy::none())
            .tls_backend_preconfigured(self.config(trust)?);
        if is_loopback(&trust.host) {
            builder = builder.no_proxy();
        }
        builder.build().map_err(|source| Error::Start { source: source.into() })
    }

    fn config(&self, trust: &Trust) -> Result<ClientConfig, Error> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|source| Error::Start { source: source.into() })?;
        let builder = match self.verifier(trust) {
            Some(verifier) => builder.dangerous().with_custom_certificate_verifier(verifier),
            None => builder.with_root_certificates(RootCertStore::empty()),
        };
        let mut config = match self.identities.get(&trust.host) {
            Some(identity) => builder.with_client_cert_resolver(Arc::clone(identity) as _),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec!["h2".into(), "http/1.1".into()];
        Ok(config)
    }

    /// Who is believed; nobody, if no certificate is there.
    fn verifier(&self, trust: &Trust) -> Option<Arc<dyn ServerCertVerifier>> {
        if trust.skips_verify {
            return Some(Arc::new(Anybody::new(&self.provider)));
        }
        let own = self.authorities_by_host.get(&trust.authorities_of).into_iter().flatten();
        let given = self.authorities.iter().chain(own).cloned().collect();
        Some(Arc::new(Verifier::new(given, &self.provider)?))
    }
}

/// A host that does not take a connection within this time will not: there may be another scheme or mirror to try.
const CONNECT_PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Read { path: path.to_path_buf(), source })
}

/// The certificates of a PEM file, of which at least one can be an anchor of trust.
fn bundle(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bad = |source| Error::BadCertificate { path: path.to_path_buf(), source };
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<_, _>>()
        .map_err(|source| bad(Some(source.into())))?;
    let (proper, _) = RootCertStore::empty().add_parsable_certificates(certificates.iter().cloned());
    if proper == 0 { Err(bad(None)) } else { Ok(certificates) }
}

fn identity(certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<SingleCertAndKey, Error> {
    let bad = |path: &Path, source| Error::BadCertificate { path: path.to_path_buf(), source: Some(source) };
    let chain = bundle(certificate)?;
    let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|source| bad(key, source.into()))?;
    let pair = CertifiedKey::from_der(chain, private, provider).map_err(|source| bad(key, source.into()))?;
    Ok(SingleCertAndKey::from(pair))
}

/// As OpenSSL reads such a directory: what is no certificate is passed over.
fn directory_certificates(directory: &Path) -> Vec<CertificateDer<'static>> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    paths.sort();
    let mut certificates = Vec::new();
    for path in paths {
        match bundle(&path) {
            Ok(found) => certificates.extend(found),
            Err(error) => tracing::debug!("passed over: {error}"),
        }
    }
    certificates
}
