//! Where the programs of PostgreSQL are, as whom they run, and a data folder to copy.

use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::service::{ServerError, cannot};

/// Debian keeps each version's programs in `VERSION/bin` in here.
const VERSIONS: &str = "/usr/lib/postgresql";
/// The user that Debian's package makes.
const USER: &str = "postgres";
/// Only the owner may enter: PostgreSQL insists.
const FOLDER_MODE: u32 = 0o700;

/// A user and its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    uid: u32,
    gid: u32,
}

/// The programs of one version.
#[derive(Debug)]
pub(crate) struct Programs {
    version: u32,
    folder: PathBuf,
    user: Option<User>,
}

impl Programs {
    /// Finds the newest version that is installed.
    pub(crate) fn find() -> Result<Programs, ServerError> {
        let versions = std::fs::read_dir(VERSIONS).into_iter().flatten().flatten();
        let numbered = versions.filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        });
        let newest = numbered.filter(|(_, folder): &(u32, _)| folder.join("initdb").is_file()).max();
        let (version, folder) = newest.ok_or(ServerError::NotInstalled { program: "postgres" })?;
        Ok(Programs { version, folder, user: user_to_run_as()? })
    }

    /// As whom PostgreSQL runs if that is not who we are: it refuses to run as root.
    pub(crate) fn user(&self) -> Option<User> {
        self.user
    }

    /// The program `name`, run as the right user and without variables that would change what it does.
    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.folder.join(name));
        command.env_clear().env("LC_ALL", "C").env("TZ", "UTC").current_dir("/");
        if let Some(User { uid, gid }) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// A new folder that belongs to the user who runs PostgreSQL.
    pub(crate) fn make_folder(&self) -> Result<TempDir, ServerError> {
        let make = || {
            let folder = TempDir::with_prefix("yoink-postgres-")?;
            give(folder.path(), self.user)?;
            Ok(folder)
        };
        make().map_err(cannot("make a folder for PostgreSQL"))
    }

    /// A data folder to copy, made if there is none. It lies beside the running program, which is in the build folder
    /// for tests, and holds for all minor versions.
    pub(crate) fn template(&self) -> Result<PathBuf, ServerError> {
        let program = std::env::current_exe().map_err(cannot("find the running program"))?;
        let place = program.with_file_name(format!("yoink-postgres-template-{}", self.version));
        if !place.exists() {
            self.make_template(&place)?;
        }
        Ok(place)
    }

    fn make_template(&self, place: &Path) -> Result<(), ServerError> {
        let folder = self.make_folder()?;
        let made = folder.path().join("data");
        self.initdb(&made)?;
        // IMPORTANT: whole under another name first, because other test processes may look for it at this moment.
        let draft = place.with_extension(format!("draft-{}", std::process::id()));
        let action = || format!("keep a PostgreSQL data folder in {}", place.display());
        copy_folder(&made, &draft, None).map_err(cannot(action()))?;
        match std::fs::rename(&draft, place) {
            Ok(()) => Ok(()),
            Err(error) => {
                std::fs::remove_dir_all(&draft).ok();
                // Somebody else was faster, which is as good.
                if place.exists() { Ok(()) } else { Err(cannot(action())(error)) }
            }
        }
    }

    fn initdb(&self, data: &Path) -> Result<(), ServerError> {
        let output = self
            .command("initdb")
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"])
            .arg("--pgdata")
            .arg(data)
            .stdin(Stdio::null())
            .output()
            .map_err(cannot("run initdb"))?;
        if output.status.success() {
            return Ok(());
        }
        let output_text = [output.stdout, output.stderr].concat();
        Err(ServerError::Helper {
            program: "initdb",
            status: output.status,
            output: String::from_utf8_lossy(&output_text).into_owned(),
        })
    }
}

/// Copies the folder `from` with all that is in it to `to`, which must not exist, and gives it to `owner`.
pub(crate) fn copy_folder(from: &Path, to: &Path, owner: Option<User>) -> io::Result<()> {
    std::fs::create_dir(to)?;
    std::fs::set_permissions(to, PermissionsExt::from_mode(FOLDER_MODE))?;
    give(to, owner)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target, owner)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
            give(&target, owner)?;
        }
    }
    Ok(())
}

fn give(path: &Path, owner: Option<User>) -> io::Result<()> {
    match owner {
        Some(User { uid, gid }) => chown(path, Some(uid), Some(gid)),
        None => Ok(()),
    }
}

fn user_to_run_as() -> Result<Option<User>, ServerError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd").map_err(cannot("read /etc/passwd"))?;
    let user = user_in(&users, USER).ok_or(ServerError::NotInstalled { program: "postgres" })?;
    Ok(Some(user))
}

fn user_in(users: &str, name: &str) -> Option<User> {
    let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut found = fields.filter_map(|fields| match fields.as_slice() {
        [found, _, uid, gid, ..] if *found == name => {
            Some(User { uid: uid.parse().ok()?, gid: gid.parse().ok()? })
        }
        _ => None,
    });
    found.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let users =
            "root:x:0:0:root:/root:/bin/bash\npostgres2:x:7:8::/:\npostgres:x:101:104:,,,:/:/bin/sh\n";
        assert_eq!(user_in(users, "postgres"), Some(User { uid: 101, gid: 104 }));
        assert_eq!(user_in(users, "post"), None);
    }
}
