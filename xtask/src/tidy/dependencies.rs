//! What comes from others: crates of the public registry only, under licences and without crates that `deny.toml`
//! names. `cargo deny` knows more, above all advisories, but is not everywhere; this needs cargo alone.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Breach;

const POLICY_FILE: &str = "deny.toml";

/// What `deny.toml` says, as far as it is checked here.
#[derive(Debug, PartialEq, Eq)]
struct Policy {
    targets: Vec<String>,
    licences: Vec<String>,
    banned: Vec<String>,
}

/// Checks everything that may be built for the targets of `deny.toml`, tests and build scripts included.
///
/// # Errors
/// `deny.toml` cannot be read, or cargo does not know the dependencies.
pub(super) fn breaches(root: &Path) -> Result<Vec<Breach>> {
    let text = std::fs::read_to_string(root.join(POLICY_FILE))
        .with_context(|| format!("cannot read {POLICY_FILE}"))?;
    let policy = Policy::parse(&text)?;
    let mut breaches = Vec::new();
    for target in &policy.targets {
        for breach in check(&metadata(root, target)?, &policy) {
            if !breaches.contains(&breach) {
                breaches.push(breach);
            }
        }
    }
    Ok(breaches)
}

fn metadata(root: &Path, target: &str) -> Result<Value> {
    // Asks the network only for crates that were never fetched.
    let arguments = ["metadata", "--locked", "--all-features", "--format-version", "1", "--filter-platform"];
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(arguments)
        .arg(target)
        .current_dir(root)
        .output()
        .context("cannot run cargo")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo does not know the dependencies: {said}");
    serde_json::from_slice(&output.stdout).context("cargo metadata did not write JSON")
}

impl Policy {
    fn parse(text: &str) -> Result<Policy> {
        let policy = Policy {
            targets: list(text, "[graph]", "targets"),
            licences: list(text, "[licenses]", "allow"),
            banned: list(text, "[bans]", "deny"),
        };
        let is_whole =
            [&policy.targets, &policy.licences, &policy.banned].iter().all(|list| !list.is_empty());
        ensure!(is_whole, "{POLICY_FILE} must list graph.targets, licenses.allow and bans.deny");
        Ok(policy)
    }
}

/// The strings of a list, or the names where its entries are tables. Lists begin with `key = [` and end with a line
/// that ends with `]`.
fn list(text: &str, section: &str, key: &str) -> Vec<String> {
    let (mut is_here, mut is_inside) = (false, false);
    let mut entries = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let mut entry = line;
        if !is_inside {
            if line.starts_with('[') {
                is_here = line == section;
            }
            let value = line.strip_prefix(key).and_then(|rest| rest.trim_start().strip_prefix("= ["));
            let (true, Some(value)) = (is_here, value) else { continue };
            entry = value;
        }
        let quoted = entry.split('"').skip(1).step_by(2);
        let is_table = entry.starts_with('{');
        entries.extend(quoted.take(if is_table { 1 } else { usize::MAX }).map(str::to_owned));
        is_inside = !entry.ends_with(']');
    }
    entries
}

/// What a document of `cargo metadata` breaks.
fn check(metadata: &Value, policy: &Policy) -> Vec<Breach> {
    let packages: BTreeMap<&str, &Value> =
        array(metadata, "packages").iter().map(|package| (text(package, "id"), package)).collect();
    let members: BTreeSet<&str> =
        array(metadata, "workspace_members").iter().filter_map(Value::as_str).collect();
    let mut breaches = Vec::new();
    let mut say = |package: &Value, rule, what: String| {
        let what = format!("{} {} {what}", text(package, "name"), text(package, "version"));
        breaches.push(Breach { path: "Cargo.lock".to_owned(), line: 0, rule, what, size: 1 });
    };
    for (id, package) in &packages {
        if !members.contains(id) && !text(package, "source").starts_with("registry+") {
            say(
                package,
                "dependency-source",
                "is not from the registry: depend on a published version".into(),
            );
        }
        for dependency in array(package, "dependencies").iter().filter(|one| !one["registry"].is_null()) {
            let name = text(dependency, "name");
            say(package, "dependency-source", format!("takes {name} from a registry of its own"));
        }
    }
    for id in built(metadata, &packages, &members).difference(&members) {
        let Some(package) = packages.get(id) else { continue };
        let licence = text(package, "license");
        if !is_allowed(licence, &policy.licences) {
            let what = format!("has the licence {licence:?}, which {POLICY_FILE} does not allow");
            say(package, "dependency-licence", what);
        }
        if policy.banned.iter().any(|banned| banned == text(package, "name")) {
            say(package, "dependency-banned", format!("is banned; {POLICY_FILE} says why"));
        }
    }
    breaches
}

/// The packages that are really built, the workspace's own included. Cargo also lists what an optional dependency would
/// bring along if somebody switched it on.
fn built<'a>(
    metadata: &'a Value,
    packages: &BTreeMap<&str, &Value>,
    members: &BTreeSet<&'a str>,
) -> BTreeSet<&'a str> {
    let nodes: BTreeMap<&str, &Value> =
        array(&metadata["resolve"], "nodes").iter().map(|node| (text(node, "id"), node)).collect();
    let mut built = BTreeSet::new();
    let mut open: Vec<&str> = members.iter().copied().collect();
    while let Some(id) = open.pop() {
        if !built.insert(id) {
            continue;
        }
        let (Some(node), Some(package)) = (nodes.get(id), packages.get(id)) else { continue };
        for dependency in array(node, "deps").iter().map(|dependency| text(dependency, "pkg")) {
            let name = packages.get(dependency).map_or("", |package| text(package, "name"));
            if is_switched_on(package, node, name) {
                open.push(dependency);
            }
        }
    }
    built
}

fn is_switched_on(package: &Value, node: &Value, name: &str) -> bool {
    let entries = || array(package, "dependencies").iter().filter(|entry| text(entry, "name") == name);
    if entries().next().is_none() || entries().any(|entry| entry["optional"] != true) {
        return true;
    }
    let features = array(node, "features").iter().filter_map(Value::as_str);
    let parts: Vec<&str> = features
        .flat_map(|feature| array(&package["features"], feature).iter().filter_map(Value::as_str))
        .collect();
    entries().any(|entry| {
        let key = entry["rename"].as_str().unwrap_or(name);
        let switches = |part: &&str| {
            part.strip_prefix("dep:") == Some(key) || part.split_once('/').is_some_and(|(to, _)| to == key)
        };
        parts.iter().any(switches)
    })
}

/// Whether an SPDX expression can be met with these licences.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    // A slash is how OR was written in former times.
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let is_met = any_of(&mut words, allowed);
    is_met == Some(true) && words.next().is_none()
}

fn any_of<'a>(words: &mut Peekable<impl Iterator<Item = &'a str>>, allowed: &[String]) -> Option<bool> {
    let mut is_met = all_of(words, allowed)?;
    while words.next_if_eq(&"OR").is_some() {
        is_met |= all_of(words, allowed)?;
    }
    Some(is_met)
}

fn all_of<'a>(words: &mut Peekable<impl Iterator<Item = &'a str>>, allowed: &[String]) -> Option<bool> {
    let mut is_met = one(words, allowed)?;
    while words.next_if_eq(&"AND").is_some() {
        is_met &= one(words, allowed)?;
    }
    Some(is_met)
}

fn one<'a>(words: &mut Peekable<impl Iterator<Item = &'a str>>, allowed: &[String]) -> Option<bool> {
    let word = words.next()?;
    if word == "(" {
        let is_met = any_of(words, allowed)?;
        return words.next_if_eq(&")").map(|_| is_met);
    }
    let mut licence = word.to_owned();
    if words.next_if_eq(&"WITH").is_some() {
        licence = format!("{licence} WITH {}", words.next()?);
    }
    Some(allowed.contains(&licence))
}

/// The members of an array; none where there is no such array.
fn array<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn policy() -> Policy {
        Policy::parse(
            "[graph]\ntargets = [\"a\", \"b\"] # two\n[licenses]\nallow = [\n  \"MIT\",\n  \"Zlib\",\n]\n[bans]\n\
             allow = \"x\"\ndeny = [\n  { name = \"evil\", reason = \"\\\"no\\\"\" },\n]\n",
        )
        .unwrap()
    }

    /// A workspace of one crate that depends on `good`, which may depend on `evil` by its feature `more`.
    fn sound() -> Value {
        let registry = "registry+https://registry.example/index";
        let optional = json!({"name": "evil", "optional": true, "rename": null, "registry": null});
        json!({
            "workspace_members": ["own"],
            "packages": [
                {"id": "own", "name": "own", "version": "1.0.0", "source": null, "license": "none",
                 "dependencies": [{"name": "good", "optional": false, "registry": null}], "features": {}},
                {"id": "good", "name": "good", "version": "1.0.0", "source": registry, "license": "MIT",
                 "dependencies": [optional],
                 "features": {"evil": ["dep:evil"], "more": ["evil/std"], "std": ["evil?/std"]}},
                {"id": "evil", "name": "evil", "version": "1.0.0", "source": registry, "license": "GPL-3.0",
                 "dependencies": [], "features": {}},
            ],
            "resolve": {"nodes": [
                {"id": "own", "deps": [{"pkg": "good"}], "features": []},
                {"id": "good", "deps": [{"pkg": "evil"}], "features": ["std"]},
                {"id": "evil", "deps": [], "features": []},
            ]},
        })
    }

    #[track_caller]
    fn broken(change: impl FnOnce(&mut Value), rules: &[&str]) {
        let mut metadata = sound();
        change(&mut metadata);
        let found: Vec<_> = check(&metadata, &policy()).into_iter().map(|breach| breach.rule).collect();
        assert_eq!(found, rules);
    }

    #[test]
    fn a_dependency_from_anywhere_but_the_registry_is_seen() {
        broken(|_| (), &[]);
        let from = |source: Value| move |metadata: &mut Value| metadata["packages"][1]["source"] = source;
        broken(from(json!("git+https://elsewhere.example/good#1234")), &["dependency-source"]);
        broken(from(Value::Null), &["dependency-source"]);
        broken(
            |metadata| {
                metadata["packages"][0]["dependencies"][0]["registry"] = json!("https://own.example");
            },
            &["dependency-source"],
        );
    }

    #[test]
    fn a_licence_that_is_not_allowed_is_seen() {
        let of = |licence: Value| move |metadata: &mut Value| metadata["packages"][1]["license"] = licence;
        broken(of(json!("Zlib OR GPL-3.0")), &[]);
        broken(of(json!("Zlib AND GPL-3.0")), &["dependency-licence"]);
        broken(of(Value::Null), &["dependency-licence"]);
    }

    #[test]
    fn a_banned_crate_is_seen_where_something_switches_it_on() {
        let with = |feature: &'static str| {
            move |metadata: &mut Value| metadata["resolve"]["nodes"][1]["features"] = json!([feature])
        };
        broken(with("std"), &[]);
        for feature in ["evil", "more"] {
            broken(with(feature), &["dependency-licence", "dependency-banned"]);
        }
        broken(
            |metadata| metadata["packages"][1]["dependencies"][0]["optional"] = json!(false),
            &["dependency-licence", "dependency-banned"],
        );
    }

    #[test]
    fn expressions_of_licences_are_read_as_spdx_does() {
        let allowed = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned);
        for (expression, expected) in [
            ("MIT", true),
            ("Apache-2.0/MIT", true),
            ("Apache-2.0 / GPL-3.0", false),
            ("GPL-3.0 OR MIT AND ISC", true),
            ("MIT OR ISC AND GPL-3.0", true),
            ("(MIT OR ISC) AND GPL-3.0", false),
            ("ISC AND (GPL-3.0 OR MIT)", true),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("Apache-2.0", false),
            ("MIT WITH some-exception", false),
            ("MIT MIT", false),
            ("(MIT", false),
            ("MIT OR", false),
            ("", false),
        ] {
            assert_eq!(is_allowed(expression, &allowed), expected, "{expression}");
        }
    }

    #[test]
    fn the_policy_is_read_from_its_file_and_may_not_be_empty() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let expected = Policy {
            targets: names(&["a", "b"]),
            licences: names(&["MIT", "Zlib"]),
            banned: names(&["evil"]),
        };
        assert_eq!(policy(), expected);
        assert!(Policy::parse("[licenses]\nallow = [\"MIT\"]\n").is_err());
        let own = std::fs::read_to_string(crate::root().unwrap().join(POLICY_FILE)).unwrap();
        let own = Policy::parse(&own).unwrap();
        assert!(own.licences.iter().any(|name| name == "MIT"), "{own:?}");
        assert!(own.banned.iter().any(|name| name == "openssl-sys"), "{own:?}");
    }
}
