//! The objects of a backup, streamed from an API server of a few lines into a repository in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use shoot_backup_api::BackupSpec;
use shoot_backup_repository::{Id, MemoryStore, Repository, SnapshotInfo};

use super::discovery::discover;
use super::objects::ObjectStream;
use super::related::Related;
use super::skips::{Collected, Skips};
use crate::context::{Context, Pod};
use crate::metrics::Metrics;
use crate::operation::Running;

/// Answers by path; what it does not know is not found.
fn api_server(answers: BTreeMap<String, (u16, Value)>) -> Client {
    let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    tokio::spawn(async move {
        while let Some((request, send)) = handle.next_request().await {
            let missing = (404, json!({"kind": "Status", "code": 404, "reason": "NotFound", "message": "no"}));
            let (code, body) = answers.get(request.uri().path()).cloned().unwrap_or(missing);
            let body = Body::from(serde_json::to_vec(&body).unwrap());
            send.send_response(Response::builder().status(code).body(body).unwrap());
        }
    });
    Client::new(service, "default")
}

fn resources(group_version: &str, list: &[(&str, &str, bool)]) -> (u16, Value) {
    let resources: Vec<_> = list
        .iter()
        .map(|(name, kind, namespaced)| {
            json!({"name": name, "singularName": "", "kind": kind, "namespaced": namespaced, "verbs": ["get", "list"]})
        })
        .collect();
    (200, json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": resources}))
}

fn items(items: &[Value]) -> (u16, Value) {
    (200, json!({"metadata": {}, "items": items}))
}

fn denied() -> (u16, Value) {
    (403, json!({"kind": "Status", "code": 403, "reason": "Forbidden", "message": "secrets is forbidden"}))
}

/// A cluster with one namespace of interest, in which not everything can be read.
fn cluster() -> BTreeMap<String, (u16, Value)> {
    let groups: Vec<_> = ["broken.example.org", "example.org", "rbac.authorization.k8s.io", "apiextensions.k8s.io"]
        .iter()
        .map(|name| {
            let version = json!({"groupVersion": format!("{name}/v1"), "version": "v1"});
            json!({"name": name, "versions": [version], "preferredVersion": version})
        })
        .collect();
    let account = |namespace: &str| json!([{"kind": "ServiceAccount", "name": "web", "namespace": namespace}]);
    let binding = |name: &str, namespace: &str, role: &str| json!({"metadata": {"name": name}, "subjects": account(namespace), "roleRef": {"kind": "ClusterRole", "name": role}});
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    [
        (
            "/api/v1",
            resources("v1", &[
                ("configmaps", "ConfigMap", true),
                ("secrets", "Secret", true),
                ("events", "Event", true),
                ("namespaces", "Namespace", false),
                ("nodes", "Node", false),
            ]),
        ),
        ("/apis", (200, json!({"kind": "APIGroupList", "groups": groups}))),
        ("/apis/broken.example.org/v1", (403, denied().1)),
        ("/apis/example.org/v1", resources("example.org/v1", &[("widgets", "Widget", true), ("zones", "Zone", false)])),
        (
            rbac,
            resources("rbac.authorization.k8s.io/v1", &[
                ("clusterroles", "ClusterRole", false),
                ("clusterrolebindings", "ClusterRoleBinding", false),
                ("rolebindings", "RoleBinding", true),
            ]),
        ),
        (
            "/apis/apiextensions.k8s.io/v1",
            resources("apiextensions.k8s.io/v1", &[("customresourcedefinitions", "CustomResourceDefinition", false)]),
        ),
        (
            "/api/v1/namespaces/shop/configmaps",
            items(&[json!({"metadata": {"name": "settings", "managedFields": [{"manager": "kubectl"}]}, "data": {"a": "b"}})]),
        ),
        ("/api/v1/namespaces/shop/secrets", denied()),
        ("/api/v1/namespaces/shop", (200, json!({"metadata": {"name": "shop"}}))),
        ("/apis/example.org/v1/namespaces/shop/widgets", items(&[json!({"metadata": {"name": "w"}})])),
        (&format!("{rbac}/namespaces/shop/rolebindings"), items(&[binding("read", "shop", "reader")])),
        (
            &format!("{rbac}/clusterrolebindings"),
            items(&[binding("ours", "shop", "writer"), binding("theirs", "other", "spy")]),
        ),
        (&format!("{rbac}/clusterroles/reader"), (200, json!({"metadata": {"name": "reader"}}))),
        (&format!("{rbac}/clusterroles/writer"), (200, json!({"metadata": {"name": "writer"}}))),
        (&format!("{definitions}/widgets.example.org"), (200, json!({"metadata": {"name": "widgets.example.org"}}))),
    ]
    .into_iter()
    .map(|(path, answer)| (path.to_owned(), answer))
    .collect()
}

/// Backs the objects up; gives back what the snapshot has by path, and what was skipped.
async fn backed_up(spec: Value) -> (BTreeMap<String, Value>, Collected) {
    let client = api_server(cluster());
    let context = Context::new(client.clone(), PathBuf::new(), Pod::default(), Arc::new(Metrics::new()));
    let running = Running::test();
    let skips = Skips::new(&running);
    let spec: BackupSpec = serde_json::from_value(spec).unwrap();
    let namespaces = BTreeSet::from(["shop".to_owned()]);
    let repository = Repository::open_or_init(Arc::new(MemoryStore::new()), "password").await.unwrap();
    let discovered = discover(&client).await.unwrap();
    for (group, reason) in discovered.unanswered {
        skips.add(format!("API group {group}"), reason);
    }
    let mut stream = ObjectStream {
        context: &context,
        running: &running,
        spec: &spec,
        namespaces: &namespaces,
        skips: &skips,
        writer: repository.writer().await.unwrap(),
        related: Related::new(&namespaces),
        count: 0,
        open: Vec::new(),
        claims: super::objects::WrittenClaims::new(),
    };
    stream.write(discovered.resources).await.unwrap();
    let ObjectStream { writer, count, .. } = stream;
    let info = SnapshotInfo {
        hostname: "alpha".to_owned(),
        paths: vec!["/objects".to_owned()],
        tags: Vec::new(),
        time: jiff::Timestamp::UNIX_EPOCH,
    };
    let snapshot = writer.finish(info).await.unwrap().snapshot;
    let found = read_back(&repository, &snapshot).await;
    assert_eq!(found.len() as u64, count);
    assert_eq!(running.snapshot().progress.objects as u64, count);
    (found, skips.collected())
}

async fn read_back(repository: &Repository, snapshot: &Id) -> BTreeMap<String, Value> {
    let reader = repository.reader().await.unwrap();
    let mut found = BTreeMap::new();
    let mut folders = vec!["objects".to_owned()];
    while let Some(folder) = folders.pop() {
        for node in reader.entries(snapshot, &folder).await.unwrap() {
            let path = format!("{folder}/{}", node.display_name());
            if node.is_directory() {
                folders.push(path);
            } else {
                let bytes = reader.read_file(&node, 1 << 20).await.unwrap();
                found.insert(path, serde_json::from_slice(&bytes).unwrap());
            }
        }
    }
    found
}

#[tokio::test]
async fn objects_and_what_they_need_of_the_cluster_are_kept_and_the_rest_is_counted() {
    let (found, skipped) = backed_up(json!({"cluster": "alpha", "location": "main", "namespaces": ["shop"]})).await;
    let paths: Vec<_> = found.keys().map(String::as_str).collect();
    assert_eq!(
        paths,
        [
            "objects/apiextensions.k8s.io/v1/customresourcedefinitions/cluster/widgets.example.org.json",
            "objects/core/v1/configmaps/namespaces/shop/settings.json",
            "objects/core/v1/namespaces/cluster/shop.json",
            "objects/example.org/v1/widgets/namespaces/shop/w.json",
            "objects/rbac.authorization.k8s.io/v1/clusterrolebindings/cluster/ours.json",
            "objects/rbac.authorization.k8s.io/v1/clusterroles/cluster/reader.json",
            "objects/rbac.authorization.k8s.io/v1/clusterroles/cluster/writer.json",
            "objects/rbac.authorization.k8s.io/v1/rolebindings/namespaces/shop/read.json",
        ]
    );
    let settings = &found["objects/core/v1/configmaps/namespaces/shop/settings.json"];
    let expected =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "b"}});
    assert_eq!(*settings, expected);
    let items: Vec<_> = skipped.entries.iter().map(|entry| entry.item.as_str()).collect();
    assert_eq!(items, ["API group broken.example.org/v1", "secrets/shop"]);
    assert!(skipped.entries[1].reason.contains("secrets is forbidden"), "{skipped:?}");
}

#[tokio::test]
async fn only_what_the_spec_names_is_kept_with_its_namespace() {
    let spec = json!({"cluster": "alpha", "location": "main", "namespaces": ["shop"],
        "includedResources": ["configmaps"]});
    let (found, _) = backed_up(spec).await;
    assert!(found.contains_key("objects/core/v1/configmaps/namespaces/shop/settings.json"));
    assert!(found.contains_key("objects/core/v1/namespaces/cluster/shop.json"));
    assert!(!found.keys().any(|path| path.contains("widgets") || path.contains("rolebindings/namespaces")));
}

#[tokio::test]
async fn what_the_spec_excludes_is_neither_read_nor_counted() {
    let spec = json!({"cluster": "alpha", "location": "main", "namespaces": ["shop"],
        "excludedResources": ["secrets", "clusterrolebindings.rbac.authorization.k8s.io"]});
    let (found, skipped) = backed_up(spec).await;
    assert!(!found.keys().any(|path| path.contains("clusterrolebindings")));
    let items: Vec<_> = skipped.entries.iter().map(|entry| entry.item.as_str()).collect();
    assert_eq!(items, ["API group broken.example.org/v1"]);
}
