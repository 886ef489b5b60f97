//! The admin key of a development server: made once, kept in the data folder, found there by the command line.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::config::{Config, Secret, empty_layer};

/// Its name in the data folder.
pub(super) const FILE_NAME: &str = "admin.key";

/// Random bytes of a key.
const KEY_BYTES: usize = 32;

/// The key in `folder`, made now if there is none. The folder is made, too.
///
/// # Errors
/// The folder or the file cannot be read or written.
pub(super) fn find_or_make(folder: &Path) -> anyhow::Result<Secret> {
    if let Some(key) = find(folder).with_context(|| unusable(folder))? {
        return Ok(key);
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).with_context(|| unusable(folder))?;
    let key = new_key()?;
    let path = folder.join(FILE_NAME);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| unusable(folder))?;
    file.set_permissions(fs::Permissions::from_mode(0o600))
        .and_then(|()| file.write_all(format!("{}\n", key.expose()).as_bytes()))
        .and_then(|()| file.sync_all())
        .with_context(|| unusable(folder))?;
    Ok(key)
}

/// The key in `folder`, if there is one.
fn find(folder: &Path) -> io::Result<Option<Secret>> {
    match fs::read_to_string(folder.join(FILE_NAME)) {
        Ok(text) if text.trim().is_empty() => Ok(None),
        Ok(text) => Ok(Some(Secret::new(text.trim()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The key of the development server on this machine, for commands that talk to it: out of the data folder that the
/// environment, `./yoink.toml` or the default names. Only for `url` on this machine: a key is never sent elsewhere.
pub(super) fn of_local_server(url: &reqwest::Url) -> Option<Secret> {
    let is_local = match url.host_str()? {
        "localhost" => true,
        host => host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback()),
    };
    if !is_local {
        return None;
    }
    let config = Config::load(empty_layer(), None).ok();
    let folder = config.map_or_else(|| PathBuf::from("yoink-data"), |config| config.data);
    find(&folder).ok().flatten()
}

/// A key that nobody can guess.
///
/// # Errors
/// The operating system has no randomness.
pub(super) fn new_key() -> anyhow::Result<Secret> {
    let mut bytes = [0_u8; KEY_BYTES];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| anyhow::anyhow!("the operating system gave no random bytes"))?;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Secret::new(format!("yk_{digits}")))
}

fn unusable(folder: &Path) -> String {
    format!("cannot keep the admin key in {}: check that it may be written to", folder.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_and_only_its_owner_may_read_it() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("a").join("data");
        let key = find_or_make(&folder).unwrap();
        assert_eq!(find_or_make(&folder).unwrap(), key);
        assert!(key.expose().len() >= 64);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder.join(FILE_NAME)), 0o600);
        assert_eq!(mode(&folder), 0o700);
    }

    #[test]
    fn two_keys_differ() {
        assert_ne!(new_key().unwrap(), new_key().unwrap());
    }

    #[test]
    fn a_local_key_is_never_sent_to_another_machine() {
        assert_eq!(of_local_server(&"http://192.0.2.1:3000".parse().unwrap()), None);
        assert_eq!(of_local_server(&"http://shop.example".parse().unwrap()), None);
    }
}
