//! Whether an object still is as it was delivered: every field that was applied has to be there with its value. Fields
//! that the API server or others add are none of our business.

use serde_json::Value;

use super::quantity;

/// The path of the first field that is missing or differs; `None` if all is as delivered.
#[must_use]
pub fn difference(wanted: &Value, live: &Value) -> Option<String> {
    let mut path = String::new();
    differs(wanted, live, &mut path).then_some(path)
}

fn differs(wanted: &Value, live: &Value, path: &mut String) -> bool {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => {
            for (key, value) in wanted {
                // Written by the server, or by nobody.
                if path.is_empty() && key == "status" {
                    continue;
                }
                let length = path.len();
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key);
                let differs = match live.get(key) {
                    Some(live) => differs(value, live, path),
                    None => !is_empty(value),
                };
                if differs {
                    return true;
                }
                path.truncate(length);
            }
            false
        }
        (Value::Array(wanted), Value::Array(live)) => {
            if wanted.len() != live.len() {
                return true;
            }
            for (index, (wanted, live)) in wanted.iter().zip(live).enumerate() {
                let length = path.len();
                path.push('[');
                path.push_str(&index.to_string());
                path.push(']');
                if differs(wanted, live, path) {
                    return true;
                }
                path.truncate(length);
            }
            false
        }
        (Value::Number(wanted), Value::Number(live)) => wanted.as_f64() != live.as_f64(),
        // Whole numbers may be quantities too: `cpu: 1` is stored as "1".
        (Value::Number(wanted), Value::String(live)) => !quantity::equal(&wanted.to_string(), live),
        (Value::String(wanted), Value::String(live)) => wanted != live && !quantity::equal(wanted, live),
        (wanted, live) => wanted != live && !(is_empty(wanted) && is_empty(live)),
    }
}

/// What API servers leave out when they write an object.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_the_server_adds_is_no_drift() {
        let wanted = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "env": [{"name": "E", "value": ""}]}]}});
        let live = json!({
            "metadata": {"name": "a", "uid": "1", "generation": 2},
            "spec": {"containers": [{"name": "c", "env": [{"name": "E"}], "terminationMessagePath": "/x"}], "dns": "y"},
            "status": {"ready": 1},
        });
        assert_eq!(difference(&wanted, &live), None);
    }

    #[test]
    fn a_changed_or_missing_field_is_named() {
        let wanted = json!({"spec": {"replicas": 1, "template": {"containers": [{"image": "a:1"}]}}});
        let changed = json!({"spec": {"replicas": 1, "template": {"containers": [{"image": "evil:1"}]}}});
        assert_eq!(difference(&wanted, &changed).as_deref(), Some("spec.template.containers[0].image"));
        assert_eq!(difference(&wanted, &json!({"spec": {"replicas": 0}})).as_deref(), Some("spec.replicas"));
        assert_eq!(difference(&wanted, &json!({})).as_deref(), Some("spec"));
    }

    #[test]
    fn a_container_that_somebody_added_is_drift() {
        let wanted = json!({"containers": [{"name": "a"}]});
        let live = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        assert_eq!(difference(&wanted, &live).as_deref(), Some("containers"));
    }

    #[test]
    fn another_spelling_of_the_same_value_is_no_drift() {
        let wanted = json!({"cpu": 1, "memory": "1024Mi", "minimum": 0.0, "status": {"x": 1}});
        let live = json!({"cpu": "1", "memory": "1Gi", "minimum": 0});
        assert_eq!(difference(&wanted, &live), None);
    }

    #[test]
    fn an_empty_value_may_be_left_out_and_may_not_be_filled() {
        assert_eq!(difference(&json!({"volume": {"emptyDir": {}}}), &json!({"volume": {}})), None);
        assert_eq!(difference(&json!({"ca.crt": ""}), &json!({"ca.crt": "x"})).as_deref(), Some("ca.crt"));
    }
}
