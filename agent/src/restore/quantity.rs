//! Sizes as Kubernetes writes them: `10Gi`, `500M`, `1e9`.

/// A size in bytes, rounded up; `None` for what is no quantity or is negative.
#[must_use]
pub fn bytes(quantity: &str) -> Option<u128> {
    let text = quantity.trim();
    let digits = text.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (factor, divisor): (u128, u128) = match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1000_u128.pow(2), 1),
        "G" => (1000_u128.pow(3), 1),
        "T" => (1000_u128.pow(4), 1),
        "P" => (1000_u128.pow(5), 1),
        "E" => (1000_u128.pow(6), 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        exponent => {
            let power: u32 = exponent.strip_prefix(['e', 'E'])?.parse().ok().filter(|power| *power <= 18)?;
            (10_u128.pow(power), 1)
        }
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.len() > 18 || whole.len() > 18 {
        return None;
    }
    let parse = |digits: &str| if digits.is_empty() { Some(0) } else { digits.parse::<u128>().ok() };
    let scale = 10_u128.pow(fraction.len() as u32);
    let scaled = parse(whole)? * scale + parse(fraction)?;
    Some((scaled * factor).div_ceil(scale * divisor))
}

/// The larger of two sizes, as it was written; one that cannot be read loses.
#[must_use]
pub fn larger<'a>(one: &'a str, other: &'a str) -> &'a str {
    if bytes(other) > bytes(one) { other } else { one }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_kubernetes_writes_them() {
        for (text, expected) in [
            ("1Gi", 1 << 30),
            ("1.5Gi", 3 << 29),
            ("500M", 500_000_000),
            ("1e9", 1_000_000_000),
            ("1E", 10_u128.pow(18)),
            ("1073741824", 1 << 30),
            ("1500m", 2),
            ("0.5", 1),
            ("0", 0),
        ] {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
        for text in ["", "Gi", "1Zi", "-1", "1.2.3", "1e99", "ten"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    #[test]
    fn the_larger_size_wins_and_an_unreadable_one_never() {
        assert_eq!(larger("1Gi", "1000Mi"), "1Gi");
        assert_eq!(larger("1Gi", "1025Mi"), "1025Mi");
        assert_eq!(larger("1Gi", "large"), "1Gi");
        assert_eq!(larger("large", "1Gi"), "1Gi");
    }
}
