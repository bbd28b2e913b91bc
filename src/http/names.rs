//! [`Names`]: which addresses has a host? By the files of the container as they are at the start: builds replace the root
//! that they are in, and a base image's own files speak of another network.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use hickory_resolver::config::{LookupIpStrategy, ResolveHosts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::RecordType;
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Hosts, TokioResolver};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::Error;

/// Answers for all connections. Clones share what was learnt.
#[derive(Clone)]
pub(super) struct Names {
    /// A name that is here is not asked for, in either kind of address: its name servers may be out of reach.
    hosts: Arc<Hosts>,
    resolver: TokioResolver,
}

impl Names {
    /// Reads the files. Must be called within the runtime that the questions will be asked in.
    pub(super) fn load() -> Result<Names, Error> {
        Names::new(&contents("/etc/resolv.conf"), &contents("/etc/hosts"))
    }

    fn new(resolv_conf: &[u8], hosts: &[u8]) -> Result<Names, Error> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Start { source };
        // resolv.conf(5): without an entry, the name server of the local machine
        let (config, mut options) = parse_resolv_conf(resolv_conf)
            .or_else(|_| parse_resolv_conf([resolv_conf, b"\nnameserver 127.0.0.1\n"].concat()))
            .map_err(|error| failed(error.into()))?;
        // the connections try both kinds of addresses side by side
        options.ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
        options.use_hosts_file = ResolveHosts::Never;
        let mut known = Hosts::default();
        known.read_hosts_conf(String::from_utf8_lossy(hosts).as_bytes()).map_err(|error| failed(error.into()))?;
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let mut resolver = builder.with_options(options).build().map_err(|error| failed(error.into()))?;
        let hosts = Arc::new(known);
        resolver.set_hosts(Arc::clone(&hosts));
        Ok(Names { hosts, resolver })
    }

    fn in_hosts(&self, name: &str) -> Vec<SocketAddr> {
        let Ok(name) = hickory_resolver::proto::rr::Name::from_utf8(name) else { return Vec::new() };
        [RecordType::AAAA, RecordType::A]
            .into_iter()
            .filter_map(|kind| self.hosts.lookup_static_host(&Query::query(name.clone(), kind)))
            .flat_map(|found| found.answers().iter().filter_map(|record| record.data.ip_addr()).collect::<Vec<_>>())
            .map(|address| SocketAddr::new(address, 0))
            .collect()
    }
}

/// Nothing where a runtime gives no such file.
fn contents(path: impl AsRef<Path>) -> Vec<u8> {
    fs::read(&path).unwrap_or_else(|error| {
        if error.kind() != io::ErrorKind::NotFound {
            tracing::warn!("read {}: {error}; done without it", path.as_ref().display());
        }
        Vec::new()
    })
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let names = self.clone();
        Box::pin(async move {
            let mut addresses = names.in_hosts(name.as_str());
            if addresses.is_empty() {
                let found = names.resolver.lookup_ip(name.as_str()).await?;
                addresses = found.iter().map(|address| SocketAddr::new(address, 0)).collect();
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_count_without_any_name_server() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let hosts = b"127.0.0.1 localhost\n10.1.2.3\tregistry.example registry # ours\n::1 registry\n";
        for resolv_conf in ["", "search example\n", "nonsense\n"] {
            let found = |name: &str| -> Vec<String> {
                runtime.block_on(async {
                    let names = Names::new(resolv_conf.as_bytes(), hosts).expect("made");
                    let found = names.resolve(name.parse().expect("a name")).await.expect("known");
                    found.map(|address| address.ip().to_string()).collect()
                })
            };
            assert_eq!(found("registry.example"), ["10.1.2.3"], "{resolv_conf:?}");
            assert_eq!(found("Registry"), ["::1", "10.1.2.3"], "{resolv_conf:?}");
        }
    }
}
