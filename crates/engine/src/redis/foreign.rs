//! Fields of a sale's hashes that no script of this engine writes, because they are no text that PostgreSQL takes.

use std::collections::BTreeSet;

/// Of those, the ones that are named.
const NAMED_MAX: usize = 5;
/// Bytes of a name that are shown.
const SHOWN_MAX: usize = 100;

/// What was found in one hash.
#[derive(Debug, Default)]
pub(super) struct Foreign {
    /// Names, each once: a hash that is read page by page may tell of a field twice.
    fields: BTreeSet<Vec<u8>>,
}

impl Foreign {
    /// Notes a field if its name or its value is no text.
    pub(super) fn note(&mut self, field: Vec<u8>, value: &[u8]) {
        if !is_text(&field) || !is_text(value) {
            self.fields.insert(field);
        }
    }

    /// Which fields of `hash` it is, if there are any.
    pub(super) fn in_words(&self, hash: &str) -> Option<String> {
        let named = self.fields.iter().take(NAMED_MAX).map(|field| {
            let shown = field.get(..SHOWN_MAX).unwrap_or(field).escape_ascii();
            format!("field \"{shown}\" of the {hash} is not this engine's: its bytes are no text")
        });
        let mut words: Vec<String> = named.collect();
        if self.fields.len() > NAMED_MAX {
            words.push(format!("and {} fields more", self.fields.len() - NAMED_MAX));
        }
        (!words.is_empty()).then(|| words.join("; "))
    }
}

/// Whether PostgreSQL would take it as text.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_named_and_more_is_counted() {
        let mut foreign = Foreign::default();
        foreign.note("cé".as_bytes().to_vec(), b"1|");
        assert_eq!(foreign.in_words("buyers"), None);
        foreign.note(b"c\xff".to_vec(), b"1|");
        foreign.note(b"c\xff".to_vec(), b"2|");
        let words = "field \"c\\xff\" of the buyers is not this engine's: its bytes are no text";
        assert_eq!(foreign.in_words("buyers").as_deref(), Some(words));
        for number in 0..NAMED_MAX {
            foreign.note(format!("d{number}").into_bytes(), b"\0");
        }
        assert!(foreign.in_words("sale").is_some_and(|words| words.ends_with("; and 1 fields more")));
        let mut long = Foreign::default();
        long.note(vec![0; 10 * SHOWN_MAX], b"");
        assert!(long.in_words("sale").is_some_and(|words| words.len() < 10 * SHOWN_MAX));
    }
}
