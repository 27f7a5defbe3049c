//! File names inside tree JSON: quoted as Go's `strconv.Quote` does, so that any bytes fit into a JSON string.

use std::borrow::Cow;

/// A quoted name that no Go program writes.
#[derive(Debug, thiserror::Error)]
#[error("failed to read the quoted name {name:?}: bad escape at byte {at}")]
pub struct UnquoteError {
    name: String,
    at: usize,
}

/// The inside of `strconv.Quote(name)`, without the quotes around it.
pub(crate) fn quote(name: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(name)
        && text.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\')
    {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(name.len() + 16);
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            quote_character(character, &mut out);
        }
        for byte in chunk.invalid() {
            push_hex(&mut out, 'x', u32::from(*byte), 2);
        }
    }
    Cow::Owned(out)
}

fn quote_character(character: char, out: &mut String) {
    match character {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x0b' => out.push_str("\\v"),
        _ if is_print(character) => out.push(character),
        _ => match u32::from(character) {
            // Control characters of ASCII; U+0080 and above are two bytes in UTF-8 and take the longer form.
            code @ (0..0x20 | 0x7f) => push_hex(out, 'x', code, 2),
            code @ ..0x10000 => push_hex(out, 'u', code, 4),
            code => push_hex(out, 'U', code, 8),
        },
    }
}

/// Go's `unicode.IsPrint`: letters, marks, numbers, punctuation, symbols, and the ASCII space.
///
/// Rust's debug escaping follows the same categories, except that it hides a combining mark at the *start* of a string:
/// a letter before it takes that exception away. Where the two languages know different versions of Unicode, a name is
/// merely escaped more often; reading it back gives the same bytes.
fn is_print(character: char) -> bool {
    match character {
        ' '..='~' => true,
        '\0'..='\x7f' => false,
        _ => {
            let mut bytes = [0; 5];
            bytes[0] = b'a';
            let length = 1 + character.encode_utf8(&mut bytes[1..]).len();
            std::str::from_utf8(&bytes[..length]).is_ok_and(|text| text.escape_debug().count() == 2)
        }
    }
}

fn push_hex(out: &mut String, kind: char, code: u32, digits: u32) {
    out.push('\\');
    out.push(kind);
    for digit in (0..digits).rev() {
        out.push(char::from_digit((code >> (digit * 4)) & 0xf, 16).unwrap_or('0'));
    }
}

/// Reads what [`quote`] wrote, and every other escape of a Go string literal.
pub(crate) fn unquote(quoted: &str) -> Result<Vec<u8>, UnquoteError> {
    let bytes = quoted.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte != b'\\' {
            out.push(byte);
            at += 1;
            continue;
        }
        at += 1 + unescape(&bytes[at + 1..], &mut out).ok_or_else(|| UnquoteError { name: quoted.to_owned(), at })?;
    }
    Ok(out)
}

/// Decodes one escape behind its backslash and says how many bytes it took.
fn unescape(rest: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    let simple = match *rest.first()? {
        b'a' => 0x07,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        byte @ (b'\\' | b'"' | b'\'') => byte,
        b'x' => {
            out.push(u8::try_from(number(rest.get(1..3)?, 16)?).ok()?);
            return Some(3);
        }
        b'0'..=b'7' => {
            out.push(u8::try_from(number(rest.get(..3)?, 8)?).ok()?);
            return Some(3);
        }
        kind @ (b'u' | b'U') => {
            let end = if kind == b'u' { 5 } else { 9 };
            let character = char::from_u32(number(rest.get(1..end)?, 16)?)?;
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(end);
        }
        _ => return None,
    };
    out.push(simple);
    Some(1)
}

fn number(digits: &[u8], radix: u32) -> Option<u32> {
    digits.iter().try_fold(0_u32, |sum, digit| sum.checked_mul(radix)?.checked_add(char::from(*digit).to_digit(radix)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pairs by the rules of `strconv.Quote`; `tests/directory.rs` compares with what restic itself writes.
    const QUOTED: &[(&[u8], &str)] = &[
        (b"plain.txt", "plain.txt"),
        (b"a b", "a b"),
        (b"quote\"back\\slash", "quote\\\"back\\\\slash"),
        (b"tab\tnew\nline\x07\x08\x0b\x0c\r", "tab\\tnew\\nline\\a\\b\\v\\f\\r"),
        (b"\x01\x7f", "\\x01\\x7f"),
        (b"\xff\xfe", "\\xff\\xfe"),
        ("übung".as_bytes(), "übung"),
        ("\u{a0}nbsp".as_bytes(), "\\u00a0nbsp"),
        ("\u{85}".as_bytes(), "\\u0085"),
        ("\u{200b}".as_bytes(), "\\u200b"),
        ("e\u{301}".as_bytes(), "e\u{301}"),
        ("\u{301}".as_bytes(), "\u{301}"),
        ("😀".as_bytes(), "😀"),
        ("\u{e0001}".as_bytes(), "\\U000e0001"),
        ("\u{feff}".as_bytes(), "\\ufeff"),
        ("'".as_bytes(), "'"),
    ];

    #[test]
    fn names_are_quoted_as_go_quotes_them() {
        for (name, quoted) in QUOTED {
            assert_eq!(quote(name), *quoted, "{name:?}");
            assert_eq!(unquote(quoted).unwrap(), *name, "{quoted}");
        }
    }

    #[test]
    fn octal_escapes_are_read() {
        assert_eq!(unquote("\\101\\x42\\u0043\\U00000044").unwrap(), b"ABCD");
    }

    #[test]
    fn a_cut_or_unknown_escape_is_an_error() {
        for bad in ["\\", "\\x1", "\\u12", "\\q", "\\ud800", "\\777"] {
            assert!(unquote(bad).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_survive_quoting(name: Vec<u8>) {
            proptest::prop_assert_eq!(unquote(&quote(&name)).unwrap(), name);
        }
    }
}
