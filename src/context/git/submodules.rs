//! Submodules: which are there, and where do they come from?

use gix::bstr::ByteSlice;
use gix::index::entry::Mode;

use super::clone::Asked;
use super::{Error, History, Repository, Revision};
use crate::http::Address;

/// A repository within another.
pub(super) struct Submodule {
    /// Where in the other.
    pub(super) path: String,
    /// What is there; or why it cannot be said.
    pub(super) repository: Result<Repository, Error>,
}

/// The submodules of what `index` lists, a checked-out commit of `outer`.
pub(super) fn of(
    git: &gix::Repository,
    index: &gix::index::File,
    outer: &Repository,
    asked: &Asked<'_>,
) -> Result<Vec<Submodule>, Error> {
    let wanted: Vec<_> = index.entries().iter().filter(|entry| entry.mode == Mode::COMMIT).collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    // as it is in the commit: in the working tree it could be a symlink
    let listed = index.entry_by_path(".gitmodules".into()).filter(|entry| entry.mode != Mode::SYMLINK);
    let text = listed.map(|entry| git.find_object(entry.id)).transpose();
    let text = text.map_err(|source| asked.failed("read .gitmodules", source))?.map(|object| object.data.clone());
    let modules = gix::submodule::File::from_bytes(&text.unwrap_or_default(), None, &git.config_snapshot());
    let modules = modules.map_err(|source| asked.failed("read .gitmodules", source))?;
    let address_of = |path: &gix::bstr::BStr| {
        let name = modules.names().find(|name| modules.path(name).is_ok_and(|listed| listed.as_bstr() == path))?;
        let url = modules.config().string_by("submodule", Some(name), "url")?;
        Some(url.to_string())
    };
    let found = wanted.into_iter().map(|entry| {
        let path = entry.path(index);
        let repository = match address_of(path) {
            None => Err(Error::Unlisted),
            Some(text) => match address(&text, &outer.address) {
                None => Err(Error::SubmoduleAddress { address: text }),
                Some(address) => Ok(repository(address, &entry.id.to_string(), outer)),
            },
        };
        Submodule { path: path.to_string(), repository }
    });
    Ok(found.collect())
}

fn repository(address: Address, commit: &str, outer: &Repository) -> Repository {
    Repository {
        skips_verify: outer.skips_verify && address.shares_server_with(&outer.address),
        revision: Revision::Commit(commit.parse().expect("git writes all digits")),
        expected: None,
        directory: None,
        keeps_git_directory: outer.keeps_git_directory,
        has_submodules: true,
        history: History::NONE,
        address,
    }
}

/// What an address in `.gitmodules` means: relative ones count from the directory that the repository itself would be.
fn address(text: &str, outer: &Address) -> Option<Address> {
    if text.starts_with("./") || text.starts_with("../") {
        return outer.with_path(&format!("{}/", outer.path().trim_end_matches('/'))).join(text);
    }
    Some(text.parse::<Address>().ok()?.with_login_of(outer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let outer: Address = "https://me:secret@h/group/outer.git".parse().expect("an address");
        for (text, meant) in [
            ("../inner.git", Some("https://h/group/inner.git")),
            ("./inner.git", Some("https://h/group/outer.git/inner.git")),
            ("../../other/inner.git", Some("https://h/other/inner.git")),
            ("../../../../../inner.git", Some("https://h/inner.git")),
            ("https://other/inner.git", Some("https://other/inner.git")),
            ("git@h:inner.git", None),
            ("ssh://h/inner.git", None),
            ("/etc", None),
            ("file:///etc", None),
        ] {
            assert_eq!(address(text, &outer).map(|found| found.to_string()).as_deref(), meant, "{text}");
        }
        let same = address("../inner.git", &outer).expect("an address");
        assert_eq!(same, "https://me:secret@h/group/inner.git".parse().expect("an address"));
        let other = address("https://other/inner.git", &outer).expect("an address");
        assert_eq!(other, "https://other/inner.git".parse().expect("an address"));
    }
}
