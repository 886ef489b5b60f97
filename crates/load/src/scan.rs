//! Finds one top-level field in a JSON object without building a tree.
//!
//! An answer has a few hundred bytes and the storm needs one or two of its fields, tens of thousands of times a
//! second. Nested objects and strings with escapes are skipped over correctly; an escaped value is returned as it
//! stands on the wire.

/// The value of the top-level field `name` if it is a string or a number: the characters between the quotes, or the
/// number as written. `None` if the field is absent, has another type, or the text is not an object.
pub(crate) fn top_level_field<'a>(body: &'a [u8], name: &str) -> Option<&'a str> {
    let mut cursor = Cursor { rest: body };
    cursor.skip_space();
    cursor.take(b'{')?;
    loop {
        cursor.skip_space();
        let key = cursor.string()?;
        cursor.skip_space();
        cursor.take(b':')?;
        cursor.skip_space();
        if key == name.as_bytes() {
            return cursor.scalar().and_then(|value| std::str::from_utf8(value).ok());
        }
        cursor.skip_value()?;
        cursor.skip_space();
        cursor.take(b',')?;
    }
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn skip_space(&mut self) {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        let (first, rest) = self.rest.split_first()?;
        if *first != wanted {
            return None;
        }
        self.rest = rest;
        Some(())
    }

    /// A string, without its quotes; the cursor then stands behind the closing quote.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.take(b'"')?;
        let text = self.rest;
        let mut length = 0;
        loop {
            match text.get(length)? {
                b'"' => break,
                b'\\' => length += 2,
                _ => length += 1,
            }
        }
        self.rest = text.get(length + 1..)?;
        text.get(..length)
    }

    fn scalar(&mut self) -> Option<&'a [u8]> {
        match self.rest.first()? {
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => {
                let length = self
                    .rest
                    .iter()
                    .position(|byte| matches!(byte, b',' | b'}' | b' ' | b'\n' | b'\r' | b'\t'))?;
                self.rest.get(..length)
            }
            _ => None,
        }
    }

    /// Skips a value of any type, nested ones included.
    fn skip_value(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match *self.rest.first()? {
                b'"' => {
                    self.string()?;
                    if depth == 0 {
                        return Some(());
                    }
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' if depth == 0 => return Some(()),
                b'}' | b']' => {
                    depth -= 1;
                    if depth == 0 {
                        self.rest = self.rest.get(1..)?;
                        return Some(());
                    }
                }
                b',' if depth == 0 => return Some(()),
                _ => {}
            }
            self.rest = self.rest.get(1..)?;
        }
    }
}

/// The reason of a problem document: the last path segment of its `type`, so `/problems/sold-out` is `sold-out`.
pub(crate) fn problem_reason(body: &[u8]) -> Option<&str> {
    let kind = top_level_field(body, "type")?;
    kind.rsplit('/').next().filter(|segment| !segment.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_behind_nested_values_of_the_same_name() {
        let body = br#" { "inner" : {"id":"wrong","list":[{"id":"also wrong"}]}, "text":"a \"id\":\"x\" b", "id" : "right" } "#;
        assert_eq!(top_level_field(body, "id"), Some("right"));
    }

    #[test]
    fn a_number_is_a_value_too_and_other_types_are_not() {
        assert_eq!(top_level_field(br#"{"a":[1,2],"orderId":42}"#, "orderId"), Some("42"));
        assert_eq!(top_level_field(br#"{"orderId":null}"#, "orderId"), None);
        assert_eq!(top_level_field(br#"{"x":1}"#, "orderId"), None);
    }

    #[test]
    fn cut_off_or_foreign_text_never_panics_and_finds_nothing() {
        let whole = br#"{"a":{"b":[1,"\\"]},"id":"7"}"#;
        for length in 0..whole.len() - 1 {
            let found = top_level_field(&whole[..length], "id");
            assert!(found.is_none() || found == Some("7"), "{length}: {found:?}");
        }
        for text in ["", "[]", "null", "{", "{\"", "{\"id\\", "\u{0}", "{\"id\":", "{]}"] {
            assert_eq!(top_level_field(text.as_bytes(), "id"), None, "{text:?}");
        }
    }

    #[test]
    fn the_reason_is_the_last_segment_of_the_type() {
        assert_eq!(problem_reason(br#"{"type":"/problems/sold-out","status":409}"#), Some("sold-out"));
        assert_eq!(
            problem_reason(br#"{"type":"https://x.example/problems/overloaded"}"#),
            Some("overloaded")
        );
        assert_eq!(problem_reason(br#"{"error":"Conflict"}"#), None);
    }
}
