//! Numbers and texts as bytes: LEB128 whole numbers (zig-zag where they may be negative) and length-prefixed texts.

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end in the middle of something.
    #[error("it ends too early")]
    Short,
    /// A number is larger than its field.
    #[error("a number is too large")]
    TooLarge,
    /// A text is not UTF-8, or not what its field allows.
    #[error("a text is not what its field allows")]
    BadText,
    /// A kind of thing that this version does not know.
    #[error("it holds something of unknown kind {0}")]
    UnknownKind(u8),
    /// Bytes are left over.
    #[error("it holds more than it should")]
    Long,
}

/// Appends to a byte vector.
pub(crate) struct Encoder<'a>(pub(crate) &'a mut Vec<u8>);

impl Encoder<'_> {
    pub(crate) fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn raw(&mut self, value: &[u8]) {
        self.0.extend_from_slice(value);
    }

    pub(crate) fn unsigned(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub(crate) fn signed(&mut self, value: i64) {
        self.unsigned(((value << 1) ^ (value >> 63)) as u64);
    }

    pub(crate) fn text(&mut self, value: &str) {
        self.text_bytes(value.as_bytes());
    }

    /// A text whose bytes are at hand.
    pub(crate) fn text_bytes(&mut self, value: &[u8]) {
        self.unsigned(value.len() as u64);
        self.raw(value);
    }

    /// A presence byte, then the value.
    pub(crate) fn option<T>(&mut self, value: Option<T>, encode: impl FnOnce(&mut Self, T)) {
        match value {
            None => self.byte(0),
            Some(value) => {
                self.byte(1);
                encode(self, value);
            }
        }
    }
}

/// Takes from the front of a byte slice.
pub(crate) struct Decoder<'a>(pub(crate) &'a [u8]);

impl<'a> Decoder<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> Result<u8, DecodeError> {
        let (first, rest) = self.0.split_first().ok_or(DecodeError::Short)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(crate) fn raw(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(DecodeError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.raw(N)?.try_into().map_err(|_| DecodeError::Short)
    }

    pub(crate) fn unsigned(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return Err(DecodeError::TooLarge);
            }
            value |= part << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::TooLarge)
    }

    pub(crate) fn unsigned_32(&mut self) -> Result<u32, DecodeError> {
        u32::try_from(self.unsigned()?).map_err(|_| DecodeError::TooLarge)
    }

    pub(crate) fn signed(&mut self) -> Result<i64, DecodeError> {
        let value = self.unsigned()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, DecodeError> {
        let length = usize::try_from(self.unsigned()?).map_err(|_| DecodeError::TooLarge)?;
        core::str::from_utf8(self.raw(length)?).map_err(|_| DecodeError::BadText)
    }

    pub(crate) fn option<T>(
        &mut self,
        decode: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        match self.byte()? {
            0 => Ok(None),
            1 => decode(self).map(Some),
            other => Err(DecodeError::UnknownKind(other)),
        }
    }
}
