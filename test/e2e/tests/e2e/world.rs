//! The landscape and the installation that all tests share.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use shoot_backup_api::{ApplicationClusterPhase, BackupLocation};
use shoot_backup_azure_emulator::{AdminClient, FederatedCredential, Role};
use shoot_backup_e2e::application::Shop;
use shoot_backup_e2e::kubectl::Kubectl;
use shoot_backup_e2e::product;
use shoot_backup_e2e::requests::{Project, location_spec, needed_credential};
use shoot_backup_landscape::{Cluster, Console, Landscape, PROJECT_NAMESPACE};
use tokio::runtime::Runtime;
use tokio::sync::{OnceCell, RwLock};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
static WORLD: OnceCell<World> = OnceCell::const_new();

/// What the tests share.
pub struct World {
    /// The landscape.
    pub landscape: Landscape,
    /// The emulator's administrator.
    pub azure: AdminClient,
    /// The project that has the Shoots.
    pub project: Project,
    /// Held for writing by a test that disturbs a cluster's agent or API server, for reading by those that need it calm.
    pub calm: BTreeMap<&'static str, RwLock<()>>,
    /// The same for the garden side and the garden's API server.
    pub garden_calm: RwLock<()>,
}

/// Runs a test in the shared world.
pub fn test<F>(body: impl FnOnce(&'static World) -> F)
where
    F: Future<Output = Result<()>>,
{
    RUNTIME.block_on(async {
        let world =
            WORLD.get_or_init(|| async { World::new().await.unwrap_or_else(|error| panic!("{error:#}")) }).await;
        let begun = Instant::now();
        let result = body(world).await;
        // Shown with --nocapture: what to look at when the suite gets slow. Waiting for calm is part of it.
        println!("took {:.1} s", begun.elapsed().as_secs_f64());
        if let Err(error) = result {
            panic!("{error:#}");
        }
    });
}

impl World {
    async fn new() -> Result<Self> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let landscape = Landscape::up("test", &Console).await?;
        let azure = AdminClient::new(&landscape.azure().admin_url)?;
        azure.clear_faults().await?;
        let access = landscape.azure();
        azure.put_role_assignment(&access.client_id, &access.container, Role::Contributor).await?;
        product::install(&landscape).await?;
        let client = landscape.client(Cluster::Garden).await?;
        let project = Project { client, namespace: PROJECT_NAMESPACE.to_owned() };
        let calm = ["alpha", "beta", "gamma", "delta"].map(|cluster| (cluster, RwLock::new(())));
        let world = Self { landscape, azure, project, calm: BTreeMap::from(calm), garden_calm: RwLock::new(()) };
        // Alpha opts in by annotation, beta by extension.
        world.project.enable("alpha").await?;
        world
            .garden()
            .run(&[
                "patch",
                "shoot",
                "beta",
                "-n",
                PROJECT_NAMESPACE,
                "--type=merge",
                "-p",
                r#"{"spec":{"extensions":[{"type":"shoot-backup"}]}}"#,
            ])
            .await?;
        for cluster in ["alpha", "beta"] {
            world.project.cluster_in(cluster, ApplicationClusterPhase::Ready).await?;
            world.trust(cluster).await?;
        }
        Ok(world)
    }

    /// Creates the federated credential that a cluster's status asks for, on the landscape's identity.
    pub async fn trust(&self, cluster: &str) -> Result<()> {
        let what = "shows the credential that it needs";
        let credential = self
            .project
            .wait_for(cluster, what, Duration::from_mins(1), |cluster| {
                needed_credential(cluster).ok().filter(|(issuer, _)| !issuer.is_empty())
            })
            .await?;
        let (issuer, subject) = credential;
        let audiences = vec!["api://AzureADTokenExchange".to_owned()];
        let credential = FederatedCredential { issuer, subject, audiences };
        let client_id = self.landscape.azure().client_id;
        self.azure.put_federated_credential(&client_id, cluster, &credential).await.context("failed to trust a cluster")
    }

    /// kubectl for the garden.
    pub fn garden(&self) -> Kubectl {
        self.kubectl(Cluster::Garden)
    }

    /// kubectl for a cluster.
    pub fn kubectl(&self, cluster: Cluster) -> Kubectl {
        Kubectl::new(self.landscape.kubectl_path(), &self.landscape.kubeconfig(cluster))
    }

    /// The folder of a test in the container, also the name of its location and the prefix of its namespaces.
    pub async fn location(&self, name: &str, clusters: &[&str]) -> Result<()> {
        let mut spec = location_spec(&self.landscape, name);
        spec["clusters"] = json!({"names": clusters});
        self.project.create::<BackupLocation>(name, spec).await?;
        for cluster in clusters {
            self.project.location_valid(name, cluster).await?;
        }
        Ok(())
    }

    /// A location that is not expected to work: `change` alters its spec.
    pub async fn broken_location(&self, name: &str, change: impl FnOnce(&mut Value)) -> Result<()> {
        let mut spec = location_spec(&self.landscape, name);
        spec["clusters"] = json!({"names": ["alpha"]});
        change(&mut spec);
        self.project.create::<BackupLocation>(name, spec).await.map(drop)
    }

    /// A namespace with a few `ConfigMaps` and a pod whose volume holds some megabytes that do not compress.
    pub async fn small_application(&self, cluster: Cluster, namespace: &str) -> Result<()> {
        let kubectl = self.kubectl(cluster);
        let config = |index: usize| {
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("config-{index}"), "namespace": namespace},
                "data": {"value": format!("{namespace} {index}")}})
        };
        let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": namespace},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "128Mi"}}}});
        let script = "[ -e /data/file ] || { dd if=/dev/urandom of=/data/file bs=1M count=40; echo done > /data/marker; }; trap exit TERM; while :; do sleep 1; done";
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "writer", "namespace": namespace},
            "spec": {"terminationGracePeriodSeconds": 1, "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
                "containers": [{"name": "main", "image": "landscape/busybox:dev", "imagePullPolicy": "Never",
                    "command": ["sh", "-c", script], "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                    "readinessProbe": {"exec": {"command": ["test", "-e", "/data/marker"]}, "periodSeconds": 1}}]}});
        let mut items = vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})];
        items.extend((0..20).map(config));
        items.extend([claim, pod]);
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        kubectl.apply(&list.to_string()).await?;
        kubectl.run(&["wait", "-n", namespace, "pod/writer", "--for=condition=Ready", "--timeout=120s"]).await.map(drop)
    }

    /// The facts about the files of alpha's small application in a namespace.
    pub async fn files(&self, namespace: &str) -> Result<BTreeMap<String, String>> {
        Shop::new(&self.landscape, Cluster::Alpha, namespace).files(&self.landscape, "data").await
    }

    /// Deletes a namespace and waits until it is gone.
    pub async fn delete_namespace(&self, cluster: Cluster, namespace: &str) -> Result<()> {
        self.kubectl(cluster).run(&["delete", "namespace", namespace, "--wait=true", "--timeout=120s"]).await.map(drop)
    }
}
