//! What a ledger is before it is used.

use refinery::Target;
use yoink_engine::postgres::{ErrorClass, Postgres, PostgresOpenError, SettingsCheck, Way, migrate};

use super::server::Database;
use super::{NOW, grant, on_sale};

mod migrations {
    refinery::embed_migrations!("src/postgres/migrations");
}

/// Those behind the second.
const LATER_MIGRATIONS: [&str; 11] = [
    "V3__finish_withdrawal",
    "V4__queue",
    "V5__limits_and_numbers",
    "V6__plans",
    "V7__sealed_epochs",
    "V8__undecidable",
    "V9__failed_all_the_same",
    "V10__restored",
    "V11__raised",
    "V12__given_up",
    "V13__in_hand",
];

async fn refused(database: &Database) -> PostgresOpenError {
    Postgres::connect(&database.url(), 2, SettingsCheck::Strict).await.expect_err("it is refused")
}

#[tokio::test]
async fn eight_who_migrate_at_once_make_the_tables_once() {
    let database = Database::new().await;
    assert!(matches!(refused(&database).await, PostgresOpenError::MigrationsDue { missing, .. }
        if missing.len() == 2 + LATER_MIGRATIONS.len()));
    let migrations = (0..8).map(|_| {
        let url = database.url();
        tokio::spawn(async move { migrate(&url).await.expect("migrating succeeds") })
    });
    let applied: Vec<String> =
        futures_util::future::join_all(migrations).await.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(applied[..2], ["V1__tables", "V2__functions"]);
    assert_eq!(applied[2..], LATER_MIGRATIONS);
    assert_eq!(migrate(&database.url()).await.unwrap(), Vec::<String>::new());
    let one = Postgres::connect(&database.url(), 2, SettingsCheck::Strict).await.unwrap();
    let other = Postgres::connect(&database.url(), 2, SettingsCheck::Strict).await.unwrap();
    assert_eq!(one.identity(), other.identity());
    assert_ne!(one.identity().secret, [0; 32]);
    let shown = format!("{:?}", one.identity());
    assert!(!shown.contains("secret"), "{shown}");
}

#[tokio::test]
async fn tables_of_an_older_version_are_brought_up_to_this_one_with_what_is_in_them() {
    let database = Database::new().await;
    let older = migrations::migrations::runner().set_target(Target::Version(2));
    older.run_async(&mut database.session().await).await.unwrap();
    database
        .execute(
            "INSERT INTO products (id, name, price, currency, stock, max_per_order, stocked, limit_per_customer)
             VALUES ('1', 'a', 100, 'EUR', 5, 10, 5, 2), ('2', 'b', 100, 'EUR', 5, 10, 5, 2);
             INSERT INTO allocations (product, epoch, units) VALUES (1, 1, 5), (2, 1, 5);
             INSERT INTO events (seq, at, kind, product, body)
             VALUES (1, 0, 'product-created', 1, '{\"limit_per_customer\": 1}'),
                    (2, 0, 'product-changed', 1, '{\"limit_per_customer\": 3}'),
                    (3, 0, 'product-changed', 1, '{\"limit_per_customer\": 2}'),
                    (4, 0, 'product-changed', 1, '{\"price\": 100}'),
                    (5, 0, 'product-created', 2, '{\"limit_per_customer\": null}'),
                    (6, 0, 'product-changed', 2, '{\"limit_per_customer\": 2}')",
        )
        .await;
    let error = refused(&database).await;
    assert!(matches!(&error, PostgresOpenError::MigrationsDue { missing, .. }
        if *missing == LATER_MIGRATIONS));
    assert!(error.to_string().contains("yoink migrate --postgres URL"), "{error}");
    assert_eq!(migrate(&database.url()).await.unwrap(), LATER_MIGRATIONS);
    let ledger = Postgres::connect(&database.url(), 2, SettingsCheck::Strict).await.unwrap();
    let products = ledger.products().await.unwrap();
    assert_eq!(products.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["1", "2"]);
    let highest = "SELECT limit_highest FROM products ORDER BY number";
    let highest = database.session().await.query(highest, &[]).await.unwrap();
    let highest: Vec<Option<i32>> = highest.iter().map(|row| row.get(0)).collect();
    assert_eq!(highest, [Some(3), None], "the highest that there ever was; none where there once was none");
}

#[tokio::test]
async fn tables_of_a_newer_version_or_of_somebody_else_are_refused() {
    let (database, _ledger) = Database::with_ledger(2).await;
    database.execute("UPDATE refinery_schema_history SET checksum = '1' WHERE version = 1").await;
    assert!(matches!(refused(&database).await, PostgresOpenError::Foreign { .. }));
    assert!(matches!(migrate(&database.url()).await, Err(PostgresOpenError::Foreign { .. })));
    database.execute("INSERT INTO refinery_schema_history SELECT 99, 'later', applied_on, checksum FROM refinery_schema_history WHERE version = 2").await;
    let error = refused(&database).await;
    let PostgresOpenError::Newer { found, known, .. } = &error else { panic!("{error}") };
    assert_eq!((*found, *known as usize), (99, 2 + LATER_MIGRATIONS.len()), "{error}");
    assert!(error.to_string().contains("start the newer version"), "{error}");
}

#[tokio::test]
async fn a_database_whose_text_cannot_hold_every_name_is_refused() {
    let database = Database::new().await;
    let made = "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
    database.execute(made).await;
    let url = database.url();
    let url = format!("{}/latin", url.rsplit_once('/').unwrap().0);
    for check in [SettingsCheck::Strict, SettingsCheck::Relaxed] {
        let error = Postgres::connect(&url, 2, check).await.expect_err("it is refused");
        assert!(matches!(&error, PostgresOpenError::Encoding { encoding, .. } if encoding == "LATIN1"));
        assert!(error.to_string().contains("ENCODING 'UTF8'"), "{error}");
    }
}

#[tokio::test]
async fn settings_that_lose_orders_are_refused_unless_it_is_relaxed() {
    let (database, ledger) = Database::with_ledger(2).await;
    assert!(ledger.check_settings().await.unwrap().is_empty());
    let name = database.url().rsplit('/').next().unwrap().to_owned();
    for setting in ["off", "local", "remote_write"] {
        database.execute(&format!("ALTER DATABASE {name} SET synchronous_commit = {setting}")).await;
        let error = refused(&database).await;
        assert!(matches!(&error, PostgresOpenError::Settings { reasons, .. } if reasons.len() == 1));
        assert!(error.to_string().contains(&format!("synchronous_commit is {setting}")), "{error}");
        let relaxed = Postgres::connect(&database.url(), 2, SettingsCheck::Relaxed).await.unwrap();
        assert_eq!(relaxed.relaxed_reasons().len(), 1);
        assert_eq!(relaxed.check_settings().await.unwrap().len(), 1);
    }
    for setting in ["on", "remote_apply"] {
        database.execute(&format!("ALTER DATABASE {name} SET synchronous_commit = {setting}")).await;
        let strict = Postgres::connect(&database.url(), 2, SettingsCheck::Strict).await.unwrap();
        assert!(strict.relaxed_reasons().is_empty());
    }
}

#[tokio::test]
async fn every_session_gives_up_by_itself() {
    let (database, ledger) = Database::with_ledger(1).await;
    ledger.products().await.unwrap();
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'yoink' AND datname = current_database()";
    let sessions: i64 = database.session().await.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(sessions, 1);
    // A lock that somebody holds is waited for, and then the change is not made.
    let product = on_sale(&ledger, "1", 10).await;
    let mut other = database.session().await;
    let lock = other.transaction().await.unwrap();
    lock.execute("SELECT FROM products FOR UPDATE", &[]).await.unwrap();
    let error =
        ledger.deliver(Way::Deliver, (product, 1), (NOW, NOW), &[grant(1, "ann", 1)]).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient);
    assert!(error.to_string().contains("55P03"), "{error}");
    lock.rollback().await.unwrap();
    ledger.deliver(Way::Deliver, (product, 1), (NOW, NOW), &[grant(1, "ann", 1)]).await.unwrap();
}

#[tokio::test]
async fn a_session_that_ends_during_a_change_leaves_its_outcome_open() {
    let (database, ledger) = Database::with_ledger(1).await;
    let product = on_sale(&ledger, "1", 10).await;
    let mut other = database.session().await;
    let killer = database.session().await;
    let lock = other.transaction().await.unwrap();
    lock.execute("SELECT FROM products FOR UPDATE", &[]).await.unwrap();
    let grants = [grant(1, "ann", 1)];
    let delivering = ledger.deliver(Way::Deliver, (product, 1), (NOW, NOW), &grants);
    let killing = async {
        let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE application_name = 'yoink' AND datname = current_database() AND wait_event_type = 'Lock'";
        while killer.query(kill, &[]).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    let (delivered, ()) = tokio::join!(delivering, killing);
    assert_eq!(delivered.unwrap_err().class(), ErrorClass::Unknown);
    lock.rollback().await.unwrap();
    // The connection is replaced, and asking again settles it.
    ledger.deliver(Way::Deliver, (product, 1), (NOW, NOW), &grants).await.unwrap();
    // A session that is ended while nobody uses it is nobody's trouble.
    let kill = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
                WHERE application_name = 'yoink' AND datname = current_database()";
    assert_eq!(killer.query(kill, &[]).await.unwrap().len(), 1);
    assert_eq!(ledger.products().await.unwrap().len(), 1);
}

#[tokio::test]
async fn nobody_there_is_said_with_the_address_and_without_the_password() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let url = format!("postgres://shop:hunter2@127.0.0.1:{port}/shop");
    let error = Postgres::connect(&url, 2, SettingsCheck::Strict).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&format!("127.0.0.1:{port}/shop")) && !text.contains("hunter2"), "{text}");
    let error = Postgres::connect("not a url", 2, SettingsCheck::Strict).await.unwrap_err();
    assert!(matches!(error, PostgresOpenError::Url { .. }));
}

#[tokio::test]
async fn what_the_benchmark_copies_fits_into_a_table_like_that_of_orders() {
    let (database, _ledger) = Database::with_ledger(1).await;
    let rows_per_s = crate::copy::copy(&database.url(), 3).await;
    assert!(rows_per_s.is_finite() && rows_per_s > 0.0, "{rows_per_s}");
    let copied = "SELECT to_regclass('copied') IS NULL AND NOT EXISTS (SELECT FROM orders)";
    assert!(
        database.session().await.query_one(copied, &[]).await.unwrap().get::<_, bool>(0),
        "it leaves nothing"
    );
}
