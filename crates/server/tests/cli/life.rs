//! Starting, stopping, and starting again.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::json;
use yoink_testkit::{ADMIN_KEY, Yoink, YoinkProcess};

use crate::{BINARY, demo, text_of, yoink};

const EXIT_WITHIN: Duration = Duration::from_secs(10);

#[track_caller]
fn ends_well(mut server: YoinkProcess) -> String {
    server.terminate();
    let status = server.wait_exit(EXIT_WITHIN).expect("it still runs 10 s after SIGTERM");
    assert!(status.success(), "{status}: {}", server.output());
    server.output()
}

/// The whole banner; readiness may be seen before its last line.
fn banner_of(server: &YoinkProcess) -> String {
    server.output_with("Ctrl-C", EXIT_WITHIN)
}

fn buy(server: &YoinkProcess, customer: &str) -> u16 {
    let body = json!({"customer_id": customer, "product_id": "1"});
    server.anonymous_client().post("/v1/orders", &body).unwrap().status
}

#[test]
fn the_demo_says_in_a_few_lines_what_there_is_and_what_to_try() {
    let server = demo().start().unwrap();
    let banner = banner_of(&server);
    let key = server.admin_key();
    assert!(key.len() >= 32);
    for words in
        [&server.url(), "Flash Sale Item", "100 of 100", "fsync", &key, "curl", "yoink storm", "Ctrl-C"]
    {
        assert!(banner.contains(words), "{words:?} is not in\n{banner}");
    }
    assert!(banner.lines().count() <= 20, "{banner}");
    assert!(server.ready_after() < Duration::from_secs(5), "{:?}", server.ready_after());
}

#[test]
fn a_second_start_finds_everything_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let first = demo().data(&data).start().unwrap();
    let key = first.admin_key();
    for customer in ["ann", "bob", "cid"] {
        assert_eq!(buy(&first, customer), 202);
    }
    ends_well(first);
    let second = demo().data(&data).start().unwrap();
    assert_eq!(second.admin_key(), key);
    let banner = banner_of(&second);
    assert!(banner.contains("97 of 100"), "{banner}");
    let orders = second.client().get("/v1/orders").unwrap();
    assert_eq!((orders.status, orders.json()["orders"].as_array().unwrap().len()), (200, 3));
}

#[test]
fn kill_9_loses_nothing_that_was_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut first = demo().data(&data).start().unwrap();
    assert_eq!(buy(&first, "ann"), 202);
    first.kill9();
    let second = demo().data(&data).start().unwrap();
    let banner = banner_of(&second);
    assert!(banner.contains("99 of 100"), "{banner}");
}

#[test]
fn sigterm_and_ctrl_c_end_it_with_0() {
    ends_well(Yoink::new(BINARY).start().unwrap());
    let mut server = Yoink::new(BINARY).start().unwrap();
    server.interrupt();
    assert!(server.wait_exit(EXIT_WITHIN).unwrap().success());
}

#[test]
fn a_second_signal_does_not_wait_for_anybody() {
    let mut server = Yoink::new(BINARY).start().unwrap();
    let mut slow = std::net::TcpStream::connect(server.address()).unwrap();
    // One whole request and, in the same breath, the beginning of another: once the first is answered, the server has
    // the second in its hands, and its drain waits for the rest.
    let head = "host: a\r\ncontent-type: application/json\r\ncontent-length: 60\r\n\r\n{";
    slow.write_all(
        format!("GET /livez HTTP/1.1\r\nhost: a\r\n\r\nPOST /v1/orders HTTP/1.1\r\n{head}").as_bytes(),
    )
    .unwrap();
    slow.read_exact(&mut [0; 12]).unwrap();
    server.terminate();
    assert!(server.output_with("once more ends it at once", EXIT_WITHIN).contains("SIGTERM"));
    assert_eq!(server.exit_status(), None);
    server.terminate();
    assert_eq!(server.wait_exit(EXIT_WITHIN).unwrap().code(), Some(130));
}

#[test]
fn the_data_folder_is_its_owners_alone() {
    let server = demo().start().unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(server.data()), 0o700);
    for entry in std::fs::read_dir(server.data()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path) & 0o077, 0, "{} is open to others", path.display());
    }
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"]);
}

#[test]
fn outside_development_no_secret_is_written_anywhere() {
    let token = "canary-token-0123456789abcdef0123456789";
    let server = Yoink::new(BINARY)
        .args(["serve", "--log-level", "trace"])
        .env("YOINK_JWT_SECRETS", format!("a:{token}"))
        .start()
        .unwrap();
    assert_eq!(server.client().get("/v1/admin/reconciliation").unwrap().status, 200);
    let wrong = server.anonymous_client().with_key("canary-wrong").get("/v1/admin/reconciliation").unwrap();
    assert_eq!(wrong.status, 401);
    assert!(!server.data().join("admin.key").exists());
    let output = ends_well(server);
    for secret in [ADMIN_KEY, token, "canary-wrong"] {
        assert!(!output.contains(secret), "{secret} is in\n{output}");
    }
}

#[test]
fn log_lines_are_json_objects_if_asked() {
    let server =
        Yoink::new(BINARY).arg("--log-format").arg("json").arg("--log-level").arg("debug").start().unwrap();
    buy(&server, "ann");
    let output = ends_well(server);
    let lines: Vec<_> = output.lines().filter(|line| line.starts_with('{')).collect();
    assert!(!lines.is_empty(), "{output}");
    for line in lines {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}

#[test]
fn commands_on_the_same_machine_find_the_admin_key_by_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let server = demo().data(folder.path().join("yoink-data")).start().unwrap();
    let audit = text_of(yoink(folder.path()).args(["audit", "--url", &server.url()]));
    assert!(audit.contains("everything holds"), "{audit}");
}
