//! Kubernetes quantities, as far as it takes to see that two of them are the same: API servers write `0.5` as `500m`.

/// Whether two texts are the same quantity.
#[must_use]
pub fn equal(left: &str, right: &str) -> bool {
    match (parse(left), parse(right)) {
        (Some(left), Some(right)) => {
            let larger = left.abs().max(right.abs());
            // Decimal fractions are not exact in binary; a real difference is at least one in a billion.
            (left - right).abs() <= larger * 1e-12
        }
        _ => false,
    }
}

fn parse(text: &str) -> Option<f64> {
    let end = text.find(|character: char| !character.is_ascii_digit() && !"+-.".contains(character));
    let (number, suffix) = text.split_at(end.unwrap_or(text.len()));
    let factor = match suffix {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        "Pi" => 1_125_899_906_842_624.0,
        "Ei" => 1_152_921_504_606_846_976.0,
        _ => return None,
    };
    number.parse::<f64>().ok().map(|number| number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_quantity_is_recognised_in_another_spelling() {
        assert!(equal("0.5", "500m"));
        assert!(equal("1024Mi", "1Gi"));
        assert!(equal("1000", "1k"));
        assert!(!equal("100m", "200m"));
        assert!(!equal("1Gi", "1G"));
        assert!(!equal("info", "info"));
    }
}
