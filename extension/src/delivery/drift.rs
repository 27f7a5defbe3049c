//! Whether an object still is as it was delivered: every field that was applied has to be there with its value. Fields
//! that the API server or others add are none of our business.

use serde_json::Value;

use super::quantity;

/// The paths of the fields that are missing or differ; none if all is as delivered.
#[must_use]
pub fn differences(wanted: &Value, live: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare(wanted, live, &mut String::new(), &mut found);
    found
}

fn compare(wanted: &Value, live: &Value, path: &mut String, found: &mut Vec<String>) {
    let differs = match (wanted, live) {
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
                match live.get(key) {
                    Some(live) => compare(value, live, path, found),
                    None if is_empty(value) => {}
                    None => found.push(path.clone()),
                }
                path.truncate(length);
            }
            false
        }
        (Value::Array(wanted), Value::Array(live)) if wanted.len() == live.len() => {
            for (index, (wanted, live)) in wanted.iter().zip(live).enumerate() {
                let length = path.len();
                path.push('[');
                path.push_str(&index.to_string());
                path.push(']');
                compare(wanted, live, path, found);
                path.truncate(length);
            }
            false
        }
        (Value::Array(_), Value::Array(_)) => true,
        (Value::Number(wanted), Value::Number(live)) => wanted.as_f64() != live.as_f64(),
        // Whole numbers may be quantities too: `cpu: 1` is stored as "1".
        (Value::Number(wanted), Value::String(live)) => !quantity::equal(&wanted.to_string(), live),
        (Value::String(wanted), Value::String(live)) => wanted != live && !quantity::equal(wanted, live),
        (wanted, live) => wanted != live && !(is_empty(wanted) && is_empty(live)),
    };
    if differs {
        found.push(path.clone());
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

    fn difference(wanted: &Value, live: &Value) -> Option<String> {
        differences(wanted, live).into_iter().next()
    }

    #[test]
    fn one_difference_does_not_hide_another() {
        let wanted = json!({"spec": {"a": 1, "b": [{"c": "x"}, {"c": "y"}]}});
        let live = json!({"spec": {"a": 2, "b": [{"c": "x"}, {"c": "z"}]}});
        assert_eq!(differences(&wanted, &live), ["spec.a", "spec.b[1].c"]);
    }

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
