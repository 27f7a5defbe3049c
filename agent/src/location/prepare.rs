//! What a location has before the first backup: its marker, and who this cluster is.

use shoot_backup_api::manifest::{ClusterIdentity, FORMAT_VERSION, LocationMarker, paths};
use uuid::Uuid;

use super::{Location, LocationError};

/// Makes sure of the location's marker and of this cluster's identity file. Both are written once: of two clusters that
/// come at the same time, the first makes the marker. A location of a newer format is refused.
pub async fn prepare(location: &Location, cluster: &ClusterIdentity) -> Result<(), LocationError> {
    let marker: Option<LocationMarker> = location.read_json(paths::LOCATION).await?;
    let marker = match marker {
        Some(marker) => marker,
        None => make(location).await?,
    };
    if marker.format_version > FORMAT_VERSION {
        return Err(LocationError::Format {
            name: location.name().to_owned(),
            found: marker.format_version,
            known: FORMAT_VERSION,
        });
    }
    let path = paths::cluster_identity(&cluster.uid);
    if location.read_json::<ClusterIdentity>(&path).await?.is_none() {
        location.create_json(&path, cluster).await?;
    }
    Ok(())
}

async fn make(location: &Location) -> Result<LocationMarker, LocationError> {
    let made = LocationMarker { uuid: Uuid::new_v4().to_string(), format_version: FORMAT_VERSION };
    location.create_json(paths::LOCATION, &made).await?;
    Ok(location.read_json(paths::LOCATION).await?.unwrap_or(made))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use shoot_backup_repository::{BlobStore, MemoryStore};

    use super::*;
    use crate::mover::protocol::Target;

    fn cluster(name: &str) -> ClusterIdentity {
        ClusterIdentity { uid: "c".to_owned(), name: name.to_owned(), project: String::new(), issuer: String::new() }
    }

    #[tokio::test]
    async fn a_location_keeps_its_first_marker_and_identity() {
        let store = Arc::new(MemoryStore::new());
        let location = Location::with_store("main", Target::default(), store.clone());
        prepare(&location, &cluster("alpha")).await.unwrap();
        let marker = store.read(paths::LOCATION).await.unwrap();
        prepare(&location, &cluster("renamed")).await.unwrap();
        assert_eq!(store.read(paths::LOCATION).await.unwrap(), marker);
        let identity: ClusterIdentity = location.read_json(&paths::cluster_identity("c")).await.unwrap().unwrap();
        assert_eq!(identity.name, "alpha");
    }

    #[tokio::test]
    async fn a_location_of_a_newer_format_is_refused() {
        let store = Arc::new(MemoryStore::new());
        let newer = Bytes::from_static(br#"{"uuid": "u", "formatVersion": 2}"#);
        store.create(paths::LOCATION, newer).await.unwrap();
        let location = Location::with_store("main", Target::default(), store.clone());
        let error = prepare(&location, &cluster("alpha")).await.unwrap_err();
        assert_eq!(error.reason(), "UnknownFormat");
        assert!(error.to_string().contains("format version 2"), "{error}");
    }
}
