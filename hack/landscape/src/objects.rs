//! Objects written as JSON: created when missing, left alone when there.

use kube::api::{ApiResource, DynamicObject, GroupVersionKind, PostParams};
use kube::{Api, Client};
use serde_json::Value;

use crate::error::{Doing, Error, Result};

/// The object's kind, as the API finds it.
fn resource(object: &Value) -> Result<ApiResource> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let (Some(version), Some(kind)) = (text("/apiVersion"), text("/kind")) else {
        return Err(Error::Precondition("failed to read an object: apiVersion or kind is missing".to_owned()));
    };
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    Ok(ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind)))
}

/// Kind, namespace and name, for messages.
fn title(object: &Value) -> String {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    format!("{} {}/{}", text("/kind"), text("/metadata/namespace"), text("/metadata/name"))
}

/// An interface to the objects of this one's kind and namespace.
pub(crate) fn api(client: &Client, object: &Value) -> Result<Api<DynamicObject>> {
    let resource = resource(object)?;
    Ok(match object.pointer("/metadata/namespace").and_then(Value::as_str) {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    })
}

/// Creates the object unless one of its name is there.
pub(crate) async fn create(client: &Client, object: &Value) -> Result<()> {
    let new: DynamicObject = serde_json::from_value(object.clone())
        .map_err(|error| Error::Precondition(format!("failed to read {}: {error}", title(object))))?;
    match api(client, object)?.create(&PostParams::default(), &new).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        other => other.map(|_| ()).doing(|| format!("create {}", title(object))),
    }
}

/// Creates each of the objects unless it is there, in this order.
pub(crate) async fn create_all(client: &Client, objects: &[Value]) -> Result<()> {
    for object in objects {
        create(client, object).await?;
    }
    Ok(())
}
