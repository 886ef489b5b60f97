//! Pages of a listing: where one begins and how much is on it. Every list route has the same two parameters.

use crate::problem::Problem;

/// What is on a page unless the client says otherwise.
const LIMIT_DEFAULT: usize = 100;

/// One page, within its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// Only what has a higher number.
    pub(crate) after: u64,
    /// At most this many, and at least 1.
    pub(crate) limit: usize,
}

impl Page {
    /// Checks `after` and `limit` as they were sent; a page has at most `most` entries.
    ///
    /// # Errors
    /// 400 if no number can be as high as `after`, or `limit` is 0 or more than `most`.
    pub(crate) fn check(after: u64, limit: Option<usize>, most: usize) -> Result<Self, Problem> {
        // What has the highest number is not reached in this universe; the books count in i64.
        if i64::try_from(after).is_err() {
            return Err(Problem::field("", format!("query: after must be at most {}", i64::MAX)));
        }
        let limit = limit.unwrap_or(LIMIT_DEFAULT.min(most));
        if !(1..=most).contains(&limit) {
            return Err(Problem::field("", format!("query: limit must be from 1 to {most}")));
        }
        Ok(Self { after, limit })
    }
}
