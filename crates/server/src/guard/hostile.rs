//! What reads bytes of strangers, against slow readers that were written apart from it, on many inputs made by chance.
//! `YOINK_SEED=number` repeats a run.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use yoink_core::{CustomerId, IdempotencyKey, ProductId};
use yoink_testkit::Chance;

use super::address::client_address;
use super::framing::HeadWatch;
use crate::api::purchase::parse_for_anyone;

/// Spoils bytes in up to three places: a bit turned, cut out, doubled, or something put in.
fn spoil(chance: &mut Chance, bytes: &mut Vec<u8>, words: &[&str]) {
    for _ in 0..chance.below(4) {
        let start = chance.below(bytes.len() + 1);
        let end = (start + chance.below(12)).min(bytes.len());
        match chance.below(6) {
            0 if start < bytes.len() => bytes[start] ^= 1 << chance.below(8),
            1 => drop(bytes.drain(start..end)),
            2 => {
                let part = bytes[start..end].to_vec();
                bytes.splice(end..end, part);
            }
            3 => bytes.truncate(bytes.len() - chance.below(3).min(bytes.len())),
            _ => {
                let word = chance.pick(words).bytes();
                bytes.splice(start..start, word).for_each(drop);
            }
        }
    }
}

/// An object as it was written: members in their order, doubled ones too.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AllMembers;
        impl<'de> Visitor<'de> for AllMembers {
            type Value = Members;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(AllMembers)
    }
}

/// What the contract makes of a purchase's body: customer, product, quantity.
fn purchase_by_the_contract(body: &[u8]) -> Option<(String, String, u32)> {
    let Members(members) = serde_json::from_slice(body).ok()?;
    let names: BTreeSet<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
    if names.len() < members.len()
        || !names.iter().all(|n| ["customer_id", "product_id", "quantity"].contains(n))
    {
        return None;
    }
    let member = |name: &str| members.iter().find(|(known, _)| known == name).map(|(_, value)| value);
    let id = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.as_u64().filter(|n| *n < 1 << 53)?.to_string()),
        _ => None,
    };
    let customer = id(member("customer_id")?)?;
    let product = id(member("product_id")?)?;
    let quantity = member("quantity").map_or(Some(1), Value::as_u64)?;
    let is_customer = (1..=128).contains(&customer.len()) && !customer.chars().any(char::is_control);
    let is_product = (1..=39).contains(&product.len())
        && product.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    let is_quantity = (1..=1_000).contains(&quantity);
    (is_customer && is_product && is_quantity).then(|| (customer, product, u32::try_from(quantity).unwrap()))
}

const BODIES: [&str; 5] = [
    r#"{"customer_id":"ann","product_id":"1","quantity":1}"#,
    r#"{"product_id":"sneaker-42","customer_id":7}"#,
    r#" { "customer_id" : 9007199254740991 , "product_id" : 1 , "quantity" : 1000 } "#,
    r#"{"customer_id":"\u00e9\ud83d\ude00[]","product_id":"a.b_c-d","quantity":10}"#,
    r#"["ann","sneaker-42",2]"#,
];

#[test]
fn a_body_is_a_purchase_exactly_if_the_contract_says_so_and_else_a_problem_that_can_be_read() {
    let mut chance = Chance::new("bodies");
    let long = "x".repeat(120);
    let words = [
        "null",
        "-0",
        "1e0",
        "1.0",
        "0",
        "1001",
        "\\u0000",
        "\\ud800",
        "\\u202e",
        "\\n",
        "\n",
        "\u{7f}",
        "\"",
        "\\",
        "[",
        "]",
        "[]",
        "{",
        "}",
        "{}",
        ",",
        ":",
        "\"quantity\":2,",
        "\"customer_id\":\"b\",",
        "\"price\":0,",
        "true",
        "9007199254740992",
        "99999999999999999999",
        "\u{feff}",
        "\0",
        " ",
        "é",
        &long,
    ];
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..150_000 {
        let mut body = chance.pick(&BODIES).as_bytes().to_vec();
        spoil(&mut chance, &mut body, &words);
        let shown = String::from_utf8_lossy(&body).into_owned();
        let parsed = parse_for_anyone(&HeaderMap::new(), &Bytes::from(body.clone()));
        let expected = purchase_by_the_contract(&body);
        match parsed {
            Ok(request) => {
                let got =
                    (request.customer.as_str().to_owned(), request.product.to_string(), request.quantity);
                assert_eq!(Some(got), expected, "{shown:?}");
                accepted += 1;
            }
            Err(problem) => {
                assert_eq!(expected, None, "{shown:?} was refused");
                let document: Value = serde_json::from_slice(&problem.to_json()).unwrap();
                assert_eq!(document["status"], 400, "{shown:?}: {document}");
                let detail = document["errors"][0]["detail"].as_str().unwrap();
                assert!(!detail.is_empty() && detail.len() <= 800, "{shown:?}: {document}");
                assert!(!detail.chars().any(char::is_control), "{shown:?}: {document}");
                refused += 1;
            }
        }
    }
    assert!(accepted > 10_000 && refused > 10_000, "{accepted} accepted, {refused} refused");
}

#[test]
fn an_id_is_what_the_contract_allows_and_stays_what_it_was() {
    let mut chance = Chance::new("ids");
    let letters: Vec<char> =
        "aZ09._-~ !\"\\/{}[]%\u{0}\n\t\u{1b}\u{7f}\u{85}\u{a0}é漢😀\u{202e}".chars().collect();
    let long = "a".repeat(250);
    for _ in 0..100_000 {
        let mut text: String = (0..chance.below(8)).map(|_| letters[chance.below(letters.len())]).collect();
        if chance.below(4) == 0 {
            text = (*chance.pick(&["", &long[..37], &long[..125], &long])).to_owned() + &text;
        }
        let is = |bytes_max: usize, is_allowed: fn(char) -> bool| {
            (1..=bytes_max).contains(&text.len()) && text.chars().all(is_allowed)
        };
        let customer = CustomerId::parse(&text).ok().map(|id| id.as_str().to_owned());
        assert_eq!(customer, is(128, |c| !c.is_control()).then(|| text.clone()), "customer {text:?}");
        let product = ProductId::parse(&text).ok().map(|id| id.as_str().to_owned());
        let is_product = is(39, |c| c.is_ascii_alphanumeric() || "._-".contains(c));
        assert_eq!(product, is_product.then(|| text.clone()), "product {text:?}");
        let key = IdempotencyKey::parse(&text).ok().map(|id| id.as_str().to_owned());
        assert_eq!(key, is(255, |c| ('!'..='~').contains(&c)).then(|| text.clone()), "key {text:?}");
    }
}

/// The place of the byte at which a head has two readings, found by somebody who has all bytes before him.
fn place_of_two_readings(bytes: &[u8]) -> Option<usize> {
    let mut start = 0;
    loop {
        let mut lines: Vec<String> = Vec::new();
        let body_bytes = loop {
            let end = start + bytes.get(start..)?.iter().position(|byte| *byte == b'\n')?;
            let line = String::from_utf8_lossy(&bytes[start..end]).to_ascii_lowercase();
            start = end + 1;
            let Some(line) = line.strip_suffix('\r') else { return Some(end) };
            if line.is_empty() && !lines.is_empty() {
                let mut lengths = lines[1..].iter().filter_map(|line| line.strip_prefix("content-length:"));
                let is_other = lines[1..].iter().any(|line| line.starts_with("transfer-encoding:"));
                break match (lengths.next_back(), is_other) {
                    (None, false) => 0,
                    // What hyper refuses, or ends the connection behind: nothing follows.
                    (Some(length), false) => length.trim().parse().ok()?,
                    (_, true) => return None,
                };
            }
            if !line.is_empty() {
                lines.push(line.to_owned());
            }
            let is_framing = |line: &&String| {
                line.starts_with("content-length:") || line.starts_with("transfer-encoding:")
            };
            if lines.iter().skip(1).filter(is_framing).count() > 1 {
                return Some(end);
            }
        };
        start = start.checked_add(body_bytes)?;
    }
}

#[test]
fn the_watch_over_heads_sees_what_a_slow_reader_sees_in_whatever_pieces_the_bytes_arrive() {
    let mut chance = Chance::new("heads");
    let messages = [
        "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n",
        "POST /v1/orders HTTP/1.1\r\nhost: x\r\nContent-Length: 4\r\n\r\n\n\r\n{",
        "POST /v1/orders HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
    ];
    let words = [
        "\n",
        "\r",
        "\r\n",
        "\r\n\r\n",
        "\n\n",
        " ",
        "\0",
        "0",
        "9",
        "content-length: 3\r\n",
        "Content-Length:1\r\n",
        "CONTENT-LENGTH: 99999999999999999999\r\n",
        "transfer-encoding: chunked\r\n",
        "Transfer-Encoding:x\r\n",
        ":",
        "é",
        "GET / HTTP/1.1\r\n\r\n",
        "content-length: +2\r\n",
        "x: content-length: 1\r\n",
    ];
    let (mut sound, mut spoilt) = (0, 0);
    for _ in 0..150_000 {
        let mut bytes = Vec::new();
        for _ in 0..=chance.below(3) {
            let mut message = chance.pick(&messages).as_bytes().to_vec();
            spoil(&mut chance, &mut message, &words);
            bytes.extend(message);
        }
        let mut seen = bytes.clone();
        let mut watch = HeadWatch::default();
        let mut rest = &mut seen[..];
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at_mut(1 + chance.below(rest.len().min(40)));
            watch.look(piece);
            rest = behind;
        }
        let place = place_of_two_readings(&bytes);
        let mut expected = bytes.clone();
        place.into_iter().for_each(|place| expected[place] = 0);
        assert_eq!(seen, expected, "{place:?} {:?}", String::from_utf8_lossy(&bytes));
        assert_eq!(watch.complaint().is_some(), place.is_some());
        *(if place.is_some() { &mut spoilt } else { &mut sound }) += 1;
    }
    assert!(sound > 10_000 && spoilt > 10_000, "{sound} sound, {spoilt} spoilt");
}

/// The client, by somebody who writes all hops down first.
fn client_of(peer: IpAddr, lines: &[Vec<u8>], trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(&address));
    let header = lines.join(&b","[..]);
    let mut hops: Vec<&[u8]> = header.split(|byte| *byte == b',').collect();
    hops.reverse();
    hops.truncate(32);
    if lines.is_empty() || !is_trusted(peer.to_canonical()) {
        return peer;
    }
    let mut client = peer;
    for hop in hops {
        let text = String::from_utf8(hop.to_vec()).unwrap_or_default();
        let text = text.trim();
        let bare: Option<IpAddr> = text.parse().ok();
        let with_port = text.parse().ok().map(|socket: SocketAddr| socket.ip());
        let bracketed = format!("{text}:1").parse().ok().map(|socket: SocketAddr| socket.ip());
        let bracketed = bracketed.filter(|_| text.starts_with('['));
        let Some(address) = bare.or(with_port).or(bracketed) else { return peer };
        client = address.to_canonical();
        if !is_trusted(client) {
            break;
        }
    }
    client
}

#[test]
fn a_forwarded_header_never_makes_anybody_of_a_client_but_whom_the_proxies_saw() {
    let mut chance = Chance::new("forwarded headers");
    let trusted: [IpNet; 3] = ["10.0.0.0/8", "fd00::/8", "::1/128"].map(|network| network.parse().unwrap());
    let hops = [
        "10.0.0.1",
        "10.255.0.9",
        "::ffff:10.1.2.3",
        "fd00::1",
        "203.0.113.7",
        "2001:db8::7",
        "[2001:db8::7]:443",
        "[fd00::2]",
        "203.0.113.9:80",
        "10.0.0.2:1",
        "",
        " ",
        "unknown",
        "_hidden",
        "203.0.113",
        "1.2.3.4.5",
        "[::1",
        "0x0a000001",
        "10.1",
        "\t10.0.0.3 ",
        "%31",
        "[203.0.113.7]",
        "[::ffff:203.0.113.7]:80",
        "[::ffff:10.0.0.1]",
    ];
    let words = [",", " ", "1", ":", "[", "]", "é", ".", "\t", ",,", "10.0.0.1", "\u{7f}"];
    let peers = ["10.0.0.1", "::ffff:10.0.0.1", "fd00::1", "::1", "203.0.113.1", "2001:db8::1"];
    let mut counts = [0; 2];
    for _ in 0..100_000 {
        let peer: IpAddr = chance.pick(&peers).parse().unwrap();
        let lines: Vec<Vec<u8>> = (0..chance.below(4))
            .map(|_| {
                let count = if chance.below(20) == 0 { 40 } else { chance.below(5) };
                let from = if count == 40 { &hops[..4] } else { &hops[..] };
                let line: Vec<&str> = (0..count).map(|_| *chance.pick(from)).collect();
                let mut line = line.join(",").into_bytes();
                spoil(&mut chance, &mut line, &words);
                line
            })
            .filter(|line| HeaderValue::from_bytes(line).is_ok())
            .collect();
        let mut headers = HeaderMap::new();
        for line in &lines {
            headers.append("x-forwarded-for", HeaderValue::from_bytes(line).unwrap());
        }
        let shown: Vec<_> = lines.iter().map(|line| String::from_utf8_lossy(line)).collect();
        let client = client_address(peer, &headers, &trusted);
        assert_eq!(client, client_of(peer, &lines, &trusted), "{peer} {shown:?}");
        assert_eq!(client_address(peer, &headers, &[]), peer, "{peer} {shown:?}");
        counts[usize::from(client == peer)] += 1;
    }
    assert!(counts.iter().all(|count| *count > 5_000), "{counts:?}");
}
