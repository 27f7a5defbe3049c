//! The application of the demo and of the tests: deploy it, fill it with data, destroy it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use shoot_backup_landscape::{Cluster, Landscape};

use crate::comparison::{self, Objects};
use crate::files;
use crate::kubectl::Kubectl;
use crate::wait::{Seen, until};

/// Manifests of the shop.
pub const SHOP: &str = include_str!("../application/shop.yaml");

/// Claims of the shop.
pub const CLAIMS: [&str; 2] = ["data-database-0", "archive"];

/// Writes into the database's volume what real volumes hold: a large file, many small ones, links, odd names, a sparse
/// file, modes and owners.
const FILL_DATABASE: &str = r#"
cd /data
mkdir -p tables/a tables/b empty 'odd names'
dd if=/dev/urandom of=tables/large bs=1M count=24 2>/dev/null
dd if=tables/large of=tables/copy bs=1M count=8 2>/dev/null
i=0; while [ $i -lt 400 ]; do echo "row $i of the table" > tables/a/row-$i; i=$((i+1)); done
: > tables/nothing
ln -s ../tables/large tables/b/link
ln -s /does/not/exist tables/b/dangling
ln tables/large tables/b/hard
mkfifo tables/pipe
echo 'größe' > 'odd names/ünïcode äöü'
printf 'x' > "odd names/with 'quotes' and \"more\""
printf 'y' > 'odd names/back\slash'
dd if=/dev/zero of=tables/sparse bs=1 count=1 seek=33554432 2>/dev/null
chmod 4750 tables/nothing; chmod 1777 empty; chown 1000:2000 tables/copy
touch -d '2001-02-03 04:05:06' tables/a/row-1
"#;

const FILL_ARCHIVE: &str = "i=0; while [ $i -lt 20 ]; do echo \"page $i\" > /archive/page-$i; i=$((i+1)); done";

/// The shop in one namespace of one cluster.
#[derive(Clone, Debug)]
pub struct Shop {
    /// kubectl for its cluster.
    pub kubectl: Kubectl,
    /// Its cluster.
    pub cluster: Cluster,
    /// Its namespace.
    pub namespace: String,
}

impl Shop {
    /// The shop in a namespace; nothing is done yet.
    #[must_use]
    pub fn new(landscape: &Landscape, cluster: Cluster, namespace: &str) -> Self {
        let kubectl = Kubectl::new(landscape.kubectl_path(), &landscape.kubeconfig(cluster));
        Self { kubectl, cluster, namespace: namespace.to_owned() }
    }

    /// Deploys the shop in its namespace `shop` and waits until its pods run.
    pub async fn deploy(&self) -> Result<()> {
        // The definition of the custom resources has to be served before the resources themselves are taken.
        let deploy = || async {
            self.kubectl.apply(SHOP).await?;
            Ok(Seen::Done(()))
        };
        until("the shop's manifests are applied", Duration::from_mins(1), deploy).await?;
        self.wait_until_running().await
    }

    /// Waits until the shop's pods run.
    pub async fn wait_until_running(&self) -> Result<()> {
        for pod in ["database-0", "lonely"] {
            self.wait_for(&format!("pod/{pod}"), "condition=Ready").await?;
        }
        self.wait_for("deployment/web", "condition=Available").await
    }

    async fn wait_for(&self, object: &str, condition: &str) -> Result<()> {
        let what = format!("{object} in {} has {condition}", self.namespace);
        let arguments = ["wait", "-n", &self.namespace, object, &format!("--for={condition}"), "--timeout=1s"];
        until(&what, Duration::from_secs(150), || async {
            self.kubectl.run(&arguments).await?;
            Ok(Seen::Done(()))
        })
        .await
    }

    /// Writes data into both volumes.
    pub async fn fill(&self) -> Result<()> {
        self.kubectl.shell(&self.namespace, "database-0", FILL_DATABASE).await?;
        let web = self.kubectl.run(&["get", "pods", "-n", &self.namespace, "-l", "app=web", "-o", "name"]).await?;
        let web = web.lines().next().context("no pod of deployment web")?.trim_start_matches("pod/").to_owned();
        self.kubectl.shell(&self.namespace, &web, FILL_ARCHIVE).await.map(drop)
    }

    /// Everything that the shop consists of in the API.
    pub async fn objects(&self) -> Result<Objects> {
        comparison::objects(&self.kubectl, &self.namespace, "shop").await
    }

    /// The facts about every file of a claim.
    pub async fn files(&self, landscape: &Landscape, claim: &str) -> Result<BTreeMap<String, String>> {
        let path = self.volume(landscape, claim).await?;
        tokio::task::spawn_blocking(move || files::facts(&path)).await?
    }

    /// Where the data of a claim is on this machine.
    pub async fn volume(&self, landscape: &Landscape, claim: &str) -> Result<PathBuf> {
        let arguments = ["get", "pvc", claim, "-n", &self.namespace, "-o", "jsonpath={.spec.volumeName}"];
        let volume = self.kubectl.run(&arguments).await?;
        Ok(landscape.volume_path(self.cluster, &volume))
    }

    /// Deletes the namespace and the shop's cluster-scoped objects, and waits until all are gone.
    pub async fn destroy(&self) -> Result<()> {
        let namespace = ["delete", "namespace", &self.namespace, "--ignore-not-found", "--wait=true", "--timeout=120s"];
        self.kubectl.run(&namespace).await?;
        let kinds = "crd,priorityclass,ingressclass,clusterrole,clusterrolebinding";
        self.kubectl.run(&["delete", kinds, "-l", "part-of=shop", "--wait=true"]).await.map(drop)
    }
}
