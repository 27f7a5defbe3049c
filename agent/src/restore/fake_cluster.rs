//! A small API server for tests: it keeps objects by path, refuses what it is told to, and remembers what was asked. Of
//! Kubernetes' controllers it plays those that a restore waits for: claims are bound, a mover's Job ends with a report.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// When everything is made.
const CREATED: &str = "2026-01-01T00:00:00Z";

/// A small API server. All clones are the same.
#[derive(Clone, Default)]
pub struct FakeCluster {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    requests: Vec<(Method, String)>,
    refusals: Vec<Refused>,
    report: Value,
    version: u64,
    volumes_since: Option<String>,
}

struct Refused {
    path: String,
    times: usize,
    code: u16,
    reason: String,
    message: String,
}

impl FakeCluster {
    /// Starts it, with a client.
    pub fn start() -> (Self, Client) {
        let cluster = Self::default();
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let server = cluster.clone();
        tokio::spawn(async move {
            while let Some((request, answer)) = handle.next_request().await {
                answer.send_response(server.answer(request).await);
            }
        });
        (cluster, Client::new(service, "default"))
    }

    /// Puts an object at a path (`/api/v1/namespaces/shop`).
    pub fn put(&self, path: &str, object: Value) {
        self.state.lock().unwrap().objects.insert(path.to_owned(), object);
    }

    /// The object at a path.
    pub fn get(&self, path: &str) -> Option<Value> {
        self.state.lock().unwrap().objects.get(path).cloned()
    }

    /// Removes the object at a path.
    pub fn remove(&self, path: &str) {
        self.state.lock().unwrap().objects.remove(path);
    }

    /// Refuses the next creations below a path.
    pub fn refuse(&self, path: &str, times: usize, code: u16, reason: &str, message: &str) {
        self.state.lock().unwrap().refusals.push(Refused {
            path: path.to_owned(),
            times,
            code,
            reason: reason.to_owned(),
            message: message.to_owned(),
        });
    }

    /// Claims get volumes that were made then, and not when they ask.
    pub fn volumes_were_made(&self, since: &str) {
        self.state.lock().unwrap().volumes_since = Some(since.to_owned());
    }

    /// What movers report from now on.
    pub fn movers_report(&self, report: Value) {
        self.state.lock().unwrap().report = report;
    }

    /// Paths of the objects that were asked for with a method, in order.
    pub fn requests(&self, method: &Method) -> Vec<String> {
        let state = self.state.lock().unwrap();
        state.requests.iter().filter(|(asked, _)| asked == method).map(|(_, path)| path.clone()).collect()
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let path = parts.uri.path().to_owned();
        let applies = parts.headers.get("content-type").is_some_and(|kind| kind.to_str().unwrap().contains("apply"));
        let mut state = self.state.lock().unwrap();
        let (code, answer) = match parts.method {
            Method::POST => {
                let name = body["metadata"]["name"].as_str().unwrap_or_default();
                let path = format!("{path}/{name}");
                state.requests.push((Method::POST, path.clone()));
                state.create(&path, body)
            }
            Method::PATCH => {
                state.requests.push((Method::PATCH, path.clone()));
                state.patch(&path, &body, applies)
            }
            Method::PUT => {
                state.requests.push((Method::PUT, path.clone()));
                state.store(&path, body)
            }
            method => {
                state.requests.push((method.clone(), path.clone()));
                state.read(&method, &path)
            }
        };
        Response::builder().status(code).body(Body::from(serde_json::to_vec(&answer).unwrap())).unwrap()
    }
}

impl State {
    fn create(&mut self, path: &str, mut object: Value) -> (u16, Value) {
        if let Some(refused) = self.refusals.iter_mut().find(|one| one.times > 0 && path.starts_with(&one.path)) {
            refused.times -= 1;
            return failure(refused.code, &refused.reason, &refused.message);
        }
        if self.objects.contains_key(path) {
            return failure(409, "AlreadyExists", "it already exists");
        }
        let namespace = path.split_once("/namespaces/").and_then(|(_, rest)| rest.split_once('/'));
        if let Some((namespace, _)) = namespace
            && !self.objects.contains_key(&format!("/api/v1/namespaces/{namespace}"))
        {
            return failure(404, "NotFound", "the namespace was not found");
        }
        object["metadata"]["creationTimestamp"] = json!(CREATED);
        let (_, stored) = self.store(path, object);
        self.react(path, &stored);
        (201, stored)
    }

    /// What the controllers do.
    fn react(&mut self, path: &str, created: &Value) {
        let name = created["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let mut object = created.clone();
        if path.contains("/persistentvolumeclaims/") {
            if object["spec"]["volumeName"].is_null() {
                let volume = format!("pv-{name}");
                let since = self.volumes_since.clone().unwrap_or_else(|| CREATED.to_owned());
                object["spec"]["volumeName"] = json!(volume);
                let volume_path = format!("/api/v1/persistentvolumes/{volume}");
                let made = json!({
                    "apiVersion": "v1", "kind": "PersistentVolume",
                    "metadata": {"name": volume, "creationTimestamp": since,
                                 "annotations": {"pv.kubernetes.io/provisioned-by": "fake"}},
                    "spec": {"persistentVolumeReclaimPolicy": "Delete", "claimRef": {"name": name, "uid": "temporary"}},
                });
                self.store(&volume_path, made);
            }
            object["status"] = json!({"phase": "Bound"});
            self.store(path, object);
        } else if path.contains("/jobs/") {
            object["status"] = json!({"conditions": [{"type": "Complete", "status": "True"}]});
            self.store(path, object);
            let terminated = json!({"exitCode": 0, "message": self.report.to_string()});
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
                "status": {"phase": "Succeeded", "containerStatuses": [{
                    "name": "mover", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"terminated": terminated},
                }]},
            });
            let pods = path.replace("/apis/batch/v1/", "/api/v1/").replace("/jobs/", "/pods/");
            self.store(&pods, pod);
        }
    }

    fn store(&mut self, path: &str, mut object: Value) -> (u16, Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path.to_owned(), object.clone());
        (200, object)
    }

    fn patch(&mut self, path: &str, change: &Value, creates: bool) -> (u16, Value) {
        let Some(mut object) = self.objects.get(path).cloned().or_else(|| creates.then(|| json!({}))) else {
            return failure(404, "NotFound", "there is none to patch");
        };
        merge(&mut object, change);
        self.store(path, object)
    }

    fn read(&mut self, method: &Method, path: &str) -> (u16, Value) {
        match (self.objects.get(path).cloned(), method) {
            (Some(object), &Method::DELETE) => {
                self.objects.remove(path);
                (200, object)
            }
            (Some(object), _) => (200, object),
            (None, _) if path.ends_with("classes") || path.ends_with("/pods") => {
                let below = format!("{path}/");
                let items: Vec<_> =
                    self.objects.iter().filter(|(path, _)| path.starts_with(&below)).map(|(_, item)| item).collect();
                (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}))
            }
            (None, _) => failure(404, "NotFound", "it was not found"),
        }
    }
}

/// A merge patch (RFC 7386).
fn merge(target: &mut Value, change: &Value) {
    let Some(fields) = change.as_object() else {
        *target = change.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in fields {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key.as_str()], value);
        }
    }
}

fn failure(code: u16, reason: &str, message: &str) -> (u16, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "code": code, "reason": reason, "message": message,
    });
    (code, status)
}
