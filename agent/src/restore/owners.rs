//! Whether the controller of an object is in the backup too: only then is the object left to it.

use std::collections::HashSet;
use std::sync::Arc;

use shoot_backup_repository::{Id, Reader, RepositoryError};
use tokio::sync::Mutex;

use super::plan::Plan;
use super::transform::Owner;
use crate::backup::layout;

/// Folders whose names are remembered. Objects come folder by folder, so that their owners are in two or three.
const REMEMBERED: usize = 8;

/// Remembers the names of the last folders that were asked for.
#[derive(Debug, Default)]
pub struct Owners {
    folders: Mutex<Vec<Remembered>>,
}

#[derive(Debug)]
struct Remembered {
    resource: Id,
    namespace: String,
    names: Arc<HashSet<String>>,
}

impl Owners {
    /// Whether the backup has this owner and it is restored.
    pub async fn is_restored(
        &self,
        plan: &Plan,
        reader: &Reader,
        namespace: &str,
        owner: &Owner,
    ) -> Result<bool, RepositoryError> {
        let Some(folder) = plan.folder_of_kind(&owner.group, &owner.kind) else { return Ok(false) };
        Ok(self.names(reader, folder.tree, namespace).await?.contains(&owner.name))
    }

    async fn names(
        &self,
        reader: &Reader,
        resource: Id,
        namespace: &str,
    ) -> Result<Arc<HashSet<String>>, RepositoryError> {
        // Held while the folder is read: tasks that need the same one wait for it instead of reading it too.
        let mut folders = self.folders.lock().await;
        let known = folders.iter().find(|known| known.resource == resource && known.namespace == namespace);
        if let Some(known) = known {
            return Ok(Arc::clone(&known.names));
        }
        let names = Arc::new(read(reader, resource, namespace).await?);
        if folders.len() >= REMEMBERED {
            folders.remove(0);
        }
        folders.push(Remembered { resource, namespace: namespace.to_owned(), names: Arc::clone(&names) });
        Ok(names)
    }
}

/// Names of the objects of a resource in a namespace.
async fn read(reader: &Reader, resource: Id, namespace: &str) -> Result<HashSet<String>, RepositoryError> {
    let mut tree = resource;
    for name in [layout::NAMESPACES, namespace] {
        match reader.tree(&tree).await?.find(name.as_ref()).and_then(|node| node.subtree) {
            Some(subtree) => tree = subtree,
            None => return Ok(HashSet::new()),
        }
    }
    let names = reader.tree(&tree).await?.nodes.into_iter().filter_map(|node| {
        let name = node.name.into_string().ok()?;
        name.strip_suffix(".json").map(str::to_owned)
    });
    Ok(names.collect())
}
