//! JSON as Go's `encoding/json` writes it.
//!
//! The restic design asks for it ("Unpacked Data Format"): tree ids are hashes of JSON, so two programs deduplicate
//! against each other only when they write the same bytes.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

/// Serialises without white space, with Go's HTML-safe escapes.
pub(crate) fn to_vec<T: Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut out = Vec::with_capacity(256);
    value.serialize(&mut Serializer::with_formatter(&mut out, Go))?;
    Ok(out)
}

struct Go;

impl Formatter for Go {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, character)) = rest.char_indices().find(|(_, character)| escape(*character).is_some()) {
            writer.write_all(&rest.as_bytes()[..at])?;
            writer.write_all(escape(character).unwrap_or_default().as_bytes())?;
            rest = &rest[at + character.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

/// What Go escapes beyond what JSON requires.
const fn escape(character: char) -> Option<&'static str> {
    Some(match character {
        '<' => "\\u003c",
        '>' => "\\u003e",
        '&' => "\\u0026",
        '\u{2028}' => "\\u2028",
        '\u{2029}' => "\\u2029",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_go_escapes_them() {
        let text = "a<b>&c\u{2028}\u{2029}\"\\\n\u{1}ü";
        let json = String::from_utf8(to_vec(&text).unwrap()).unwrap();
        assert_eq!(json, r#""a\u003cb\u003e\u0026c\u2028\u2029\"\\\n\u0001ü""#);
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}
