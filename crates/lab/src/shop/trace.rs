//! What every request and every worker did when: the material of timelines.
//!
//! One line of JSON an event, each written at once, so that a killed process leaves everything that it did.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::clock::now_us;

/// Something that happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, on the machine's monotonic clock.
    pub at_us: u64,
    /// Whose request it concerns: its idempotency key. Empty if nobody's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// What was done.
    pub step: String,
    /// What was seen or written by it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The unit that is sold by it: the shop's count before it, so the last one is 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<i64>,
    /// What kind of event it is.
    #[serde(default)]
    pub kind: EventKind,
}

/// What kind of event it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A step of a request or a worker.
    #[default]
    Step,
    /// A step by which a unit is for sale again.
    GivesBack,
    /// The database could not be used.
    DatabaseError,
    /// The lab did it.
    Fault,
}

/// Where events go. Clones write to the same file.
#[derive(Clone, Debug)]
pub struct Trace {
    file: Option<Arc<File>>,
}

impl Trace {
    /// Appends to the file at `path`.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path) -> Result<Trace> {
        let opened = OpenOptions::new().create(true).append(true).open(path);
        let file = opened.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Trace { file: Some(Arc::new(file)) })
    }

    /// Keeps nothing.
    #[must_use]
    pub fn nowhere() -> Trace {
        Trace { file: None }
    }

    /// Something that the request `key` did, and what it saw or wrote.
    pub fn step(&self, key: &str, step: &str, detail: &str) {
        self.write(&Event {
            key: key.to_owned(),
            step: step.to_owned(),
            detail: detail.to_owned(),
            ..Event::default()
        });
    }

    /// The request `key` takes a unit: the one at which the shop's count stood.
    pub fn takes(&self, key: &str, step: &str, detail: &str, unit: i64) {
        let event = Event {
            key: key.to_owned(),
            step: step.to_owned(),
            detail: detail.to_owned(),
            unit: Some(unit),
            ..Event::default()
        };
        self.write(&event);
    }

    /// A unit of the request `key` is put back on the shelf.
    pub fn gives_back(&self, key: &str, step: &str, detail: &str) {
        self.write(&Event {
            key: key.to_owned(),
            step: step.to_owned(),
            detail: detail.to_owned(),
            kind: EventKind::GivesBack,
            ..Event::default()
        });
    }

    /// The database could not be used by the request `key`.
    pub fn database_error(&self, key: &str, error: &str) {
        self.write(&Event {
            key: key.to_owned(),
            step: "the database cannot be used".to_owned(),
            detail: error.to_owned(),
            kind: EventKind::DatabaseError,
            ..Event::default()
        });
    }

    /// The lab did something.
    pub fn fault(&self, key: &str, what: &str) {
        let event =
            Event { key: key.to_owned(), step: what.to_owned(), kind: EventKind::Fault, ..Event::default() };
        self.write(&event);
    }

    fn write(&self, event: &Event) {
        let Some(file) = &self.file else { return };
        let event = Event { at_us: now_us(), ..event.clone() };
        if let Ok(mut line) = serde_json::to_vec(&event) {
            line.push(b'\n');
            // One write to a file opened for appending: lines of several threads and processes do not mix.
            (&**file).write_all(&line).ok();
        }
    }
}

/// A trace that is read while it is written.
#[derive(Debug)]
pub struct TraceReader {
    file: BufReader<File>,
    line: Vec<u8>,
}

impl TraceReader {
    /// Reads the file at `path` from its beginning.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path) -> io::Result<TraceReader> {
        Ok(TraceReader { file: BufReader::new(File::open(path)?), line: Vec::new() })
    }

    /// What was written since this was asked before, in the order in which it was written. A line of which only a part is
    /// there is left to the next time; one that is no event is left out.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read_new(&mut self) -> io::Result<Vec<Event>> {
        let mut events = Vec::new();
        while self.file.read_until(b'\n', &mut self.line)? > 0 && self.line.ends_with(b"\n") {
            events.extend(serde_json::from_slice::<Event>(&self.line).ok());
            self.line.clear();
        }
        Ok(events)
    }
}

/// Reads a trace, in the order of time. A line that a killed process cut short is left out.
///
/// # Errors
/// The file cannot be read.
pub fn read_trace(path: &Path) -> io::Result<Vec<Event>> {
    let mut events = TraceReader::open(path)?.read_new()?;
    events.sort_by_key(|event| event.at_us);
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.jsonl");
        let trace = Trace::open(&path).unwrap();
        trace.step("a", "reads", "stock = 1");
        trace.takes("a", "writes", "stock = 0", 1);
        trace.database_error("b", "timeout");
        trace.gives_back("b", "gives back", "stock 0 -> 1");
        trace.fault("", "PostgreSQL is shut down");
        let events = read_trace(&path).unwrap();
        let kinds: Vec<EventKind> = events.iter().map(|event| event.kind).collect();
        assert_eq!(
            kinds,
            [
                EventKind::Step,
                EventKind::Step,
                EventKind::DatabaseError,
                EventKind::GivesBack,
                EventKind::Fault
            ]
        );
        assert_eq!((events[1].unit, events[1].key.as_str()), (Some(1), "a"));
        assert!(events.windows(2).all(|pair| pair[0].at_us <= pair[1].at_us));
    }
    #[test]
    fn what_is_new_is_read_once_and_half_a_line_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.jsonl");
        let trace = Trace::open(&path).unwrap();
        let mut reader = TraceReader::open(&path).unwrap();
        let mut read =
            || -> Vec<String> { reader.read_new().unwrap().into_iter().map(|event| event.step).collect() };
        assert!(read().is_empty());
        trace.step("a", "one", "");
        trace.step("a", "two", "");
        assert_eq!(read(), ["one", "two"]);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(br#"{"at_us":1,"st"#).unwrap();
        assert!(read().is_empty());
        file.write_all(b"ep\":\"three\"}\nno event\n").unwrap();
        trace.step("a", "four", "");
        assert_eq!(read(), ["three", "four"]);
        assert!(read().is_empty());
    }
}
