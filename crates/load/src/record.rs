//! The client's own record: what was asked, written before it is sent, and what was answered, written on receipt.
//!
//! It lives outside the process under test and outlives it. One JSON object a line: a `storm` line as head, an
//! `intent` line per request, an `answer` line per answer. Each line is one write to a file opened for appending, so
//! lines of several threads do not mix, and a process that dies leaves at most its last line cut short.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::attempt::Outcome;
use crate::error::StormError;
use crate::plan::Plan;

/// Writes the record. Clones write to the same file.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    file: Arc<File>,
    path: Arc<Path>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Storm(StormLine),
    Intent(IntentLine),
    Answer(AnswerLine),
}

#[derive(Serialize, Deserialize)]
struct StormLine {
    target: String,
    product: String,
    quantity: u32,
    seed: u64,
}

#[derive(Serialize, Deserialize)]
struct IntentLine {
    /// Microseconds since the storm's start.
    at_us: u64,
    customer: String,
    key: String,
    product: String,
    quantity: u32,
}

#[derive(Serialize, Deserialize)]
struct AnswerLine {
    at_us: u64,
    customer: String,
    key: String,
    #[serde(flatten)]
    answer: RecordedAnswer,
}

/// What a purchase was answered, as the record keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum RecordedAnswer {
    /// An order was given.
    Accepted {
        /// Its id; compatible routes may not name it.
        order: Option<String>,
        /// Whether the server said that it had given it before.
        replayed: bool,
    },
    /// The server said no.
    Refused {
        /// HTTP status.
        status: u16,
        /// The problem's name.
        reason: String,
    },
    /// No yes or no came back.
    Failed {
        /// What happened instead.
        reason: String,
    },
}

impl RecordedAnswer {
    fn from_outcome(outcome: &Outcome) -> RecordedAnswer {
        match outcome {
            Outcome::Accepted { order_id, replayed, .. } => RecordedAnswer::Accepted {
                order: order_id.as_deref().map(str::to_owned),
                replayed: *replayed,
            },
            Outcome::Refused { status, reason, .. } => {
                RecordedAnswer::Refused { status: *status, reason: reason.to_string() }
            }
            Outcome::Failed(failure) => RecordedAnswer::Failed { reason: failure.name().to_owned() },
        }
    }
}

/// One purchase of a record: everything that was sent under one (customer, key), and all answers to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedAttempt {
    /// The customer.
    pub customer: String,
    /// The idempotency key.
    pub key: String,
    /// The product.
    pub product: String,
    /// Units asked for.
    pub quantity: u32,
    /// Answers in the order in which they came. Empty if the record's process or the server died first.
    pub answers: Vec<RecordedAnswer>,
    /// How many times the purchase was sent.
    pub sent: u32,
}

impl Recorder {
    /// Opens `path` for appending and writes the storm's head.
    pub(crate) fn open(path: &Path, plan: &Plan) -> Result<Recorder, StormError> {
        let failed =
            |source| StormError::File { action: "write the record to", path: path.to_owned(), source };
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
        let recorder = Recorder { file: Arc::new(file), path: path.into() };
        recorder
            .write(&Line::Storm(StormLine {
                target: plan.target.url.clone(),
                product: plan.product.clone(),
                quantity: plan.quantity,
                seed: plan.seed,
            }))
            .map_err(failed)?;
        Ok(recorder)
    }

    /// Call before sending, and do not send if it fails: an intent without a record cannot be audited.
    pub(crate) fn intent(&self, plan: &Plan, n: u64, at_us: u64) -> io::Result<()> {
        self.write(&Line::Intent(IntentLine {
            at_us,
            customer: plan.template.customer(n),
            key: plan.template.key(n),
            product: plan.product.clone(),
            quantity: plan.quantity,
        }))
    }

    /// Call on receipt.
    pub(crate) fn answer(&self, plan: &Plan, n: u64, at_us: u64, outcome: &Outcome) -> io::Result<()> {
        self.write(&Line::Answer(AnswerLine {
            at_us,
            customer: plan.template.customer(n),
            key: plan.template.key(n),
            answer: RecordedAnswer::from_outcome(outcome),
        }))
    }

    /// Makes the record survive a power loss too.
    pub(crate) fn sync(&self) -> Result<(), StormError> {
        self.file.sync_data().map_err(|source| self.error(source))
    }

    /// Names the file in an error.
    pub(crate) fn error(&self, source: io::Error) -> StormError {
        StormError::File { action: "write the record to", path: PathBuf::from(&*self.path), source }
    }

    fn write(&self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        (&*self.file).write_all(&text)
    }
}

/// Reads a record, one entry per (customer, key) in the order of the first intent.
///
/// # Errors
/// [`StormError::File`] if it cannot be read; [`StormError::DamagedRecord`] if a line other than the last is not whole.
pub fn read_record(path: &Path) -> Result<Vec<RecordedAttempt>, StormError> {
    let failed = |source| StormError::File { action: "read the record", path: path.to_owned(), source };
    let text = std::fs::read(path).map_err(failed)?;
    let mut reader = RecordReader::default();
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    for (index, line) in lines.iter().enumerate().filter(|(_, line)| !line.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(line) => reader.take(line),
            // A last line without its line feed was being written when its writer died: it was never sent.
            Err(_) if index + 1 == lines.len() => break,
            Err(_) => return Err(StormError::DamagedRecord { path: path.to_owned(), line: index + 1 }),
        }
    }
    Ok(reader.attempts)
}

#[derive(Default)]
struct RecordReader {
    attempts: Vec<RecordedAttempt>,
    /// Where the attempt of a (customer, key) is.
    places: HashMap<(String, String), usize>,
}

impl RecordReader {
    fn take(&mut self, line: Line) {
        match line {
            Line::Storm(_) => {}
            Line::Intent(intent) => self.take_intent(intent),
            Line::Answer(line) => {
                let place = self.places.get(&(line.customer, line.key));
                if let Some(attempt) = place.and_then(|place| self.attempts.get_mut(*place)) {
                    attempt.answers.push(line.answer);
                }
            }
        }
    }

    fn take_intent(&mut self, intent: IntentLine) {
        let next = self.attempts.len();
        let place = *self.places.entry((intent.customer.clone(), intent.key.clone())).or_insert(next);
        if place == next {
            self.attempts.push(RecordedAttempt {
                customer: intent.customer,
                key: intent.key,
                product: intent.product,
                quantity: intent.quantity,
                answers: Vec::new(),
                sent: 0,
            });
        }
        if let Some(attempt) = self.attempts.get_mut(place) {
            attempt.sent += 1;
        }
    }
}
