//! A ledger of an earlier version opens, and nothing in it is lost.

use refinery::Target;
use rusqlite::ErrorCode;
use tempfile::TempDir;

use super::*;

/// Orders of each status, other movements, a retry, a dead letter, and a position.
const ROWS: &str = "
    INSERT INTO orders VALUES
        (2, CAST('0123456789abcd02' AS BLOB), 'shoe', 'ada', 'key-1', 1, 1000, 'EUR',
         'confirmed', 20, NULL, NULL, NULL),
        (3, CAST('0123456789abcd03' AS BLOB), 'shoe', 'bob', NULL, 1000, 0, 'USD',
         'cancelled', 30, 6, 60, 'not wanted'),
        (4, CAST('0123456789abcd04' AS BLOB), 'sock', 'ada', 'key-2', 2, 10000000000, 'EUR',
         'failed', 40, 7, 70, 'refused'),
        (5, CAST('0123456789abcd05' AS BLOB), 'sock', 'ada', NULL, 3, 7, 'EUR',
         'confirmed', 50, NULL, NULL, NULL);
    INSERT INTO adjustments VALUES (1, 10, 'shoe', 'created', 9, NULL), (8, 80, 'shoe', 'withdrawn', 4, 'torn');
    INSERT INTO retries VALUES
        (9, CAST('0123456789abcd09' AS BLOB), 'sock', 'eve', NULL, 1, 7, 'EUR',
         'confirmed', 90, NULL, NULL, NULL, 1, 99, 'busy');
    INSERT INTO dead_letters VALUES
        (1, 10, CAST('0123456789abcd0a' AS BLOB), 'sock', 'eve', NULL, 1, 7, 'EUR',
         'confirmed', 100, NULL, NULL, NULL, 8, 'bad', 101, 102, 'parked', NULL, NULL);
    UPDATE meta SET position = 10, paused = 1;";
const TABLES: [&str; 6] = ["orders", "movements", "adjustments", "retries", "dead_letters", "meta"];

/// Makes the file as version 1 made it.
fn made_by_version_1(folder: &TempDir) -> Ledger {
    let path = folder.path().join(FILE_NAME);
    let mut connection = connect(&path, None, OpenFlags::SQLITE_OPEN_CREATE).unwrap();
    let version_1 = migrations::migrations::runner().set_grouped(true).set_target(Target::Version(1));
    version_1.run(&mut connection).unwrap();
    connection
        .execute_batch(&format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1"))
        .unwrap();
    Ledger { connection, fault: LedgerFault::default(), sync: Synced::AtOnce }
}

fn open(folder: &TempDir) -> Ledger {
    Ledger::open(folder.path(), None, LedgerFault::default()).unwrap()
}

/// Every row of a table, as text.
fn rows(ledger: &Ledger, table: &str) -> Vec<String> {
    let mut select = ledger.connection.prepare(&format!("SELECT * FROM {table} ORDER BY 1")).unwrap();
    let columns = select.column_count();
    let rows = select.query_map([], |row| {
        (0..columns).map(|at| Ok(format!("{:?}", row.get_ref(at)?))).collect::<Result<Vec<_>, _>>()
    });
    rows.unwrap().map(|row| row.unwrap().join(", ")).collect()
}

/// What there is in the file by type and name, and the words that made it.
fn schema(ledger: &Ledger) -> Vec<(String, String, Option<String>)> {
    let mut select =
        ledger.connection.prepare("SELECT type, name, sql FROM sqlite_schema ORDER BY type, name").unwrap();
    let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn what_version_1_wrote_is_all_there_after_the_upgrade() {
    let folder = tempfile::tempdir().unwrap();
    let before = made_by_version_1(&folder);
    before.connection.execute_batch(ROWS).unwrap();
    let expected_rows = TABLES.map(|table| rows(&before, table));
    // Only the check of the status has other words. SQLite puts the name of a renamed table in quotes.
    let expected_schema: Vec<_> = schema(&before)
        .into_iter()
        .map(|(kind, name, sql)| {
            let other = "(status = 'confirmed' OR status = 'cancelled' OR status = 'failed')";
            let sql = sql.map(|sql| match kind == "table" && name == "orders" {
                true => sql
                    .replace("(status IN ('confirmed', 'cancelled', 'failed'))", other)
                    .replace("TABLE orders ", "TABLE \"orders\" "),
                false => sql,
            });
            (kind, name, sql)
        })
        .collect();
    before.close().unwrap();

    for _ in 0..2 {
        let after = open(&folder);
        assert_eq!(TABLES.map(|table| rows(&after, table)), expected_rows);
        assert_eq!(schema(&after), expected_schema);
        assert_eq!(header(&after.connection).unwrap(), (APPLICATION_ID, FORMAT));
        let loaded = after.load().unwrap();
        assert_eq!((loaded.position, loaded.paused, loaded.dead_letters_open), (10, true, 1));
        let sound: String =
            after.connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(sound, "ok");
        after.close().unwrap();
    }
    assert_eq!(expected_rows.map(|rows| rows.len()), [4, 8, 2, 1, 1, 1]);
}

#[test]
fn a_new_ledger_has_the_tables_of_an_upgraded_one() {
    let (new, upgraded) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    made_by_version_1(&upgraded).close().unwrap();
    assert_eq!(schema(&open(&new)), schema(&open(&upgraded)));
}

#[test]
fn a_status_that_does_not_exist_is_refused_after_the_upgrade() {
    let folder = tempfile::tempdir().unwrap();
    let before = made_by_version_1(&folder);
    before.connection.execute_batch(ROWS).unwrap();
    before.close().unwrap();
    let after = open(&folder);
    let orders = rows(&after, "orders");
    // The last two: one that ended without an end, and one that lives with one.
    for change in [
        "status = 'accepted' WHERE seq = 2",
        "status = 'accepted' WHERE seq = 3",
        "status = 'Failed' WHERE seq = 4",
        "status = '' WHERE seq = 3",
        "status = NULL WHERE seq = 3",
        "status = 'cancelled' WHERE seq = 2",
        "status = 'confirmed' WHERE seq = 3",
    ] {
        let refused = after.connection.execute(&format!("UPDATE orders SET {change}"), []).unwrap_err();
        assert_eq!(refused.sqlite_error_code(), Some(ErrorCode::ConstraintViolation), "{change}: {refused}");
    }
    assert_eq!(rows(&after, "orders"), orders);
}

/// Files that exist remember the checksum of each migration that made them, and are refused when it is another: what a
/// version has once written must stay as it is, to the letter. A change is a migration of its own.
#[test]
fn migrations_that_made_files_have_not_changed() {
    let runner = migrations::migrations::runner();
    let checksums: Vec<_> =
        runner.get_migrations().iter().map(|migration| (migration.version(), migration.checksum())).collect();
    assert_eq!(checksums, [(1, 8_264_203_839_126_022_593), (2, 8_261_920_665_051_653_939)]);
    assert_eq!(checksums.last().map(|(version, _)| i64::from(*version)), Some(FORMAT));
}
