//! Money: whole minor units and a currency. No fractions, no conversion.

use core::fmt;

/// An ISO 4217 code: three capital letters.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Currency([u8; 3]);

impl Currency {
    /// Three capital ASCII letters, or nothing.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; 3] = text.as_bytes().try_into().ok()?;
        bytes.iter().all(u8::is_ascii_uppercase).then_some(Self(bytes))
    }

    /// The code as text.
    pub fn as_str(&self) -> &str {
        // Only ASCII is let in by `parse`.
        core::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The code as the bytes of its text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Money {
    /// In minor units of the currency (cents for EUR), 0 to [`Money::AMOUNT_MAX`].
    pub amount: i64,
    /// In which currency.
    pub currency: Currency,
}

impl Money {
    /// The highest price: ten thousand million minor units, far below where JSON numbers lose precision.
    pub const AMOUNT_MAX: i64 = 10_000_000_000;
}
