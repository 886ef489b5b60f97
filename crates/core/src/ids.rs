//! Names of things. Each checks itself when made, so what is inside is always fit for the log.

use core::fmt;
use core::hash::{Hash, Hasher};
use std::sync::Arc;

/// Position of an event in the log: dense, from 1.
pub type Seq = u64;

/// Microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

/// A UUID, as 16 bytes in network order. The engine makes it; the core only carries it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderId(pub [u8; 16]);

impl fmt::Debug for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for OrderId {
    /// The usual hyphenated form: 8-4-4-4-12 lower-case hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// Why a text is not an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdError {
    /// Nothing between the quotes.
    Empty,
    /// More bytes than `bytes_max`.
    TooLong {
        /// The most bytes this kind of id may have.
        bytes_max: usize,
    },
    /// A character that this kind of id may not hold.
    BadCharacter {
        /// The first offending character.
        character: char,
        /// What is allowed, as a phrase.
        allowed: &'static str,
    },
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("must not be empty"),
            Self::TooLong { bytes_max } => write!(f, "must have at most {bytes_max} bytes"),
            Self::BadCharacter { character, allowed } => {
                write!(f, "must not contain {:?}; allowed are {allowed}", character)
            }
        }
    }
}

impl core::error::Error for IdError {}

/// What is sold. 1 to 39 of `A-Z a-z 0-9 . _ -`; kept inline, so copying one costs no allocation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProductId {
    // Ordered first by text, then by length; unused bytes are zero, so the derived order is the text's order.
    bytes: [u8; Self::BYTES_MAX],
    length: u8,
}

impl ProductId {
    /// The longest product id, in bytes.
    pub const BYTES_MAX: usize = 39;

    /// Checks and copies `text`.
    ///
    /// # Errors
    /// Empty, longer than [`Self::BYTES_MAX`], or a character outside `A-Z a-z 0-9 . _ -`.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let allowed = "letters, digits, '.', '_' and '-'";
        check(text, Self::BYTES_MAX, allowed, |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))?;
        let mut bytes = [0; Self::BYTES_MAX];
        for (to, from) in bytes.iter_mut().zip(text.bytes()) {
            *to = from;
        }
        let length = u8::try_from(text.len()).map_err(|_| IdError::TooLong { bytes_max: Self::BYTES_MAX })?;
        Ok(Self { bytes, length })
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        // Only ASCII is let in by `parse`, so this never falls back.
        core::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The id as the bytes of its text.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

impl Hash for ProductId {
    /// Only what is used: most ids are far shorter than the longest.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Debug for ProductId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for ProductId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who buys. 1 to 128 bytes of text without control characters. Cloning one costs no allocation.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CustomerId(Arc<str>);

impl CustomerId {
    /// The longest customer id, in bytes.
    pub const BYTES_MAX: usize = 128;

    /// Checks and copies `text`.
    ///
    /// # Errors
    /// Empty, longer than [`Self::BYTES_MAX`], or a control character.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        check(text, Self::BYTES_MAX, "all but control characters", |c| !c.is_control())?;
        Ok(Self(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for CustomerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for CustomerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What makes a repeated request the same request. 1 to 255 visible ASCII characters, scoped to one customer. Cloning
/// one costs no allocation.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdempotencyKey(Arc<str>);

impl IdempotencyKey {
    /// The longest key, in bytes.
    pub const BYTES_MAX: usize = 255;

    /// Checks and copies `text`.
    ///
    /// # Errors
    /// Empty, longer than [`Self::BYTES_MAX`], or anything but visible ASCII (0x21 to 0x7e).
    pub fn parse(text: &str) -> Result<Self, IdError> {
        check(text, Self::BYTES_MAX, "visible ASCII characters", |c| c.is_ascii_graphic())?;
        Ok(Self(text.into()))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

fn check(
    text: &str,
    bytes_max: usize,
    allowed: &'static str,
    is_allowed: impl Fn(char) -> bool,
) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > bytes_max {
        return Err(IdError::TooLong { bytes_max });
    }
    // Nearly every text is ASCII. All of it is looked at without stopping, which takes many bytes at a time.
    if text.bytes().fold(true, |passes, byte| passes & byte.is_ascii() & is_allowed(char::from(byte))) {
        return Ok(());
    }
    match text.chars().find(|c| !is_allowed(*c)) {
        Some(character) => Err(IdError::BadCharacter { character, allowed }),
        None => Ok(()),
    }
}
