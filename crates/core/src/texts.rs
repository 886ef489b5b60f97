//! Many short texts in one allocation: a million customer ids and keys cost their bytes and a word each.

/// An append-only list of texts, numbered from 0.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    bytes: Vec<u8>,
    /// Where each text ends; it starts where the one before ends.
    ends: Vec<u64>,
}

impl Texts {
    /// Appends `text` and returns its number.
    pub(crate) fn push(&mut self, text: &str) -> u32 {
        let number = number(self.ends.len());
        self.bytes.extend_from_slice(text.as_bytes());
        self.ends.push(self.bytes.len() as u64);
        number
    }

    /// The text with this number; empty if there is none.
    pub(crate) fn get(&self, number: u32) -> &str {
        let index = number as usize;
        let start = match index.checked_sub(1) {
            Some(before) => self.ends.get(before).copied().unwrap_or(0),
            None => 0,
        };
        let end = self.ends.get(index).copied().unwrap_or(start);
        let text = self.bytes.get(start as usize..end as usize).unwrap_or_default();
        // Only whole `str`s are pushed.
        core::str::from_utf8(text).unwrap_or_default()
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }
}

/// A position as the 32-bit number that records keep. Four thousand million of anything is beyond one machine's memory.
pub(crate) fn number(index: usize) -> u32 {
    match u32::try_from(index) {
        Ok(number) if number != u32::MAX => number,
        _ => panic!("more than {} records do not fit this inventory", u32::MAX),
    }
}
