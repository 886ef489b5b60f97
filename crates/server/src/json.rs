//! Strict JSON: one object, known fields once each, whole numbers, nothing behind it.

use std::borrow::Cow;
use std::fmt;

use http::{HeaderMap, header};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use yoink_core::{CustomerId, ProductId};

use crate::problem::{Problem, UNSUPPORTED_MEDIA_TYPE};

/// The largest whole number that every JSON reader keeps exactly.
pub(crate) const NUMBER_MAX: u64 = (1 << 53) - 1;

/// Reads a body. Unknown and doubled fields are refused if `T` denies them, as every body of the native routes does.
/// No request has an array anywhere.
///
/// # Errors
/// 400 `validation` with a pointer to what is wrong.
pub(crate) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    // serde would read an array as a structure whose fields are in order.
    if body.contains(&b'[') && has_array(body) {
        return Err(explain::<T>(body));
    }
    // Looked at as text once, instead of field by field.
    let text = std::str::from_utf8(body).map_err(|_| explain::<T>(body))?;
    serde_json::from_str(text).map_err(|_| explain::<T>(body))
}

/// Reads a body of an older system: unknown fields may hold anything, as they always did.
///
/// `T` has no objects in its fields, so an array can only be taken for the body itself.
///
/// # Errors
/// As [`parse`].
pub(crate) fn parse_flat<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    if body.trim_ascii_start().starts_with(b"[") {
        return Err(explain::<T>(body));
    }
    serde_json::from_slice(body).map_err(|_| explain::<T>(body))
}

fn has_array(body: &[u8]) -> bool {
    let (mut is_text, mut is_escaped) = (false, false);
    for byte in body {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_text => is_escaped = true,
            b'"' => is_text = !is_text,
            b'[' if !is_text => return true,
            _ => {}
        }
    }
    false
}

/// Reads it once more, slowly, to say where it is wrong.
#[cold]
fn explain<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Problem {
    if body.trim_ascii_start().starts_with(b"[") {
        return Problem::field("", "must be a JSON object");
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
        Ok(_) => Problem::field("", "must be one JSON object without arrays, and nothing behind it"),
        Err(error) => {
            let detail = shorten(&error.inner().to_string());
            Problem::field(pointer(error.path(), &detail), detail)
        }
    }
}

/// RFC 6901. A field that is missing or unknown is only named in the message, so it is taken from there.
fn pointer(path: &serde_path_to_error::Path, detail: &str) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    let mut push = |name: &str| {
        pointer.push('/');
        pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
    };
    let mut last = None;
    for segment in path.iter() {
        match segment {
            Segment::Seq { index } => push(&index.to_string()),
            Segment::Map { key } | Segment::Enum { variant: key } => {
                push(key);
                last = Some(key.as_str());
            }
            Segment::Unknown => {}
        }
    }
    let named = ["missing field `", "unknown field `", "duplicate field `"]
        .iter()
        .find_map(|start| detail.strip_prefix(start)?.split('`').next());
    if let Some(named) = named
        && last != Some(named)
    {
        push(named);
    }
    pointer
}

/// The message without its position, and without more of the input than is useful.
fn shorten(message: &str) -> String {
    let message = message.split(" at line ").next().unwrap_or_default();
    message.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// Whether the body is plain `application/json`.
///
/// # Errors
/// 415 for any other type, a character set that is not UTF-8, or a content encoding.
pub(crate) fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    let refuse = |detail| Err(Problem::new(&UNSUPPORTED_MEDIA_TYPE, detail));
    if headers.contains_key(header::CONTENT_ENCODING) {
        return refuse("Send the body without Content-Encoding.");
    }
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    match (types.next(), types.next()) {
        (Some(value), None) if is_json(value.as_bytes()) => Ok(()),
        _ => refuse("Send the body with Content-Type: application/json."),
    }
}

fn is_json(value: &[u8]) -> bool {
    if value.eq_ignore_ascii_case(b"application/json") {
        return true;
    }
    let Ok(value) = std::str::from_utf8(value) else {
        return false;
    };
    let mut parts = value.split(';').map(str::trim);
    let is_type_right = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("application/json"));
    is_type_right
        && parts.all(|parameter| {
            matches!(&*parameter.to_ascii_lowercase(), "charset=utf-8" | "charset=\"utf-8\"")
        })
}

/// An id: a string, or a whole number from 0 that every JSON reader keeps exactly.
#[derive(Debug)]
pub(crate) struct Id<'a> {
    text: Cow<'a, str>,
    number: Option<u64>,
}

impl Id<'_> {
    /// As it was sent.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match self.number {
            Some(number) => number.into(),
            None => self.text.as_ref().into(),
        }
    }

    /// As a customer's id.
    ///
    /// # Errors
    /// 400 that points to `pointer`.
    pub(crate) fn to_customer(&self, pointer: &str) -> Result<CustomerId, Problem> {
        CustomerId::parse(&self.text).map_err(|error| Problem::field(pointer, error.to_string()))
    }

    /// As a product's id.
    ///
    /// # Errors
    /// 400 that points to `pointer`.
    pub(crate) fn to_product(&self, pointer: &str) -> Result<ProductId, Problem> {
        ProductId::parse(&self.text).map_err(|error| Problem::field(pointer, error.to_string()))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Id<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IdVisitor)
    }
}

struct IdVisitor;

impl<'de> Visitor<'de> for IdVisitor {
    type Value = Id<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, or a whole number from 0 to 9007199254740991")
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Id { text: Cow::Borrowed(text), number: None })
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Id { text: Cow::Owned(text.to_owned()), number: None })
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        if number > NUMBER_MAX {
            return Err(E::invalid_value(de::Unexpected::Unsigned(number), &self));
        }
        Ok(Id { text: Cow::Owned(number.to_string()), number: Some(number) })
    }
}

/// For `#[serde(default, deserialize_with = "present")]`: a field may be absent, but not `null`.
pub(crate) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// For the same attribute: absent is `None`, `null` is `Some(None)`, a value is `Some(Some(_))`.
pub(crate) fn nullable<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Sample<'a> {
        #[serde(borrow)]
        id: Id<'a>,
        #[serde(default)]
        count: u32,
    }

    fn error_of(body: &str) -> serde_json::Value {
        let problem = parse::<Sample>(body.as_bytes()).unwrap_err();
        serde_json::from_slice::<serde_json::Value>(&problem.to_json()).unwrap()["errors"][0].clone()
    }

    #[test]
    fn what_is_wrong_is_pointed_to() {
        for (body, pointer) in [
            (r#"{"id":"a","count":1.0}"#, "/count"),
            (r#"{"id":"a","count":1e0}"#, "/count"),
            (r#"{"id":"a","count":"1"}"#, "/count"),
            (r#"{"id":"a","count":-0}"#, "/count"),
            (r#"{"id":"a","count":-1}"#, "/count"),
            (r#"{"id":"a","count":4294967296}"#, "/count"),
            (r#"{"id":9007199254740992}"#, "/id"),
            (r#"{"id":-1}"#, "/id"),
            (r#"{"id":["a"]}"#, "/id"),
            (r#"{"id":null}"#, "/id"),
            (r#"{"count":1}"#, "/id"),
            (r#"{"id":"a","x/y":1}"#, "/x~1y"),
            (r#"{"id":"a","id":"b"}"#, "/id"),
            (r#"{"id":"a"} x"#, ""),
            (r#"{"id":"a""#, ""),
            ("[]", ""),
            ("", ""),
        ] {
            assert_eq!(error_of(body)["pointer"], pointer, "{body}: {}", error_of(body));
        }
    }

    #[test]
    fn an_array_is_never_taken_for_an_object() {
        assert_eq!(error_of(r#"["a",1]"#)["pointer"], "");
        assert!(has_array(br#"{"a":"\"[","b":[1]}"#));
        assert!(!has_array(br#"{"a":"\\\"[","b":1}"#));
        assert_eq!(parse::<Sample>(br#"{"id":"[x]"}"#).unwrap().id.text, "[x]");
    }

    #[test]
    fn a_lone_surrogate_is_refused_and_numbers_are_ids() {
        assert!(parse::<Sample>(br#"{"id":"\ud800"}"#).is_err());
        assert_eq!(parse::<Sample>(br#"{"id":7}"#).unwrap().id.text, "7");
    }

    #[test]
    fn only_plain_json_passes_as_a_type() {
        for (value, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=UTF-8", true),
            ("application/json; charset=latin1", false),
            ("application/jsonp", false),
            ("text/plain", false),
        ] {
            assert_eq!(is_json(value.as_bytes()), expected, "{value}");
        }
    }
}
