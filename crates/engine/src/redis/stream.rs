//! What Redis says of the entries of a stream. Anybody may have added one, with whatever bytes: nothing of it makes the
//! others unreadable.

use redis::{FromRedisValue, ParsingError, Value, from_redis_value};

/// The field that holds the lines of an entry of ours.
const LINES: &[u8] = b"v1";

/// An entry of a stream.
#[derive(Clone, Debug)]
pub(crate) struct StreamEntry {
    pub(crate) id: String,
    /// In the order of the entry. One that was deleted while a worker had it in hand has none.
    fields: Vec<(Vec<u8>, Vec<u8>)>,
}

impl StreamEntry {
    /// The lines of an entry of ours, one of each grant. `None`: it has none, or they are no text.
    pub(crate) fn lines(&self) -> Option<&str> {
        let (_, lines) = self.fields.iter().find(|(name, _)| name == LINES)?;
        std::str::from_utf8(lines).ok()
    }

    /// Everything in it, for a person to look at.
    pub(crate) fn shown(&self) -> String {
        let fields = self.fields.iter().map(|(name, value)| (name.escape_ascii(), value.escape_ascii()));
        fields.map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join("\n")
    }
}

impl FromRedisValue for StreamEntry {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let (id, fields): (String, Option<_>) = from_redis_value(value)?;
        Ok(Self { id, fields: fields.unwrap_or_default() })
    }
}

/// What `XREADGROUP` has found in one stream.
pub(crate) type ReadEntries = Option<Vec<(String, Vec<StreamEntry>)>>;

/// What `XAUTOCLAIM` has found.
pub(crate) struct ClaimedEntries(pub(crate) Vec<StreamEntry>);

impl FromRedisValue for ClaimedEntries {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        // Where to go on, the entries, and, from version 7 on, ids of entries that are gone. Before, those were entries of nil.
        let parts: Vec<Value> = from_redis_value(value)?;
        let entries: Option<Vec<Option<StreamEntry>>> = match parts.into_iter().nth(1) {
            Some(entries) => from_redis_value(entries)?,
            None => None,
        };
        Ok(Self(entries.into_iter().flatten().flatten().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(bytes: &[u8]) -> Value {
        Value::BulkString(bytes.to_vec())
    }

    fn entry(id: &[u8], fields: &[&[u8]]) -> Value {
        Value::Array(vec![bytes(id), Value::Array(fields.iter().map(|field| bytes(field)).collect())])
    }

    #[test]
    fn an_entry_of_any_bytes_leaves_the_others_readable() {
        let strange = entry(b"1-0", &[b"\xff\x00", b"\xfe", b"v1", b"\xff"]);
        let value = Value::Array(vec![strange, entry(b"2-0", &[b"v1", b"a line"])]);
        let entries: Vec<StreamEntry> = from_redis_value(value).unwrap();
        assert_eq!(entries.iter().map(|entry| entry.id.as_str()).collect::<Vec<_>>(), ["1-0", "2-0"]);
        assert_eq!(entries.iter().map(StreamEntry::lines).collect::<Vec<_>>(), [None, Some("a line")]);
        assert_eq!(entries[0].shown(), "\\xff\\x00: \\xfe\nv1: \\xff");
    }

    #[test]
    fn what_is_claimed_is_told_by_every_version_of_the_server() {
        let claimed = |parts: Vec<Value>| {
            let claimed: ClaimedEntries = from_redis_value(Value::Array(parts)).unwrap();
            claimed.0.into_iter().map(|entry| entry.id).collect::<Vec<_>>()
        };
        let good = entry(b"2-0", &[b"v1", b"a line"]);
        assert_eq!(claimed(vec![bytes(b"0-0"), Value::Array(vec![Value::Nil, good.clone()])]), ["2-0"]);
        let gone = Value::Array(vec![bytes(b"1-0")]);
        assert_eq!(claimed(vec![bytes(b"0-0"), Value::Array(vec![good]), gone]), ["2-0"]);
        assert_eq!(claimed(vec![bytes(b"0-0"), Value::Array(vec![])]), [""; 0]);
    }
}
