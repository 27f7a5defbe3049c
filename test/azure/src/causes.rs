//! An error with all its causes in one line: the HTTP client says "error sending request" and hides the certificate
//! that it did not trust one level below.

use std::error::Error;

/// The error's message, then each cause that the text does not contain already.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("failed to climb: {0}")]
    struct Outer(#[source] Middle);

    #[derive(Debug, thiserror::Error)]
    #[error("no rope")]
    struct Middle(#[source] std::fmt::Error);

    #[test]
    fn causes_follow_once_each() {
        let text = with_causes(&Outer(Middle(std::fmt::Error)));
        assert_eq!(text, format!("failed to climb: no rope: {}", std::fmt::Error));
    }
}
