//! Label selectors in Kubernetes' grammar, decided without an API server.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Why a selector cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidSelector {
    /// The operator is not one of Kubernetes' four.
    #[error("operator {operator:?} of key {key:?} is unknown: use In, NotIn, Exists or DoesNotExist")]
    Operator {
        /// The requirement's key.
        key: String,
        /// The operator that was given.
        operator: String,
    },
    /// `In` and `NotIn` need values, `Exists` and `DoesNotExist` must have none.
    #[error("operator {operator} of key {key:?} {expectation}")]
    Values {
        /// The requirement's key.
        key: String,
        /// The operator that was given.
        operator: String,
        /// What the operator needs.
        expectation: &'static str,
    },
}

/// Whether labels match. An empty selector matches everything, as in Kubernetes.
pub fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> Result<bool, InvalidSelector> {
    let wanted = selector.match_labels.iter().flatten();
    let mut all = wanted.into_iter().all(|(key, value)| labels.get(key) == Some(value));
    // Every expression is checked, also after the first that does not match: an invalid one must never go unnoticed.
    for expression in selector.match_expressions.iter().flatten() {
        let values = expression.values.as_deref().unwrap_or_default();
        let invalid = |expectation| InvalidSelector::Values {
            key: expression.key.clone(),
            operator: expression.operator.clone(),
            expectation,
        };
        let label = labels.get(&expression.key);
        let holds = match expression.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => return Err(invalid("needs at least one value")),
            "Exists" | "DoesNotExist" if !values.is_empty() => return Err(invalid("takes no values")),
            "In" => label.is_some_and(|label| values.contains(label)),
            "NotIn" => label.is_none_or(|label| !values.contains(label)),
            "Exists" => label.is_some(),
            "DoesNotExist" => label.is_none(),
            _ => {
                return Err(InvalidSelector::Operator {
                    key: expression.key.clone(),
                    operator: expression.operator.clone(),
                });
            }
        };
        all &= holds;
    }
    Ok(all)
}

/// Writes a selector as `kubectl` takes it after `-l`: `env=prod,tier in (a,b),!legacy`.
#[must_use]
pub fn format(selector: &LabelSelector) -> String {
    let labels = selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}={value}"));
    let expressions = selector.match_expressions.iter().flatten().map(|expression| {
        let values = expression.values.as_deref().unwrap_or_default().join(",");
        match expression.operator.as_str() {
            "In" => format!("{} in ({values})", expression.key),
            "NotIn" => format!("{} notin ({values})", expression.key),
            "DoesNotExist" => format!("!{}", expression.key),
            _ => expression.key.clone(),
        }
    });
    labels.chain(expressions).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn expression(key: &str, operator: &str, values: &[&str]) -> LabelSelector {
        let values = values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
        LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: key.to_owned(),
                operator: operator.to_owned(),
                values: (!values.is_empty()).then_some(values),
            }]),
            ..LabelSelector::default()
        }
    }

    #[test]
    fn an_empty_selector_matches_everything() {
        assert_eq!(matches(&LabelSelector::default(), &labels(&[("a", "b")])), Ok(true));
    }

    #[test]
    fn every_operator_follows_kubernetes() {
        let prod = labels(&[("env", "prod")]);
        let cases = [
            (expression("env", "In", &["prod", "dev"]), true),
            (expression("env", "In", &["dev"]), false),
            (expression("env", "NotIn", &["dev"]), true),
            (expression("env", "NotIn", &["prod"]), false),
            (expression("tier", "NotIn", &["a"]), true),
            (expression("env", "Exists", &[]), true),
            (expression("tier", "Exists", &[]), false),
            (expression("env", "DoesNotExist", &[]), false),
            (expression("tier", "DoesNotExist", &[]), true),
        ];
        for (selector, expected) in cases {
            assert_eq!(matches(&selector, &prod), Ok(expected), "{}", format(&selector));
        }
    }

    #[test]
    fn an_invalid_expression_is_an_error_also_when_nothing_would_match() {
        assert!(matches(&expression("env", "Equals", &["x"]), &labels(&[])).is_err());
        assert!(matches(&expression("env", "In", &[]), &labels(&[])).is_err());
        assert!(matches(&expression("env", "Exists", &["x"]), &labels(&[])).is_err());
    }

    #[test]
    fn a_selector_is_written_as_kubectl_takes_it() {
        let mut selector = expression("tier", "In", &["a", "b"]);
        selector.match_labels = Some(labels(&[("env", "prod")]));
        assert_eq!(format(&selector), "env=prod,tier in (a,b)");
    }
}
