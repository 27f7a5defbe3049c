//! A whole restore against a small API server: order, conflicts, further tries, volumes.

use std::path::PathBuf;
use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};
use shoot_backup_api::RestoreSpec;
use shoot_backup_api::backup::VolumePolicy;
use shoot_backup_api::manifest::{BackupManifest, ReportAction, RestoreReport, VolumeEntry};
use shoot_backup_repository::{MemoryStore, Repository, SnapshotInfo};

use super::fake_cluster::FakeCluster;
use super::*;
use crate::context::Pod;
use crate::metrics::Metrics;
use crate::mover::protocol::Target;
use crate::operation::running::Start;

/// Objects of a backup: path below `objects/`, and the object.
type Objects = Vec<(&'static str, Value)>;

fn object(kind: &str, name: &str, fields: &Value) -> Value {
    let mut object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "shop"}});
    object.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    object
}

fn owned(kind: &str, name: &str, api_version: &str, owner: &str, owner_name: &str) -> Value {
    let reference = json!({"apiVersion": api_version, "kind": owner, "name": owner_name, "controller": true});
    let metadata = json!({"name": name, "namespace": "shop", "ownerReferences": [reference]});
    object(kind, name, &json!({"metadata": metadata}))
}

fn shop() -> Objects {
    vec![
        ("apiextensions.k8s.io/v1/customresourcedefinitions/cluster/widgets.example.org", {
            let names = json!({"kind": "Widget", "plural": "widgets"});
            let spec = json!({"group": "example.org", "scope": "Namespaced", "versions": [], "names": names});
            json!({
                "kind": "CustomResourceDefinition", "metadata": {"name": "widgets.example.org"}, "spec": spec,
                "status": {"conditions": [{"type": "Established", "status": "True"}]},
            })
        }),
        ("apps/v1/deployments/namespaces/shop/web", object("Deployment", "web", &json!({"spec": {"replicas": 2}}))),
        ("apps/v1/replicasets/namespaces/shop/web-1", owned("ReplicaSet", "web-1", "apps/v1", "Deployment", "web")),
        ("apps/v1/replicasets/namespaces/shop/orphan", owned("ReplicaSet", "orphan", "apps/v1", "Deployment", "gone")),
        (
            "apps/v1/statefulsets/namespaces/shop/db",
            object(
                "StatefulSet",
                "db",
                &json!({
                    "spec": {"volumeClaimTemplates": [{"metadata": {"name": "data"}}]},
                }),
            ),
        ),
        ("core/v1/configmaps/namespaces/shop/settings", object("ConfigMap", "settings", &json!({"data": {"a": "b"}}))),
        (
            "core/v1/namespaces/cluster/shop",
            json!({
                "kind": "Namespace", "metadata": {"name": "shop", "labels": {"team": "a"}},
            }),
        ),
        (
            "core/v1/persistentvolumeclaims/namespaces/shop/data-db-0",
            object(
                "PersistentVolumeClaim",
                "data-db-0",
                &json!({
                    "spec": {
                        "accessModes": ["ReadWriteOnce"], "storageClassName": "fast", "volumeName": "old",
                        "resources": {"requests": {"storage": "1Gi"}},
                    },
                }),
            ),
        ),
        ("core/v1/pods/namespaces/shop/web-1-x", owned("Pod", "web-1-x", "apps/v1", "ReplicaSet", "web-1")),
        ("core/v1/serviceaccounts/namespaces/shop/default", object("ServiceAccount", "default", &json!({}))),
        ("core/v1/services/namespaces/shop/web", object("Service", "web", &json!({"spec": {"clusterIP": "10.0.0.1"}}))),
        ("example.org/v1/widgets/namespaces/shop/one", object("Widget", "one", &json!({"spec": {"size": 1}}))),
    ]
}

async fn repository(objects: &Objects) -> (Repository, Id) {
    let repository = Repository::open_or_init(Arc::new(MemoryStore::new()), "password").await.unwrap();
    let mut writer = repository.writer().await.unwrap();
    let mut open: Vec<&str> = Vec::new();
    for (path, object) in objects {
        let (folder, name) = path.rsplit_once('/').unwrap();
        let folder: Vec<_> = std::iter::once("objects").chain(folder.split('/')).collect();
        let shared = open.iter().zip(&folder).take_while(|(open, wanted)| open == wanted).count();
        for _ in shared..open.len() {
            writer.end_directory().await.unwrap();
        }
        for name in &folder[shared..] {
            writer.begin_directory(name).await.unwrap();
        }
        open = folder;
        writer.add_bytes(format!("{name}.json"), object.to_string().into()).await.unwrap();
    }
    for _ in &open {
        writer.end_directory().await.unwrap();
    }
    let info = SnapshotInfo {
        hostname: "alpha".to_owned(),
        paths: vec!["/objects".to_owned()],
        tags: Vec::new(),
        time: Timestamp::UNIX_EPOCH,
    };
    let snapshot = writer.finish(info).await.unwrap().snapshot;
    (repository, snapshot)
}

fn backup_manifest() -> BackupManifest {
    let volume = VolumeEntry {
        namespace: "shop".to_owned(),
        claim: "data-db-0".to_owned(),
        snapshot: "s".to_owned(),
        storage_class: Some("fast".to_owned()),
        capacity: Some("2Gi".to_owned()),
        files: 3,
        bytes: 4096,
    };
    serde_json::from_value(json!({
        "formatVersion": 1, "name": "nightly", "uid": "u", "cluster": "alpha", "clusterUid": "c",
        "kubernetesVersion": "", "agentVersion": "", "spec": {"cluster": "alpha", "location": "main"},
        "phase": "Completed", "started": "2026-01-01T00:00:00Z", "completed": "2026-01-01T00:00:00Z",
        "namespaces": ["shop"], "objects": {"snapshot": "s", "count": 1, "bytes": 1}, "volumes": [volume],
        "skipped": [], "skippedTotal": 0,
    }))
    .unwrap()
}

/// A cluster with its agent, in which a backup is restored.
struct Scene {
    cluster: FakeCluster,
    context: Context,
    manifest: BackupManifest,
}

impl Scene {
    fn new() -> Self {
        let (cluster, client) = FakeCluster::start();
        let class = json!({"metadata": {"name": "fast"}, "provisioner": "fake"});
        cluster.put("/apis/storage.k8s.io/v1/storageclasses/fast", class);
        cluster.put("/api/v1/namespaces/shoot-backup", json!({"metadata": {"name": "shoot-backup"}}));
        cluster.movers_report(json!({"restore": {
            "files": 3, "bytes": 4096, "verifiedFiles": 3, "verifiedBytes": 4096, "failed": 0, "firstFailed": [],
        }}));
        let pod = Pod { namespace: "shoot-backup".to_owned(), image: "agent:1".to_owned(), ..Pod::default() };
        let context = Context::new(client, PathBuf::from("config.yaml"), pod, Arc::new(Metrics::new()));
        Self { cluster, context, manifest: backup_manifest() }
    }

    /// Restores the shop, and tells what happened.
    async fn restore(&self, spec: Value) -> Result<(RestoreReport, RestoreResult, Running), Failure> {
        let mut whole = json!({"cluster": "beta", "backup": "nightly"});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let spec: RestoreSpec = serde_json::from_value(whole).unwrap();
        let (repository, snapshot) = repository(&shop()).await;
        let reader = repository.reader().await.unwrap();
        let folders = plan::folders(&reader, &snapshot).await.unwrap();
        let running = Running::new(Start {
            kind: "Restore",
            name: "again".to_owned(),
            uid: "uid".to_owned(),
            origin_uid: "restore-1".to_owned(),
            attempt: 1,
            started: Timestamp::UNIX_EPOCH,
            deadline: tokio::time::Instant::now() + std::time::Duration::from_hours(1),
            timeout: "1h".to_owned(),
            cancel: tokio_util::sync::CancellationToken::new(),
        });
        let work = Work {
            plan: plan::plan(&spec, &self.manifest, folders, "restore-1").unwrap(),
            policy: spec.conflict_policy,
            reader,
            applier: Applier { client: self.context.client.clone(), restore_uid: "restore-1".to_owned() },
            collector: Collector::default(),
            running: &running,
            owners: Owners::default(),
            definitions: definitions::Definitions::default(),
            missing_claims: MissingClaims::default(),
            volumes: Volumes {
                context: &self.context,
                target: Target::default(),
                cluster_uid: "c".to_owned(),
                classes: OnceCell::new(),
                used: Mutex::default(),
            },
        };
        let made = namespaces::ensure(&work).await?;
        work.objects(&made).await?;
        let report = work.collector.report(&running, "m", Timestamp::UNIX_EPOCH);
        let counts = work.collector.counts();
        drop(work);
        Ok((report, counts, running))
    }
}

fn action(report: &RestoreReport, item: &str) -> ReportAction {
    report.items.iter().find(|one| one.item == item).unwrap_or_else(|| panic!("{item} in {:?}", report.items)).action
}

fn reason<'a>(report: &'a RestoreReport, item: &str) -> &'a str {
    &report.items.iter().find(|one| one.item == item).unwrap().reason
}

#[tokio::test(start_paused = true)]
async fn everything_comes_back_in_order_and_what_controllers_make_is_left_to_them() {
    let scene = Scene::new();
    let (report, counts, running) = scene.restore(json!({})).await.unwrap();
    assert_eq!((counts.failed, counts.changed), (0, 0), "{:?}", report.items);
    let made = scene.cluster.requests(&Method::POST);
    let at =
        |end: &str| made.iter().position(|path| path.ends_with(end)).unwrap_or_else(|| panic!("{end} in {made:?}"));
    let order = [
        at("/namespaces/shop"),
        at("/widgets.example.org"),
        at("/configmaps/settings"),
        at("shop/persistentvolumeclaims/data-db-0"),
        at("/widgets/one"),
        at("/services/web"),
        at("/deployments/web"),
    ];
    assert!(order.is_sorted(), "{made:?}");
    assert_eq!(action(&report, "replicasets.apps/shop/web-1"), ReportAction::Skipped);
    assert_eq!(reason(&report, "replicasets.apps/shop/web-1"), "made by Deployment web");
    assert_eq!(action(&report, "pods/shop/web-1-x"), ReportAction::Skipped);
    // Its Deployment is not in the backup: nobody else would make it.
    assert_eq!(action(&report, "replicasets.apps/shop/orphan"), ReportAction::Created);
    assert_eq!(reason(&report, "serviceaccounts/shop/default"), "the cluster makes its own");
    assert_eq!(report.items_total, running.snapshot().progress.objects as u64);
    let namespace = scene.cluster.get("/api/v1/namespaces/shop").unwrap();
    assert_eq!(namespace["metadata"]["labels"], json!({"team": "a"}));
}

#[tokio::test(start_paused = true)]
async fn a_volume_is_filled_out_of_sight_and_handed_over_when_it_is_verified() {
    let scene = Scene::new();
    let (report, counts, running) = scene.restore(json!({"namespaceMapping": {"shop": "copy"}})).await.unwrap();
    assert_eq!(action(&report, "persistentvolumeclaims/copy/data-db-0"), ReportAction::Created);
    assert_eq!((counts.volumes, counts.volumes_verified, counts.bytes), (1, 1, 4096));
    let claim = scene.cluster.get("/api/v1/namespaces/copy/persistentvolumeclaims/data-db-0").unwrap();
    assert_eq!(claim["spec"]["resources"]["requests"]["storage"], "2Gi");
    let name = claim["spec"]["volumeName"].as_str().unwrap();
    let volume = scene.cluster.get(&format!("/api/v1/persistentvolumes/{name}")).unwrap();
    assert_eq!(volume["spec"]["claimRef"]["namespace"], "copy");
    assert_eq!(volume["spec"]["claimRef"]["name"], "data-db-0");
    assert_eq!(volume["spec"]["claimRef"].get("uid"), None);
    assert_eq!(volume["spec"]["persistentVolumeReclaimPolicy"], "Delete");
    let progress = running.snapshot().progress;
    assert_eq!((progress.volumes_done, progress.bytes), (1, 4096));
    // Nothing of it is left in the agent's namespace.
    let removed = scene.cluster.requests(&Method::DELETE);
    assert!(removed.iter().any(|path| path.contains("shoot-backup/jobs/")), "{removed:?}");
    assert!(removed.iter().any(|path| path.contains("shoot-backup/persistentvolumeclaims/")), "{removed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_not_created_without_its_data() {
    let scene = Scene::new();
    scene.cluster.movers_report(json!({"restore": {
        "files": 3, "bytes": 4095, "verifiedFiles": 3, "verifiedBytes": 4095, "failed": 0, "firstFailed": [],
    }}));
    let (report, counts, running) = scene.restore(json!({})).await.unwrap();
    assert_eq!(action(&report, "persistentvolumeclaims/shop/data-db-0"), ReportAction::Failed);
    let told = reason(&report, "persistentvolumeclaims/shop/data-db-0");
    assert!(told.contains("4095 bytes instead of 4096"), "{told}");
    // Its StatefulSet would make an empty one.
    assert_eq!(action(&report, "statefulsets.apps/shop/db"), ReportAction::Failed);
    assert_eq!(scene.cluster.get("/apis/apps/v1/namespaces/shop/statefulsets/db"), None);
    assert_eq!((counts.failed, counts.volumes, counts.volumes_verified), (2, 1, 0));
    assert_eq!(report.phase, shoot_backup_api::OperationPhase::PartiallyFailed);
    assert_eq!(running.snapshot().errors.len(), 2);
    assert_eq!(scene.cluster.get("/api/v1/namespaces/shop/persistentvolumeclaims/data-db-0"), None);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_there_keeps_its_data_under_every_policy() {
    for policy in ["Skip", "Overwrite"] {
        let scene = Scene::new();
        scene.cluster.put("/api/v1/namespaces/shop", json!({"metadata": {"name": "shop"}}));
        let claim = json!({"metadata": {"name": "data-db-0"}, "spec": {"volumeName": "precious"}});
        scene.cluster.put("/api/v1/namespaces/shop/persistentvolumeclaims/data-db-0", claim.clone());
        let (report, counts, _) = scene.restore(json!({"conflictPolicy": policy})).await.unwrap();
        assert_eq!(action(&report, "persistentvolumeclaims/shop/data-db-0"), ReportAction::Skipped);
        assert!(reason(&report, "persistentvolumeclaims/shop/data-db-0").contains("delete the claim"));
        assert_eq!(counts.volumes, 0);
        assert_eq!(scene.cluster.get("/api/v1/namespaces/shop/persistentvolumeclaims/data-db-0"), Some(claim));
        let jobs = scene.cluster.requests(&Method::POST).into_iter().filter(|path| path.contains("/jobs/")).count();
        assert_eq!(jobs, 0);
        // Its StatefulSet finds it.
        assert_eq!(action(&report, "statefulsets.apps/shop/db"), ReportAction::Created);
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_data_the_backup_lacks_fails_and_holds_its_stateful_set_back() {
    let mut scene = Scene::new();
    scene.manifest.volumes.clear();
    let (report, counts, _) = scene.restore(json!({})).await.unwrap();
    assert_eq!(action(&report, "persistentvolumeclaims/shop/data-db-0"), ReportAction::Failed);
    let told = reason(&report, "persistentvolumeclaims/shop/data-db-0");
    assert!(told.contains("restore with volumes: Exclude"), "{told}");
    assert_eq!(action(&report, "statefulsets.apps/shop/db"), ReportAction::Failed);
    assert_eq!(counts.failed, 2);
    assert_eq!(scene.cluster.get("/api/v1/namespaces/shop/persistentvolumeclaims/data-db-0"), None);
    // A backup that was not to have data has none to miss.
    let mut scene = Scene::new();
    scene.manifest.volumes.clear();
    scene.manifest.spec.volumes = VolumePolicy::Exclude;
    let (report, counts, _) = scene.restore(json!({})).await.unwrap();
    assert_eq!(action(&report, "persistentvolumeclaims/shop/data-db-0"), ReportAction::Created);
    assert_eq!(counts.failed, 0);
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_was_there_before_is_neither_handed_over_nor_thrown_away() {
    let scene = Scene::new();
    scene.cluster.volumes_were_made("2025-12-31T00:00:00Z");
    let (report, ..) = scene.restore(json!({})).await.unwrap();
    assert_eq!(action(&report, "persistentvolumeclaims/shop/data-db-0"), ReportAction::Failed);
    let told = reason(&report, "persistentvolumeclaims/shop/data-db-0");
    assert!(told.contains("bound to an existing volume pv-"), "{told}");
    let patched = scene.cluster.requests(&Method::PATCH);
    let volume = patched.iter().find(|path| path.contains("/persistentvolumes/")).unwrap();
    let kept = scene.cluster.get(volume).unwrap();
    assert_eq!(kept["spec"]["persistentVolumeReclaimPolicy"], "Retain");
    assert_eq!(kept["metadata"].get("labels"), None, "no sweep finds it");
    let removed = scene.cluster.requests(&Method::DELETE);
    assert!(removed.iter().any(|path| path.contains("shoot-backup/persistentvolumeclaims/")), "{removed:?}");
}

#[tokio::test(start_paused = true)]
async fn data_whose_claim_the_backup_lacks_is_a_failure() {
    let mut scene = Scene::new();
    let lost = VolumeEntry { claim: "data-db-1".to_owned(), ..scene.manifest.volumes[0].clone() };
    scene.manifest.volumes.push(lost);
    let (report, counts, running) = scene.restore(json!({"namespaceMapping": {"shop": "copy"}})).await.unwrap();
    assert_eq!(action(&report, "volume copy/data-db-1"), ReportAction::Failed);
    assert_eq!(action(&report, "persistentvolumeclaims/copy/data-db-0"), ReportAction::Created);
    // It would make an empty one in its place.
    assert_eq!(action(&report, "statefulsets.apps/copy/db"), ReportAction::Failed);
    assert_eq!((counts.failed, counts.volumes), (2, 1));
    assert_eq!(running.snapshot().progress.volumes_done, 2);
    // Nobody misses it where claims are not asked for.
    let (_, counts, _) = scene.restore(json!({"excludedResources": ["persistentvolumeclaims"]})).await.unwrap();
    assert_eq!(counts.failed, 0);
}

#[tokio::test(start_paused = true)]
async fn without_volumes_a_claim_comes_back_empty_and_the_report_says_so() {
    let scene = Scene::new();
    let (report, counts, _) = scene.restore(json!({"volumes": "Exclude"})).await.unwrap();
    assert_eq!(action(&report, "persistentvolumeclaims/shop/data-db-0"), ReportAction::Created);
    assert!(reason(&report, "persistentvolumeclaims/shop/data-db-0").contains("empty"));
    assert_eq!((counts.failed, counts.volumes), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_storage_class_that_is_not_here_is_named_with_the_way_out() {
    let scene = Scene::new();
    scene.cluster.remove("/apis/storage.k8s.io/v1/storageclasses/fast");
    scene.cluster.put(
        "/apis/storage.k8s.io/v1/storageclasses/disk",
        json!({
            "metadata": {"name": "disk"}, "provisioner": "fake",
        }),
    );
    let (report, ..) = scene.restore(json!({})).await.unwrap();
    let told = reason(&report, "persistentvolumeclaims/shop/data-db-0");
    assert!(told.contains("storage class fast does not exist"), "{told}");
    assert!(told.contains("spec.storageClassMapping to one of: disk"), "{told}");
    let (report, ..) = scene.restore(json!({"storageClassMapping": {"fast": "disk"}})).await.unwrap();
    assert_eq!(action(&report, "persistentvolumeclaims/shop/data-db-0"), ReportAction::Created);
}

#[tokio::test(start_paused = true)]
async fn a_restore_that_begins_again_counts_what_it_made_before() {
    let scene = Scene::new();
    let (_, first, _) = scene.restore(json!({})).await.unwrap();
    let (_, second, _) = scene.restore(json!({})).await.unwrap();
    assert_eq!(first, second);
    let jobs = scene.cluster.requests(&Method::POST).into_iter().filter(|path| path.contains("/jobs/")).count();
    assert_eq!(jobs, 1, "the volume is restored once");
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_webhook_comes_when_it_is_up_and_what_waits_in_vain_is_a_failure() {
    let scene = Scene::new();
    scene.cluster.refuse("/apis/example.org/", 5, 500, "InternalError", "failed calling webhook");
    scene.cluster.refuse("/api/v1/namespaces/shop/services/", 1000, 500, "InternalError", "failed calling webhook");
    let (report, counts, _) = scene.restore(json!({})).await.unwrap();
    assert_eq!(action(&report, "widgets.example.org/shop/one"), ReportAction::Created);
    assert_eq!(action(&report, "services/shop/web"), ReportAction::Failed);
    assert_eq!(counts.failed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_is_being_deleted_is_waited_for_but_not_for_ever() {
    let scene = Scene::new();
    let leaving = json!({"metadata": {"name": "shop", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
    scene.cluster.put("/api/v1/namespaces/shop", leaving.clone());
    let failure = scene.restore(json!({})).await.err().unwrap();
    assert_eq!(failure.reason(), "NamespaceTerminating");
    assert_eq!(scene.cluster.requests(&Method::POST), Vec::<String>::new(), "nothing was written");

    let goes = async {
        // As long as a namespace with a pod that takes its time.
        tokio::time::sleep(std::time::Duration::from_secs(40)).await;
        scene.cluster.remove("/api/v1/namespaces/shop");
    };
    let (result, ()) = tokio::join!(scene.restore(json!({})), goes);
    assert_eq!(result.unwrap().1.failed, 0);
}

#[tokio::test(start_paused = true)]
async fn overwrite_changes_what_is_there_and_skip_leaves_it() {
    for (policy, expected, data) in
        [("Skip", ReportAction::Skipped, "theirs"), ("Overwrite", ReportAction::Changed, "b")]
    {
        let scene = Scene::new();
        scene.cluster.put("/api/v1/namespaces/shop", json!({"metadata": {"name": "shop"}}));
        let theirs = json!({"kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "theirs"}});
        scene.cluster.put("/api/v1/namespaces/shop/configmaps/settings", theirs);
        let (report, ..) = scene.restore(json!({"conflictPolicy": policy})).await.unwrap();
        assert_eq!(action(&report, "configmaps/shop/settings"), expected);
        let after = scene.cluster.get("/api/v1/namespaces/shop/configmaps/settings").unwrap();
        assert_eq!(after["data"]["a"], data);
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_is_asked_for_comes_back_in_a_namespace_that_is_made_for_it() {
    let scene = Scene::new();
    let (report, counts, _) = scene.restore(json!({"includedResources": ["configmaps"]})).await.unwrap();
    assert_eq!(counts.created, 2, "{:?}", report.items);
    assert!(scene.cluster.get("/api/v1/namespaces/shop/configmaps/settings").is_some());
    assert_eq!(scene.cluster.get("/apis/apps/v1/namespaces/shop/deployments/web"), None);
}
