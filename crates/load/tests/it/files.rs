//! Files that a storm leaves: its record, its reports.

use std::io::Write;

use yoink_load::report::{Decoration, Format};
use yoink_load::{RecordedAnswer, StormError, StormOptions, audit_record, read_record};

use crate::shop::{Fault, Shop};
use crate::{block_on, options, storm};

#[test]
fn the_record_holds_every_intent_and_every_answer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("record.jsonl");
    let shop = Shop::open(10, Fault::DropsAfterAccepting);
    let with = || StormOptions {
        buyers: Some(30),
        threads: Some(2),
        record_path: Some(path.clone()),
        ..options(&shop)
    };
    let report = storm(with()).unwrap();
    let attempts = read_record(&path).unwrap();
    assert_eq!(attempts.len(), 30);
    let count = |wanted: fn(&RecordedAnswer) -> bool| {
        attempts.iter().flat_map(|attempt| &attempt.answers).filter(|answer| wanted(answer)).count() as u64
    };
    assert_eq!(count(|answer| matches!(answer, RecordedAnswer::Accepted { .. })), report.accepted);
    assert_eq!(count(|answer| matches!(answer, RecordedAnswer::Refused { .. })), 20);
    assert_eq!(count(|answer| matches!(answer, RecordedAnswer::Failed { .. })), 2);
    // A second storm is appended, not written over the first.
    storm(with()).unwrap();
    assert_eq!(read_record(&path).unwrap().len(), 60);
}

#[test]
fn a_record_is_judged_without_the_storm_that_wrote_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("record.jsonl");
    let shop = Shop::open(20, Fault::DropsAfterAccepting);
    storm(StormOptions { buyers: Some(30), record_path: Some(path.clone()), ..options(&shop) }).unwrap();
    let audit = block_on(audit_record(&options(&shop), &path)).unwrap();
    assert!(audit.is_ok(), "{audit:?}");
    assert_eq!((audit.looked_up, audit.resolution.asked, audit.resolution.accepted), (20, 4, 4));
    // The server forgets: the same record now convicts it.
    shop.books.lock().unwrap().orders.remove("order-3");
    let audit = block_on(audit_record(&options(&shop), &path)).unwrap();
    assert_eq!((audit.lost, audit.is_ok()), (1, false));
}

#[test]
fn a_record_cut_short_in_its_last_line_is_read_up_to_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("record.jsonl");
    let shop = Shop::open(20, Fault::None);
    storm(StormOptions { buyers: Some(5), record_path: Some(path.clone()), ..options(&shop) }).unwrap();
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"{\"intent\":{\"at_us\":1,\"cust").unwrap();
    assert_eq!(read_record(&path).unwrap().len(), 5);
    file.write_all(b"\n{\"rubbish\":1}\n").unwrap();
    let error = read_record(&path).unwrap_err();
    assert!(matches!(error, StormError::DamagedRecord { .. }), "{error}");
}

#[test]
fn a_record_that_cannot_be_written_stops_the_storm_before_it_begins() {
    let directory = tempfile::tempdir().unwrap();
    let shop = Shop::open(20, Fault::None);
    let path = directory.path().join("missing").join("record.jsonl");
    let error = storm(StormOptions { record_path: Some(path.clone()), ..options(&shop) }).unwrap_err();
    assert!(error.to_string().contains("cannot write the record to"), "{error}");
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    assert_eq!(shop.books.lock().unwrap().purchases, 0);
}

#[test]
fn all_reports_are_written_where_they_are_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let shop = Shop::open(20, Fault::None);
    let report = storm(StormOptions {
        buyers: Some(40),
        html_path: Some(directory.path().join("report.html")),
        hdr_path: Some(directory.path().join("latency.hlog")),
        svg_dir: Some(directory.path().join("charts")),
        ..options(&shop)
    })
    .unwrap();
    let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
    assert!(read("report.html").contains("Verdict: ok"));
    assert!(read("latency.hlog").contains("StartTime"));
    for name in ["latency-percentiles", "latency-over-time", "requests-over-time"] {
        assert!(read(&format!("charts/{name}.svg")).starts_with("<svg"), "{name}");
    }
    let mut json = Vec::new();
    report.write(&mut json, Format::Json).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!((&json["ok"], &json["accepted"]), (&true.into(), &20.into()));
    assert_eq!(json["audit"]["products"][0]["sold"], 20);
    let mut text = Vec::new();
    report.write(&mut text, Format::Text(Decoration::Plain)).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("oversold 0, lost 0, duplicated 0, stuck 0"), "{text}");
}
