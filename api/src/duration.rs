//! Durations as Kubernetes writes them: `90s`, `15m`, `1h30m`.

use std::time::Duration;

/// Why a text is no duration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("failed to read duration {text:?}: write a number and a unit of h, m or s for each part, such as 1h30m")]
pub struct InvalidDuration {
    text: String,
}

/// Reads a duration of whole hours, minutes and seconds. Units: `h`, `m`, `s`, each at most once, in any order.
pub fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    let invalid = || InvalidDuration { text: text.to_owned() };
    let mut seconds: u64 = 0;
    let mut number: Option<u64> = None;
    let mut seen = Vec::with_capacity(3);
    for character in text.chars() {
        if let Some(digit) = character.to_digit(10) {
            let value = number.unwrap_or(0).checked_mul(10).and_then(|value| value.checked_add(u64::from(digit)));
            number = Some(value.ok_or_else(invalid)?);
            continue;
        }
        let factor = match character {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return Err(invalid()),
        };
        if seen.contains(&character) {
            return Err(invalid());
        }
        seen.push(character);
        let value = number.take().ok_or_else(invalid)?;
        seconds = value.checked_mul(factor).and_then(|part| seconds.checked_add(part)).ok_or_else(invalid)?;
    }
    if number.is_some() || seen.is_empty() {
        return Err(invalid());
    }
    Ok(Duration::from_secs(seconds))
}

/// Writes a duration in whole seconds for people: `1h2m3s`, `45s`.
#[must_use]
pub fn format(duration: Duration) -> String {
    let total = duration.as_secs();
    let (hours, minutes, seconds) = (total / 3600, total % 3600 / 60, total % 60);
    let parts = [(hours, 'h'), (minutes, 'm'), (seconds, 's')];
    let text = parts.iter().filter(|(number, _)| *number > 0).map(|(number, unit)| format!("{number}{unit}"));
    let text = text.collect::<String>();
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_kubernetes_are_read() {
        assert_eq!(parse("15m"), Ok(Duration::from_mins(15)));
        assert_eq!(parse("1h30m"), Ok(Duration::from_mins(90)));
        assert_eq!(parse("0s"), Ok(Duration::ZERO));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "15", "m", "1d", "-1h", "1h1h", "99999999999999999999s", "1.5h"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        for seconds in [0, 1, 59, 60, 3600, 3661, 86_400] {
            let duration = Duration::from_secs(seconds);
            assert_eq!(parse(&format(duration)), Ok(duration));
        }
    }
}
