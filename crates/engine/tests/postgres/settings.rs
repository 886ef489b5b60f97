//! Settings that change while the ledger is in use.

use yoink_engine::postgres::{Postgres, SettingsCheck, Way};

use super::server::Database;
use super::{NOW, grant, on_sale};

/// How somebody sets what is wrong, and how it is set right again; `NAME` stands for the setting.
const WAYS: [(&str, &str); 3] = [
    ("ALTER SYSTEM SET NAME = off", "ALTER SYSTEM RESET NAME"),
    ("ALTER DATABASE ledger SET NAME = off", "ALTER DATABASE ledger RESET NAME"),
    ("ALTER ROLE postgres SET NAME = off", "ALTER ROLE postgres RESET NAME"),
];

#[tokio::test]
async fn a_setting_that_is_changed_is_seen_whatever_sessions_it_holds_for_and_so_is_its_mending() {
    let (database, ledger) = Database::with_ledger(2).await;
    for (name, ways) in
        [("fsync", &WAYS[..1]), ("full_page_writes", &WAYS[..1]), ("synchronous_commit", &WAYS[..])]
    {
        for (wrong, right) in ways {
            database.execute(&wrong.replace("NAME", name)).await;
            database.execute("SELECT pg_reload_conf()").await;
            wait_for_complaints(&ledger, &[name]).await;
            database.execute(&right.replace("NAME", name)).await;
            database.execute("SELECT pg_reload_conf()").await;
            wait_for_complaints(&ledger, &[]).await;
        }
    }
}

/// Waits until what is wrong is just these settings: the server reads its files a moment after it was told to.
async fn wait_for_complaints(ledger: &Postgres, names: &[&str]) {
    let begun = std::time::Instant::now();
    loop {
        let found = ledger.check_settings().await.unwrap();
        if found.len() == names.len() && found.iter().zip(names).all(|(found, name)| found.starts_with(name))
        {
            return;
        }
        assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{found:?}, not {names:?}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_session_that_began_under_a_wrong_setting_commits_nothing_once_it_is_mended() {
    let (database, ledger) = Database::with_ledger(1).await;
    let product = on_sale(&ledger, "1", 10).await;
    database
        .execute(
            "CREATE TABLE commits (setting text);
             CREATE FUNCTION note_setting() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN INSERT INTO commits VALUES (current_setting('synchronous_commit')); RETURN NEW; END $$;
             CREATE TRIGGER note_setting BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION note_setting()",
        )
        .await;
    database.execute("ALTER DATABASE ledger SET synchronous_commit = off").await;
    let end =
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'yoink'";
    database.execute(end).await;
    ledger.deliver(Way::Deliver, (product, 1), (NOW, NOW), &[grant(1, "ann", 1)]).await.unwrap();
    database.execute("ALTER DATABASE ledger RESET synchronous_commit").await;
    ledger.deliver(Way::Deliver, (product, 1), (NOW, NOW), &[grant(2, "bob", 1)]).await.unwrap();
    let rows = database.session().await.query("SELECT setting FROM commits", &[]).await.unwrap();
    let settings: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(settings, ["off", "on"]);
    // Where it was said that orders may be forgotten, sessions are used as they are.
    database.execute("ALTER DATABASE ledger SET synchronous_commit = off").await;
    let relaxed = Postgres::connect(&database.url(), 1, SettingsCheck::Relaxed).await.unwrap();
    relaxed.products().await.unwrap();
    let pids = || async {
        let sql = "SELECT array_agg(pid ORDER BY pid) FROM pg_stat_activity WHERE application_name = 'yoink'";
        database.session().await.query_one(sql, &[]).await.unwrap().get::<_, Vec<i32>>(0)
    };
    let before = pids().await;
    relaxed.products().await.unwrap();
    assert_eq!(pids().await, before, "a session was not used again");
}
