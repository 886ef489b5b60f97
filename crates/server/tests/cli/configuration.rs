//! Flag, environment, file, default: in that order.

use crate::{json_of, refusal_of, text_of, yoink};

#[test]
fn a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default() {
    let folder = tempfile::tempdir().unwrap();
    let listen =
        |command: &mut assert_cmd::Command| json_of(command).1["listen"].as_str().unwrap().to_owned();
    assert_eq!(listen(yoink(folder.path()).args(["config", "--json"])), "127.0.0.1:3000");
    std::fs::write(folder.path().join("yoink.toml"), "listen = \"127.0.0.1:3001\"\n").unwrap();
    assert_eq!(listen(yoink(folder.path()).args(["config", "--json"])), "127.0.0.1:3001");
    let with_environment = || {
        let mut command = yoink(folder.path());
        command.env("YOINK_LISTEN", "127.0.0.1:3002").args(["config", "--json"]);
        command
    };
    assert_eq!(listen(&mut with_environment()), "127.0.0.1:3002");
    assert_eq!(listen(with_environment().args(["--listen", "127.0.0.1:3003"])), "127.0.0.1:3003");
}

#[test]
fn another_file_can_be_named_and_must_exist() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("other.toml"), "[delivery]\nattempts_max = 7\n").unwrap();
    let (_, config) = json_of(yoink(folder.path()).args(["config", "--json", "--config", "other.toml"]));
    assert_eq!(config["delivery"]["attempts_max"], 7);
    let refusal = refusal_of(yoink(folder.path()).args(["config", "--config", "missing.toml"]), 1);
    assert!(refusal.contains("missing.toml"), "{refusal}");
}

#[test]
fn an_unknown_setting_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("yoink.toml"), "[http]\nbody_bytes = 3\n").unwrap();
    let refusal = refusal_of(yoink(folder.path()).arg("serve"), 1);
    assert!(refusal.contains("body_bytes") && refusal.contains("yoink.toml"), "{refusal}");
}

#[test]
fn what_config_prints_is_a_file_that_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (_, before) = json_of(yoink(folder.path()).args(["config", "--json", "--workers", "3"]));
    let text = text_of(yoink(folder.path()).args(["config", "--workers", "3"]));
    std::fs::write(folder.path().join("yoink.toml"), text).unwrap();
    let (_, after) = json_of(yoink(folder.path()).args(["config", "--json"]));
    assert_eq!(before, after);
}

#[test]
fn the_default_file_can_be_used_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (_, before) = json_of(yoink(folder.path()).args(["config", "--json"]));
    let text = text_of(yoink(folder.path()).args(["config", "--default"]));
    assert_eq!(text, include_str!("../../../../config.default.toml"));
    std::fs::write(folder.path().join("yoink.toml"), text).unwrap();
    assert_eq!(json_of(yoink(folder.path()).args(["config", "--json"])).1, before);
}

#[test]
fn secrets_are_not_printed() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = yoink(folder.path());
    command
        .env("YOINK_ADMIN_KEY", "canary-admin-0123456789abcdef0123456789")
        .env("YOINK_JWT_SECRETS", "a:canary-token-0123456789abcdef0123456789")
        .env("YOINK_REDIS_URL", "redis://shop:canary-redis@127.0.0.1:1")
        .env("YOINK_POSTGRES_URL", "postgres://shop:canary-postgres@127.0.0.1:1/shop")
        .args(["config", "--log-level", "trace"]);
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("(secret)") && !text.contains("canary"), "{text}");
}

#[test]
fn a_new_key_comes_with_its_entry_and_is_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["config", "--new-key", "shop", "--scopes", "buy,orders:read", "--json"];
    let (code, made) = json_of(yoink(folder.path()).args(arguments));
    assert_eq!(code, 0);
    let text = text_of(yoink(folder.path()).args(["config", "--new-key", "shop"]));
    let entry = text.lines().find(|line| line.starts_with("keys = ")).unwrap();
    std::fs::write(folder.path().join("yoink.toml"), entry).unwrap();
    let (_, config) = json_of(yoink(folder.path()).args(["config", "--json"]));
    assert_eq!(config["keys"][0]["name"], "shop");
    let key = made["key"].as_str().unwrap();
    let sha256 = made["entry"]["sha256"].as_str().unwrap();
    assert!(key.len() >= 64 && sha256.len() == 64 && !key.contains(sha256));
}
