//! Walks the objects of a backup, wave by wave, and brings each into the cluster. Never more than a few objects are in
//! memory: a folder's names, and the objects of the tasks that run.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt, stream};
use serde_json::Value;
use shoot_backup_api::manifest::ReportAction;
use shoot_backup_api::restore::ConflictPolicy;
use shoot_backup_repository::{Id, Node, NodeKind, Reader, RepositoryError};

use super::apply::{Applier, Done, OnConflict};
use super::definitions::Definitions;
use super::missing_claims::MissingClaims;
use super::owners::Owners;
use super::plan::{Folder, Plan, directories};
use super::report::Collector;
use super::resource::Resource;
use super::transform::{Kept, Transformed, is_bare_account, maker, transform};
use super::volumes::Volumes;
use super::waves::Wave;
use crate::backup::layout;
use crate::operation::failure::with_causes;
use crate::operation::{Failure, Running};

/// Objects that are worked on at once.
const PARALLEL: usize = 8;
/// Claims that are worked on at once: each with data has a mover that fills the node's network.
const PARALLEL_CLAIMS: usize = 2;
/// Longest object, as JSON. The API server's own limit of a request is 3 MiB, that of etcd is half of it.
const MAX_OBJECT: u64 = 8 * 1024 * 1024;
/// Objects that are kept for another try, in all. An entry is about 1 KiB.
const MAX_DEFERRED: usize = 10_000;
/// Pauses before the further tries at the end of each wave.
const PAUSES_OF_WAVE: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(5)];
/// Pauses before the further tries at the very end, when all servers of webhooks and all definitions are restored.
const PAUSES_AT_END: [Duration; 5] = [
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(15),
    Duration::from_secs(30),
];

/// What all tasks of a restore share.
pub struct Work<'a> {
    /// What is restored.
    pub plan: Plan,
    /// What happens to objects that are there.
    pub policy: ConflictPolicy,
    /// The source cluster's repository.
    pub reader: Reader,
    /// The cluster.
    pub applier: Applier,
    /// What happened.
    pub collector: Collector,
    /// The operation.
    pub running: &'a Running,
    /// Names of controllers.
    pub owners: Owners,
    /// Definitions that were made.
    pub definitions: Definitions,
    /// Claims that are not there (yet).
    pub missing_claims: MissingClaims,
    /// Brings volumes back.
    pub volumes: Volumes<'a>,
}

/// One object of the backup.
#[derive(Clone, Debug)]
struct Entry {
    resource: Arc<Resource>,
    /// Its folder of a namespace; `None` for cluster-wide ones.
    namespace: Option<Arc<str>>,
    node: Node,
}

/// An object that did not work yet.
#[derive(Debug)]
struct Deferred {
    entry: Entry,
    item: String,
    reason: String,
}

/// Objects that did not work yet.
type Later = Mutex<Vec<Deferred>>;

impl Work<'_> {
    /// Restores all objects but the namespaces, which are there. `made`: namespaces that this restore made.
    pub async fn objects(&self, made: &HashSet<String>) -> Result<(), Failure> {
        let mut late = Vec::new();
        for wave in Wave::ALL {
            self.running.check()?;
            if self.plan.of(wave).next().is_some() {
                late.extend(self.wave(wave, made).await?);
            }
            if wave == Wave::Claims && self.plan.wants_claims {
                self.unclaimed();
            }
        }
        if !late.is_empty() {
            self.running.step("Remaining");
        }
        for Deferred { item, reason, .. } in self.again(late, made, &PAUSES_AT_END).await? {
            self.fail(item, &format!("{reason}; it was tried again until the end of the restore"));
        }
        Ok(())
    }

    /// Restores the objects of one wave; those that did not work yet.
    async fn wave(&self, wave: Wave, made: &HashSet<String>) -> Result<Vec<Deferred>, Failure> {
        self.running.step(wave.as_str());
        let later = Later::default();
        for folder in self.plan.of(wave) {
            self.folder(folder, made, &later).await?;
        }
        let left = self.again(taken(&later), made, &PAUSES_OF_WAVE).await?;
        if wave == Wave::Definitions {
            self.definitions.wait_until_served(&self.applier.client, self.running).await?;
        }
        Ok(left)
    }

    /// Counts data whose claim is not among the objects of the backup as failed: nothing else would tell.
    fn unclaimed(&self) {
        for (namespace, claim) in self.volumes.unused(&self.plan) {
            let here = self.plan.rules.here(&namespace);
            self.missing_claims.note_missing(here, &claim);
            self.running.volume_done();
            let reason = "its data is in the backup and was not restored: the claim is missing or damaged there";
            self.fail(format!("volume {here}/{claim}"), reason);
        }
    }

    /// Restores the objects of one resource.
    async fn folder(&self, folder: &Folder, made: &HashSet<String>, later: &Later) -> Result<(), Failure> {
        let resource = Arc::new(folder.resource.clone());
        if let Some(tree) = self.directory(&folder.tree, layout::CLUSTER).await? {
            self.entries(&resource, None, &tree, made, later).await?;
        }
        let Some(namespaces) = self.directory(&folder.tree, layout::NAMESPACES).await? else { return Ok(()) };
        for (namespace, tree) in directories(self.reader.tree(&namespaces).await?.nodes) {
            if self.plan.rules.namespaces.contains_key(&namespace) {
                self.entries(&resource, Some(namespace.into()), &tree, made, later).await?;
            }
        }
        Ok(())
    }

    async fn entries(
        &self,
        resource: &Arc<Resource>,
        namespace: Option<Arc<str>>,
        tree: &Id,
        made: &HashSet<String>,
        later: &Later,
    ) -> Result<(), Failure> {
        let nodes = self.reader.tree(tree).await?.nodes;
        let entries = nodes.into_iter().filter(|node| node.kind == NodeKind::File).map(|node| Entry {
            resource: Arc::clone(resource),
            namespace: namespace.clone(),
            node,
        });
        self.each(entries, made, later).await
    }

    /// Works on entries, several at once.
    async fn each(
        &self,
        entries: impl Iterator<Item = Entry> + Send,
        made: &HashSet<String>,
        later: &Later,
    ) -> Result<(), Failure> {
        let mut entries = entries.peekable();
        let claims = entries.peek().is_some_and(|entry| Wave::of(&entry.resource) == Wave::Claims);
        let parallel = if claims { PARALLEL_CLAIMS } else { PARALLEL };
        let mut done = stream::iter(entries).map(|entry| self.one(entry, made, later)).buffer_unordered(parallel);
        while let Some(result) = done.next().await {
            result?;
        }
        Ok(())
    }

    /// Tries deferred objects again after each pause; those that still do not work.
    async fn again(
        &self,
        mut deferred: Vec<Deferred>,
        made: &HashSet<String>,
        pauses: &[Duration],
    ) -> Result<Vec<Deferred>, Failure> {
        for pause in pauses {
            if deferred.is_empty() {
                break;
            }
            tokio::time::sleep(*pause).await;
            self.running.check()?;
            let later = Later::default();
            // Claims come first, and are not mixed with others: they have their own parallelism.
            let (claims, others): (Vec<_>, Vec<_>) =
                deferred.into_iter().partition(|one| Wave::of(&one.entry.resource) == Wave::Claims);
            self.each(claims.into_iter().map(|one| one.entry), made, &later).await?;
            self.each(others.into_iter().map(|one| one.entry), made, &later).await?;
            deferred = taken(&later);
        }
        Ok(deferred)
    }

    /// Restores one object and notes what happened to it.
    async fn one(&self, entry: Entry, made: &HashSet<String>, later: &Later) -> Result<(), Failure> {
        self.running.check()?;
        let resource = &entry.resource;
        let file = entry.node.display_name();
        let fallback_item = || {
            let name = file.strip_suffix(".json").unwrap_or(&file);
            let namespace = entry.namespace.as_deref().map(|namespace| self.plan.rules.here(namespace));
            resource.item(namespace, name)
        };
        let object = match self.read(&entry.node).await {
            Ok(object) => object,
            Err(Failure::Failed { reason: "Object", message }) => {
                self.fail(fallback_item(), &message);
                return Ok(());
            }
            Err(failure) => return Err(failure),
        };
        // Looked at here, because a restored claim no longer names its old volume.
        let had_volume = names_volume(&object);
        let (item, done) = match self.decide(&entry, object).await? {
            Err(reason) => (fallback_item(), Done::Skipped(reason)),
            Ok(kept) => {
                let item = resource.item(kept.namespace.as_deref(), &kept.name);
                let new_namespace = kept.namespace.as_ref().is_some_and(|namespace| made.contains(namespace));
                let done = self.bring(&entry, &kept, new_namespace, had_volume).await;
                (item, done)
            }
        };
        let (action, reason) = match done {
            Done::Created => (ReportAction::Created, self.remark(&entry).to_owned()),
            Done::Changed => (ReportAction::Changed, String::new()),
            Done::Skipped(reason) => (ReportAction::Skipped, reason),
            Done::Failed(reason) => {
                self.fail(item, &reason);
                return Ok(());
            }
            Done::Again(reason) => {
                if !defer(later, Deferred { entry, item: item.clone(), reason: reason.clone() }) {
                    self.fail(item, &format!("{reason}; too many objects wait for another try"));
                }
                return Ok(());
            }
        };
        self.collector.note(item, action, &reason);
        self.running.add_objects(1);
        Ok(())
    }

    /// Brings one object into the cluster, and notes what others wait for.
    async fn bring(&self, entry: &Entry, kept: &Kept, new_namespace: bool, had_volume: bool) -> Done {
        let resource = &entry.resource;
        let wave = Wave::of(resource);
        if wave == Wave::Claims {
            let source = entry.namespace.as_deref();
            let done = Box::pin(self.volumes.claim(self, resource, kept, source, had_volume)).await;
            self.missing_claims.note(kept, !matches!(done, Done::Failed(_) | Done::Again(_)));
            return done;
        }
        if resource.is("apps", "statefulsets")
            && let Some(claim) = self.missing_claims.of_stateful_set(kept)
        {
            return Done::Again(format!("its claim {claim} is missing, and it would make an empty one"));
        }
        let on_conflict = OnConflict::of(resource, kept, self.policy, new_namespace);
        let done = self.applier.apply(resource, kept, on_conflict).await;
        if done == Done::Created && wave == Wave::Definitions {
            self.definitions.note(&kept.name);
        }
        done
    }

    /// What an object becomes, or why it is not restored.
    async fn decide(&self, entry: &Entry, object: Value) -> Result<Result<Kept, String>, Failure> {
        if let (Some(owner), Some(namespace)) = (maker(&entry.resource, &object), &entry.namespace)
            && self.owners.is_restored(&self.plan, &self.reader, namespace, &owner).await?
        {
            return Ok(Err(format!("made by {} {}", owner.kind, owner.name)));
        }
        Ok(match transform(&entry.resource, object, &self.plan.rules) {
            Transformed::Skip(reason) => Err(reason),
            Transformed::Keep(kept) if entry.resource.is("", "serviceaccounts") && is_bare_account(&kept.object) => {
                Err("the cluster makes its own".to_owned())
            }
            Transformed::Keep(kept) => Ok(kept),
        })
    }

    /// Reads one object. What is damaged or no JSON is a failure of reason `Object`, which ends only that object.
    pub async fn read(&self, node: &Node) -> Result<Value, Failure> {
        let bytes = match self.reader.read_file(node, MAX_OBJECT).await {
            Ok(bytes) => bytes,
            Err(RepositoryError::Store(error)) => return Err(error.into()),
            Err(error) => return Err(Failure::new("Object", with_causes(&error))),
        };
        serde_json::from_slice(&bytes)
            .map_err(|error| Failure::new("Object", format!("the backup has no JSON here: {error}")))
    }

    /// The directory of this name in another.
    pub async fn directory(&self, tree: &Id, name: &str) -> Result<Option<Id>, Failure> {
        Ok(self.reader.tree(tree).await?.find(name.as_ref()).and_then(|node| node.subtree))
    }

    /// What is to be said of an object that was created.
    fn remark(&self, entry: &Entry) -> &'static str {
        let name = entry.node.display_name();
        let claim = name.strip_suffix(".json").unwrap_or(&name).to_owned();
        let key = (entry.namespace.as_deref().unwrap_or_default().to_owned(), claim);
        let is_empty_claim = Wave::of(&entry.resource) == Wave::Claims && !self.plan.volumes.contains_key(&key);
        if is_empty_claim { "created empty: no data of it is restored" } else { "" }
    }

    fn fail(&self, item: String, reason: &str) {
        self.running.error(item.clone(), reason);
        self.running.add_objects(1);
        self.collector.note(item, ReportAction::Failed, reason);
    }
}

/// Whether a claim of the backup had a volume.
fn names_volume(object: &Value) -> bool {
    object.pointer("/spec/volumeName").and_then(Value::as_str).is_some_and(|name| !name.is_empty())
}

/// Keeps an object for another try; false if too many wait already.
fn defer(later: &Later, deferred: Deferred) -> bool {
    let mut waiting = later.lock().unwrap_or_else(PoisonError::into_inner);
    let fits = waiting.len() < MAX_DEFERRED;
    if fits {
        waiting.push(deferred);
    }
    fits
}

fn taken(later: &Later) -> Vec<Deferred> {
    std::mem::take(&mut *later.lock().unwrap_or_else(PoisonError::into_inner))
}
