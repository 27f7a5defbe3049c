//! The main job before the reader's eyes: onboard a Shoot, back up an application, destroy it, restore it, prove that
//! it is the same.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use shoot_backup_api::backup_location::LocationPhase;
use shoot_backup_api::names::TOKEN_AUDIENCE;
use shoot_backup_api::{ApplicationClusterPhase, Backup, BackupLocation, Restore};
use shoot_backup_azure_emulator::{AdminClient, FederatedCredential, Role};
use shoot_backup_landscape::{Cluster, Console, Landscape, PROJECT_NAMESPACE};

use crate::application::{CLAIMS, SHOP, Shop};
use crate::comparison::{Objects, differences, file_differences, with_storage_class};
use crate::files;
use crate::kubectl::Kubectl;
use crate::oracle::RepositoryCopy;
use crate::product;
use crate::requests::{Project, location_spec, needed_credential};
use crate::story::{Story, say, show};

/// Name of the demo's landscape.
pub const LANDSCAPE: &str = "demo";

struct Demo {
    landscape: Landscape,
    azure: AdminClient,
    project: Project,
    garden: Kubectl,
}

/// What the application is before it is destroyed.
struct Before {
    objects: Objects,
    files: Vec<BTreeMap<String, String>>,
}

/// Tells the whole story. The landscape stays if `keep`, also when something failed.
pub async fn run(keep: bool) -> Result<()> {
    let mut story = Story::default();
    say("shoot-backup: a Shoot is onboarded, an application backed up, destroyed, restored and proven the same.");
    let told = tell(&mut story).await;
    if keep {
        say("\nThe landscape runs on. Look around:");
        show(&format!(
            "landscape --name {LANDSCAPE} status\nkubectl --kubeconfig \"$(landscape --name {LANDSCAPE} kubeconfig garden)\" get shootbackup -A\nlandscape --name {LANDSCAPE} down"
        ));
        say("     (landscape is built at $CARGO_TARGET_DIR/debug/landscape)");
    } else {
        Landscape::down(LANDSCAPE, told.is_err(), &Console).await?;
    }
    told?;
    say(&format!("\n{}", story.table()));
    say("Everything above ran on real components. KEEP=1 make demo leaves them running.");
    Ok(())
}

async fn tell(story: &mut Story) -> Result<()> {
    let landscape = story
        .chapter("A landscape of real components: garden, seed, Shoots alpha and beta, Azurite", async {
            Ok(Landscape::up(LANDSCAPE, &Console).await?)
        })
        .await?;
    let demo = Demo {
        azure: AdminClient::new(&landscape.azure().admin_url)?,
        project: Project { client: landscape.client(Cluster::Garden).await?, namespace: PROJECT_NAMESPACE.to_owned() },
        garden: Kubectl::new(landscape.kubectl_path(), &landscape.kubeconfig(Cluster::Garden)),
        landscape,
    };
    story.chapter("The landscape operator installs shoot-backup by its charts", demo.install()).await?;
    story.chapter("A shoot owner annotates Shoots alpha and beta; nothing else", demo.onboard()).await?;
    story
        .chapter("The Azure administrator creates the federated credentials that the events name", demo.trust())
        .await?;
    story
        .chapter("The shoot owner creates a BackupLocation; each cluster tries it, verb by verb", demo.locate())
        .await?;
    let shop = Shop::new(&demo.landscape, Cluster::Alpha, "shop");
    let before = story.chapter("A shop runs in alpha and writes data", demo.open_shop(&shop)).await?;
    let backup = story.chapter("Backup of namespace shop", demo.back_up()).await?;
    story.chapter("Disaster: the namespace and everything of the shop is deleted", demo.destroy(&shop)).await?;
    story
        .chapter("Restore in alpha", demo.restore(&shop, "shop", json!({"backup": "shop", "cluster": "alpha"})))
        .await?;
    story.chapter("Proof: every object and every file is as before", demo.prove(&shop, &before, false)).await?;
    let copy = Shop::new(&demo.landscape, Cluster::Beta, "shop-copy");
    let spec = json!({"backup": "shop", "cluster": "beta", "namespaceMapping": {"shop": "shop-copy"},
        "storageClassMapping": {"local-path": "fast"}});
    story.chapter("A copy under another name in beta", demo.restore(&copy, "shop-copy", spec)).await?;
    story.chapter("Proof: the copy is the same", demo.prove(&copy, &before, true)).await?;
    story.chapter("Stock restic reads the same repository", demo.restic(&backup, &before)).await?;
    story.chapter("The federated credential of alpha is taken away", demo.distrust()).await
}

impl Demo {
    async fn install(&self) -> Result<()> {
        product::install(&self.landscape).await?;
        let seed = Kubectl::new(self.landscape.kubectl_path(), &self.landscape.kubeconfig(Cluster::Seed));
        show(&seed.run(&["get", "deployments", "-n", product::NAMESPACE]).await?);
        Ok(())
    }

    async fn onboard(&self) -> Result<()> {
        for shoot in ["alpha", "beta"] {
            say(&format!("   kubectl annotate shoot {shoot} shootbackup.extensions.gardener.cloud/enabled=true"));
            self.project.enable(shoot).await?;
        }
        for cluster in ["alpha", "beta"] {
            self.project.cluster_in(cluster, ApplicationClusterPhase::Ready).await?;
        }
        show(&self.garden.run(&["get", "applicationclusters", "-n", PROJECT_NAMESPACE]).await?);
        Ok(())
    }

    async fn trust(&self) -> Result<()> {
        let access = self.landscape.azure();
        self.azure.put_role_assignment(&access.client_id, &access.container, Role::Contributor).await?;
        for cluster in ["alpha", "beta"] {
            let (issuer, subject) = self
                .project
                .wait_for(cluster, "shows the credential that it needs", Duration::from_mins(1), |cluster| {
                    needed_credential(cluster).ok().filter(|(issuer, _)| !issuer.is_empty())
                })
                .await?;
            show(&format!("{cluster}:\n  issuer   {issuer}\n  subject  {subject}\n  audience {TOKEN_AUDIENCE}"));
            let credential = FederatedCredential { issuer, subject, audiences: vec![TOKEN_AUDIENCE.to_owned()] };
            self.azure.put_federated_credential(&access.client_id, cluster, &credential).await?;
        }
        Ok(())
    }

    async fn locate(&self) -> Result<()> {
        let spec = location_spec(&self.landscape, "demo");
        self.project.create::<BackupLocation>("demo", spec).await?;
        for cluster in ["alpha", "beta"] {
            self.project.location_valid("demo", cluster).await?;
            let entry = self.project.location_tried("demo", cluster).await?;
            let verbs = entry.verbs.iter().map(|verb| format!("{} {:?}", verb.verb, verb.outcome)).collect::<Vec<_>>();
            show(&format!("{cluster}: {}", verbs.join(", ")));
        }
        show(&self.garden.run(&["get", "backuplocations", "-n", PROJECT_NAMESPACE]).await?);
        Ok(())
    }

    async fn open_shop(&self, shop: &Shop) -> Result<Before> {
        let kinds =
            SHOP.lines().filter(|line| line.starts_with("kind: ")).collect::<std::collections::BTreeSet<_>>().len();
        shop.deploy().await?;
        shop.fill().await?;
        let objects = shop.objects().await?;
        let mut files = Vec::new();
        for claim in CLAIMS {
            files.push(shop.files(&self.landscape, claim).await?);
        }
        let count = files.iter().map(BTreeMap::len).sum::<usize>();
        show(&format!(
            "{} objects of {kinds} kinds, {count} files and folders in {} volumes",
            objects.len(),
            files.len()
        ));
        Ok(Before { objects, files })
    }

    async fn back_up(&self) -> Result<Backup> {
        self.project.back_up("shop", "alpha", "demo", &["shop"]).await?;
        let backup = self.project.backup_completed("shop").await?;
        show(&self.garden.run(&["get", "backups", "-n", PROJECT_NAMESPACE]).await?);
        Ok(backup)
    }

    async fn destroy(&self, shop: &Shop) -> Result<()> {
        shop.destroy().await?;
        let left = shop.kubectl.run(&["get", "namespace", &shop.namespace, "--ignore-not-found"]).await?;
        ensure!(left.trim().is_empty(), "the namespace is still there: {left}");
        show("nothing is left of it in the cluster");
        Ok(())
    }

    async fn restore(&self, shop: &Shop, name: &str, spec: serde_json::Value) -> Result<()> {
        self.project.create::<Restore>(name, spec).await?;
        self.project.restore_completed(name).await?;
        shop.wait_until_running().await?;
        show(&self.garden.run(&["get", "restore", name, "-n", PROJECT_NAMESPACE]).await?);
        Ok(())
    }

    async fn prove(&self, shop: &Shop, before: &Before, mapped: bool) -> Result<()> {
        let expected = if mapped { with_storage_class(&before.objects, "fast") } else { before.objects.clone() };
        let mut lines = differences(&expected, &shop.objects().await?);
        let mut count = 0;
        for (claim, files) in CLAIMS.iter().zip(&before.files) {
            lines.extend(file_differences(files, &shop.files(&self.landscape, claim).await?));
            count += files.len();
        }
        ensure!(lines.is_empty(), "the restored application differs:\n{}", lines.join("\n"));
        show(&format!(
            "{} objects equal, {count} files and folders equal by SHA-256, mode, owner, time",
            expected.len()
        ));
        Ok(())
    }

    async fn restic(&self, backup: &Backup, before: &Before) -> Result<()> {
        let copy = RepositoryCopy::of(&self.azure, &self.landscape.azure().container, "demo", backup).await?;
        show(&copy.restic(&["snapshots", "--compact"]).await?);
        copy.restic(&["check", "--read-data"]).await?;
        let restored = files::facts(&copy.restore_volume(CLAIMS[0]).await?)?;
        let lines = file_differences(&before.files[0], &restored);
        ensure!(lines.is_empty(), "what restic restored differs:\n{}", lines.join("\n"));
        show("restic check --read-data: no errors; its restore of the database's volume is equal too");
        Ok(())
    }

    async fn distrust(&self) -> Result<()> {
        self.azure.delete_federated_credential(&self.landscape.azure().client_id, "alpha").await?;
        self.azure.revoke_tokens().await?;
        self.project.request::<BackupLocation>("demo", "validate").await?;
        let entry = self.project.location_until("demo", "alpha", |entry| entry.phase == LocationPhase::Failed).await?;
        show(&entry.message);
        ensure!(entry.message.contains("AADSTS"), "the message does not have Entra's reason: {}", entry.message);
        let verb = entry.verbs.first().context("no verb was tried")?;
        ensure!(verb.verb == "TokenExchange", "{verb:?}");
        Ok(())
    }
}
