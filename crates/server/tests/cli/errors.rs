//! One clear sentence, and a code that scripts can tell apart.

use crate::{BINARY, refusal_of, yoink};
use yoink_testkit::{ADMIN_KEY, Yoink, free_port};

#[test]
fn wrong_usage_ends_with_2() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in
        [&["sevre"][..], &["serve", "--listen", "here"], &["restock"], &["storm", "--buyers", "many"]]
    {
        let refusal = refusal_of(yoink(folder.path()).args(arguments), 2);
        assert!(refusal.contains("error:"), "{arguments:?}: {refusal}");
    }
}

#[test]
fn settings_that_contradict_each_other_are_refused_with_what_to_change() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, words) in [
        (&["serve", "--engine", "rabbitmq"][..], "YOINK_AMQP_URL"),
        (&["serve", "--engine", "redis"], "YOINK_REDIS_URL"),
        (&["serve", "--engine", "redis", "--redis", "redis://127.0.0.1:1"], "YOINK_POSTGRES_URL"),
        (&["serve", "--redis", "redis://127.0.0.1:1"], "add --engine redis"),
        (&["serve", "--durability", "relaxed"], "not for the engine \"embedded\""),
        (&["migrate"], "YOINK_POSTGRES_URL"),
        (&["serve", "--listen", "0.0.0.0:0"], "YOINK_ADMIN_KEY"),
        (&["serve", "--dev", "--listen", "0.0.0.0:0"], "use 127.0.0.1"),
        (&["--listen", "0.0.0.0:0"], "use 127.0.0.1"),
        (&["serve"], "yoink serve --dev"),
    ] {
        let refusal = refusal_of(yoink(folder.path()).args(arguments), 1);
        assert!(refusal.starts_with("yoink: ") && refusal.contains(words), "{arguments:?}: {refusal}");
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            0,
            "{arguments:?} left something behind"
        );
    }
}

#[test]
fn a_server_that_is_to_be_reached_with_tls_is_refused_by_whoever_would_use_it() {
    let folder = tempfile::tempdir().unwrap();
    let plain = [
        ("YOINK_ADMIN_KEY", ADMIN_KEY),
        ("YOINK_REDIS_URL", "redis://127.0.0.1:1"),
        ("YOINK_POSTGRES_URL", "postgres://127.0.0.1:1/yoink"),
    ];
    let of_rabbit = [("YOINK_AMQP_URL", "amqp://127.0.0.1:1/")];
    for (variable, url, shown, instead) in [
        ("YOINK_REDIS_URL", "rediss://u:canary@127.0.0.1:1", "rediss://u:(secret)@127.0.0.1:1", "redis://"),
        (
            "YOINK_REDIS_URL",
            "redis://127.0.0.1:1,rediss://127.0.0.1:2",
            "redis://127.0.0.1:1,rediss://127.0.0.1:2",
            "redis://",
        ),
        (
            "YOINK_POSTGRES_URL",
            "postgres://u:canary@127.0.0.1:1/yoink?sslmode=require",
            "postgres://u:(secret)@127.0.0.1:1/yoink?sslmode=require",
            "sslmode=disable",
        ),
        (
            "YOINK_POSTGRES_URL",
            "postgres://127.0.0.1:1/yoink?sslmode=verify-full",
            "postgres://127.0.0.1:1/yoink?sslmode=verify-full",
            "sslmode=disable",
        ),
        ("YOINK_AMQP_URL", "amqps://u:canary@127.0.0.1:1/", "amqps://u:(secret)@127.0.0.1:1/", "amqp://"),
    ] {
        let said = format!(
            "yoink: {shown} asks for TLS, which is not supported yet; use {instead} on a network that nobody listens \
             to, or a TLS tunnel on this machine\n"
        );
        let engines: &[&str] =
            if variable == "YOINK_AMQP_URL" { &["rabbitmq"] } else { &["redis", "rabbitmq"] };
        for engine in engines {
            for command in ["serve", "worker"] {
                let mut yoink = yoink(folder.path());
                yoink.args([command, "--engine", engine]).envs(plain);
                if *engine == "rabbitmq" {
                    yoink.envs(of_rabbit);
                }
                let refusal = refusal_of(yoink.env(variable, url), 1);
                assert_eq!(refusal, said, "{command} --engine {engine} with {url}");
            }
        }
    }
    let mut migrate = yoink(folder.path());
    migrate.args(["migrate", "--postgres", "postgres://127.0.0.1:1/yoink?sslmode=require"]);
    let refusal = refusal_of(&mut migrate, 1);
    assert!(refusal.contains("asks for TLS, which is not supported yet; use sslmode=disable"), "{refusal}");
}

#[test]
fn weak_settings_are_refused_outside_development() {
    let folder = tempfile::tempdir().unwrap();
    let serve = |name: &str, value: &str| {
        let mut command = yoink(folder.path());
        command.arg("serve").env("YOINK_ADMIN_KEY", ADMIN_KEY).env(name, value);
        command
    };
    for (name, value, words) in [
        ("YOINK_ADMIN_KEY", "hunter2", "at least 32"),
        ("YOINK_DURABILITY", "os-buffer", "power loss"),
        ("YOINK_DELIVERY_ATTEMPTS_MAX", "0", "at least 1"),
        ("YOINK_TRUSTED_PROXIES", "0.0.0.0/0", "choose its own address"),
    ] {
        let refusal = refusal_of(&mut serve(name, value), 1);
        assert!(refusal.contains(words), "{name}={value}: {refusal}");
        assert!(!refusal.contains("hunter2"), "{refusal}");
    }
}

#[test]
fn nobody_there_is_said_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("http://{}", free_port().unwrap());
    for arguments in [&["orders"][..], &["audit", "--json"], &["seed"], &["dead-letters", "list"], &["storm"]]
    {
        let refusal = refusal_of(yoink(folder.path()).args(arguments).env("YOINK_URL", &url), 1);
        assert!(refusal.contains("cannot reach") && refusal.contains(&url), "{arguments:?}: {refusal}");
    }
}

#[test]
fn a_wrong_key_is_said() {
    let server = Yoink::new(BINARY).start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut command = yoink(folder.path());
    let refusal = refusal_of(command.args(["audit", "--url", &server.url(), "--admin-key", "wrong"]), 1);
    assert!(refusal.contains("401") && refusal.contains("not this server's"), "{refusal}");
    let refusal = refusal_of(yoink(folder.path()).args(["audit", "--url", &server.url()]), 1);
    assert!(refusal.contains("--admin-key"), "{refusal}");
}

#[test]
fn two_processes_on_one_folder_end_the_second_with_73() {
    let server = Yoink::new(BINARY).start().unwrap();
    let data = server.data().to_str().unwrap();
    let refusal = refusal_of(
        yoink(server.data()).args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data", data]),
        73,
    );
    assert!(refusal.contains("in use") && refusal.contains(data), "{refusal}");
    let refusal = refusal_of(yoink(server.data()).args(["audit", "--data", data]), 73);
    assert!(refusal.contains("in use"), "{refusal}");
    assert_eq!(server.client().get("/readyz").unwrap().status, 200);
}

#[test]
fn two_processes_on_one_port_end_the_second() {
    let server = Yoink::new(BINARY).start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let listen = server.address().to_string();
    let refusal = refusal_of(yoink(folder.path()).args(["serve", "--dev", "--listen", &listen]), 1);
    assert!(refusal.contains(&listen) && refusal.contains("--listen"), "{refusal}");
}

#[test]
fn damaged_data_ends_with_65_and_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut server = Yoink::new(BINARY).data(&data).start().unwrap();
    let body =
        serde_json::json!({"id": "1", "name": "a", "price": {"amount": 1, "currency": "EUR"}, "stock": 5});
    assert_eq!(server.client().post("/v1/admin/products", &body).unwrap().status, 201);
    server.terminate();
    assert!(server.wait_exit(std::time::Duration::from_secs(10)).unwrap().success());
    // The log loses what its beacon promised.
    for name in std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name()) {
        let name = name.to_str().unwrap();
        if name.starts_with("log") || name.starts_with("events") {
            std::fs::remove_file(data.join(name)).unwrap();
        }
    }
    let data = data.to_str().unwrap();
    let start = ["serve", "--dev", "--listen", "127.0.0.1:0", "--data", data];
    let refusal = refusal_of(yoink(folder.path()).args(start), 65);
    assert!(refusal.contains("--accept-loss"), "{refusal}");
}
