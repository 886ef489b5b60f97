//! Log lines: to standard error, for people or for machines, and never steered by what they quote.

use std::io::{self, Write};

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::output::is_direction;
use crate::config::{LogConfig, LogFormat};

/// The migrations of the ledger have nothing to say at every start.
const QUIET: &str = "refinery_core=warn";

/// Starts logging for the whole process.
///
/// # Errors
/// The filter cannot be read.
pub(super) fn init(config: &LogConfig) -> anyhow::Result<()> {
    // What the user says comes later and wins.
    let filter = EnvFilter::try_new(format!("{QUIET},{}", config.level)).with_context(|| {
        format!("the log level {:?} is not a level such as info or a filter", config.level)
    })?;
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(Escaping(io::stderr)).with_ansi(false);
    let started = match config.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    };
    // A second start within one process (tests) keeps the first one's.
    started.or(Ok(()))
}

/// Escapes control characters and those that turn the direction of text, so that each event is one line and no
/// terminal obeys it.
struct Escaping<M>(M);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for Escaping<M> {
    type Writer = EscapingWriter<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        EscapingWriter(self.0.make_writer())
    }
}

struct EscapingWriter<W>(W);

impl<W: Write> Write for EscapingWriter<W> {
    /// The subscriber hands over one whole event per call, with a line end.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let (line, end) = match text.strip_suffix('\n') {
            Some(line) => (line, "\n"),
            None => (&*text, ""),
        };
        if line.chars().any(must_be_escaped) {
            let mut safe = String::with_capacity(line.len() + 16);
            for c in line.chars() {
                // Four digits and no braces: also valid inside a JSON string.
                if must_be_escaped(c) {
                    safe.push_str(&format!("\\u{:04x}", u32::from(c)));
                } else {
                    safe.push(c);
                }
            }
            self.0.write_all(format!("{safe}{end}").as_bytes())?;
        } else {
            self.0.write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn must_be_escaped(c: char) -> bool {
    c.is_control() || is_direction(c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(json: LogFormat, text: &str) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let builder =
            tracing_subscriber::fmt().with_ansi(false).with_writer(Escaping(move || writer.clone()));
        let log = || tracing::info!(customer = text, "asked {text}");
        match json {
            LogFormat::Text => tracing::subscriber::with_default(builder.finish(), log),
            LogFormat::Json => tracing::subscriber::with_default(builder.json().finish(), log),
        }
        String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
    }

    const HOSTILE: &str = "a\nb\u{1b}[31mc\u{202e}d\u{0}e\"f\u{9b}g";

    #[test]
    fn an_event_is_one_line_whatever_it_quotes() {
        let text = logged(LogFormat::Text, HOSTILE);
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        assert!(!text.trim_end().chars().any(must_be_escaped), "{text:?}");
    }

    #[test]
    fn an_event_is_one_json_object_whatever_it_quotes() {
        let line = logged(LogFormat::Json, HOSTILE);
        assert!(!line.trim_end().chars().any(must_be_escaped), "{line:?}");
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(object["fields"]["customer"], HOSTILE);
    }
}
