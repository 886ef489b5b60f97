//! Standard output: tables for people, one document for machines.

use std::io::{self, BufWriter, IsTerminal as _, Write};

use comfy_table::{Cell, CellAlignment, Table};
use serde::Serialize;

/// Where results go. Nothing else is ever written there.
pub(super) struct Output<W: Write = BufWriter<io::Stdout>> {
    to: W,
    is_terminal: bool,
}

/// How a column is set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

impl Output {
    /// The process's own.
    pub(super) fn stdout() -> Output {
        Output { is_terminal: io::stdout().is_terminal(), to: BufWriter::new(io::stdout()) }
    }
}

impl<W: Write> Output<W> {
    /// Whether somebody looks at it as it is written.
    pub(super) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Writes `text` and a line end.
    pub(super) fn line(&mut self, text: impl AsRef<str>) -> io::Result<()> {
        writeln!(self.to, "{}", printable(text.as_ref()))?;
        self.to.flush()
    }

    /// Writes text as it is.
    pub(super) fn raw(&mut self, text: &str) -> io::Result<()> {
        self.to.write_all(text.as_bytes())?;
        self.to.flush()
    }

    /// Writes one document on one or more lines.
    pub(super) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut self.to, value)?;
        writeln!(self.to)?;
        self.to.flush()
    }

    /// Writes rows under headings, in columns that are aligned and have no boxes around them.
    pub(super) fn table(&mut self, columns: &[(&str, Align)], rows: &[Vec<String>]) -> io::Result<()> {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        if !self.is_terminal {
            table.force_no_tty();
        }
        let aligned = |text: &str, align: Align| {
            Cell::new(printable(text)).set_alignment(match align {
                Align::Left => CellAlignment::Left,
                Align::Right => CellAlignment::Right,
            })
        };
        table.set_header(columns.iter().map(|(name, align)| aligned(name, *align)).collect::<Vec<_>>());
        for row in rows {
            let cells = row.iter().zip(columns).map(|(text, (_, align))| aligned(text, *align));
            table.add_row(cells.collect::<Vec<_>>());
        }
        for line in table.lines() {
            writeln!(self.to, "{}", line.trim_end())?;
        }
        self.to.flush()
    }
}

/// Texts come from customers: what could steer a terminal is shown and not obeyed.
pub(super) fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '\n' || !(c.is_control() || is_direction(c)) {
            safe.push(c);
        } else {
            safe.extend(c.escape_unicode());
        }
    }
    safe
}

/// Characters that turn the direction of the text around them.
pub(super) fn is_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{061c}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Output<&mut Vec<u8>>)) -> String {
        let mut bytes = Vec::new();
        write(&mut Output { to: &mut bytes, is_terminal: false });
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn columns_are_aligned_without_boxes() {
        let columns = [("name", Align::Left), ("units", Align::Right)];
        let rows = [vec!["a".to_owned(), "100".to_owned()], vec!["long name".to_owned(), "1".to_owned()]];
        let text = written(|output| output.table(&columns, &rows).unwrap());
        assert_eq!(text, " name       units\n a            100\n long name      1\n");
    }

    #[test]
    fn a_text_cannot_steer_the_terminal() {
        let text = written(|output| output.line("red \u{1b}[31m and \u{202e}sdrawkcab").unwrap());
        assert_eq!(text, "red \\u{1b}[31m and \\u{202e}sdrawkcab\n");
    }
}
