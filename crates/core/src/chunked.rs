//! Lists that grow without moving: a million records are never copied to a larger place while somebody waits.

/// Items per chunk; a power of two.
const CHUNK_ITEMS: usize = 1 << 13;

/// An append-only list in chunks.
#[derive(Debug)]
pub(crate) struct Chunked<T> {
    chunks: Vec<Vec<T>>,
    length: usize,
}

impl<T> Default for Chunked<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), length: 0 }
    }
}

impl<T> Chunked<T> {
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    pub(crate) fn push(&mut self, item: T) {
        match self.chunks.last_mut().filter(|chunk| chunk.len() < CHUNK_ITEMS) {
            Some(chunk) => chunk.push(item),
            None => {
                let mut chunk = Vec::with_capacity(CHUNK_ITEMS);
                chunk.push(item);
                self.chunks.push(chunk);
            }
        }
        self.length = self.length.saturating_add(1);
    }

    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        self.chunks.get(index / CHUNK_ITEMS)?.get(index % CHUNK_ITEMS)
    }

    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.chunks.get_mut(index / CHUNK_ITEMS)?.get_mut(index % CHUNK_ITEMS)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flatten()
    }

    /// The first index whose item is not `before`; items that are come first.
    pub(crate) fn partition_point(&self, before: impl Fn(&T) -> bool) -> usize {
        let chunk = self.chunks.partition_point(|chunk| chunk.last().is_some_and(&before));
        let inside = self.chunks.get(chunk).map_or(0, |chunk| chunk.partition_point(before));
        // The last chunk need not be full.
        chunk.saturating_mul(CHUNK_ITEMS).saturating_add(inside).min(self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_found_across_chunks() {
        let mut list = Chunked::default();
        let count = 3 * CHUNK_ITEMS + 5;
        (0..count).for_each(|item| list.push(item));
        assert_eq!(list.len(), count);
        assert!(list.iter().copied().eq(0..count));
        for index in [0, 1, CHUNK_ITEMS - 1, CHUNK_ITEMS, count - 1] {
            assert_eq!(list.get(index), Some(&index));
            assert_eq!(list.partition_point(|item| *item < index), index);
        }
        assert_eq!((list.get(count), list.partition_point(|_| true)), (None, count));
    }
}
