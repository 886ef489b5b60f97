//! Many short texts in few allocations: a million customer ids and keys cost their bytes and a word each.

use crate::chunked::Chunked;

/// Bytes per chunk. A text that does not fit into the rest of one begins the next.
const CHUNK_BYTES: usize = 1 << 20;

/// An append-only list of texts of 1 to [`CHUNK_BYTES`] bytes, numbered from 0.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    chunks: Vec<Vec<u8>>,
    /// Where each text ends, as chunk × [`CHUNK_BYTES`] + offset. It starts where the one before ends, or at the
    /// beginning of its chunk.
    ends: Chunked<u64>,
}

impl Texts {
    /// Appends `text` and returns its number.
    pub(crate) fn push(&mut self, text: &str) -> u32 {
        let number = number(self.ends.len());
        let fits = |chunk: &&mut Vec<u8>| chunk.len().saturating_add(text.len()) <= CHUNK_BYTES;
        match self.chunks.last_mut().filter(fits) {
            Some(chunk) => chunk.extend_from_slice(text.as_bytes()),
            None => {
                let mut chunk = Vec::with_capacity(CHUNK_BYTES);
                chunk.extend_from_slice(text.as_bytes());
                self.chunks.push(chunk);
            }
        }
        let before = self.chunks.len().saturating_sub(1).saturating_mul(CHUNK_BYTES);
        let offset = self.chunks.last().map_or(0, Vec::len);
        self.ends.push(before.saturating_add(offset) as u64);
        number
    }

    /// The text with this number; empty if there is none.
    pub(crate) fn get(&self, number: u32) -> &str {
        let index = number as usize;
        let Some(end) = self.ends.get(index).map(|end| *end as usize) else { return "" };
        let before =
            index.checked_sub(1).and_then(|index| self.ends.get(index)).map_or(0, |end| *end as usize);
        // Texts are not empty, so the last byte tells the chunk.
        let chunk = end.saturating_sub(1) / CHUNK_BYTES;
        let begin = chunk.saturating_mul(CHUNK_BYTES);
        let range = before.saturating_sub(begin)..end.saturating_sub(begin);
        let text = self.chunks.get(chunk).and_then(|chunk| chunk.get(range)).unwrap_or_default();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_back_across_chunks() {
        let mut texts = Texts::default();
        let text = |number: u32| format!("{number}-{}", "x".repeat(number as usize % 251));
        (0..30_000).for_each(|wanted| assert_eq!(texts.push(&text(wanted)), wanted));
        assert!(texts.chunks.len() > 2, "the test wants more than one chunk");
        (0..30_000).for_each(|number| assert_eq!(texts.get(number), text(number)));
        assert_eq!((texts.get(30_000), texts.len()), ("", 30_000));
    }
}
