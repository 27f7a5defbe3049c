//! The admin interface: raw access for tests, and what survives a restart.

use shoot_backup_azure_emulator::{AdminClient, ClientError, Emulator, EmulatorError, Role};

use crate::azurite_process::azurite;
use crate::landscape::{CLIENT, Landscape, arguments};

#[tokio::test]
async fn blobs_are_listed_read_written_and_deleted_past_all_checks() {
    let landscape = Landscape::with_role(None).await;
    let (admin, container) = (&landscape.admin, landscape.container.as_str());
    admin.health().await.unwrap();
    for name in ["data/00/one & two", "data/01/ü", "index/three"] {
        admin.put_blob(container, name, "12345").await.unwrap();
    }
    let names = |prefix: &'static str| async move {
        let blobs = admin.blobs(container, prefix).await.unwrap();
        blobs.into_iter().map(|blob| (blob.name, blob.size)).collect::<Vec<_>>()
    };
    let data = [("data/00/one & two".to_owned(), 5), ("data/01/ü".to_owned(), 5)];
    assert_eq!(names("data/").await, data);
    assert_eq!(admin.blob(container, "data/01/ü").await.unwrap(), "12345");
    admin.delete_blob(container, "data/01/ü").await.unwrap();
    assert_eq!(names("data/").await.len(), 1);
    let gone = admin.blob(container, "data/01/ü").await.unwrap_err();
    assert!(matches!(gone, ClientError::Refused { status, .. } if status == 404), "{gone}");
}

#[tokio::test]
async fn a_listing_of_more_than_a_page_is_complete() {
    let landscape = Landscape::with_role(None).await;
    let (admin, container) = (&landscape.admin, landscape.container.as_str());
    for chunk in (0..1005).collect::<Vec<_>>().chunks(25) {
        let writes = chunk.iter().map(|number| async move {
            admin.put_blob(container, &format!("{number:04}"), "").await.unwrap();
        });
        futures::future::join_all(writes).await;
    }
    let blobs = admin.blobs(container, "").await.unwrap();
    assert_eq!((blobs.len(), blobs[0].name.as_str(), blobs[1004].name.as_str()), (1005, "0000", "1004"));
}

#[tokio::test]
async fn a_container_is_created_once_and_put_again_without_harm() {
    let landscape = Landscape::with_role(None).await;
    landscape.admin.put_blob(&landscape.container, "b", "x").await.unwrap();
    landscape.admin.put_container(&landscape.container).await.unwrap();
    assert_eq!(landscape.admin.blobs(&landscape.container, "").await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_configured_and_issued_survives_a_restart() {
    let landscape = Landscape::with_role(Some(Role::Contributor)).await;
    let token = landscape.access_token().await;
    landscape.put("b", "x", &token).await;
    landscape.admin.put_immutability(&landscape.container, 3).await.unwrap();
    let before = landscape.admin.identity(CLIENT).await.unwrap();
    let state = landscape.folder.path().join("state.json");
    landscape.emulator.stop().await.unwrap();

    let emulator = Emulator::start(&arguments(azurite(), state)).await.unwrap();
    let admin = AdminClient::new(&emulator.admin_url()).unwrap();
    assert_eq!(admin.identity(CLIENT).await.unwrap(), before);
    let landscape = Landscape { emulator, admin, ..landscape };
    assert_eq!(landscape.get("b", &token).await.status(), 200, "a token from before the restart counts");
    assert_eq!(landscape.delete("b", &token).await.status(), 409, "so does the retention");
}

#[tokio::test]
async fn a_role_for_an_unknown_identity_names_the_next_step() {
    let landscape = Landscape::with_role(None).await;
    let error = landscape.admin.put_role_assignment("nobody", "c", Role::Reader).await.unwrap_err().to_string();
    assert!(error.contains("404") && error.contains("put /identities/nobody first"), "{error}");
}

#[tokio::test]
async fn an_azurite_that_is_not_trusted_is_named_with_the_cause() {
    let folder = tempfile::tempdir().unwrap();
    let mut arguments = arguments(azurite(), folder.path().join("state.json"));
    let stranger = rcgen::generate_simple_self_signed(vec!["stranger".to_owned()]).unwrap();
    arguments.trust = folder.path().join("stranger.pem");
    std::fs::write(&arguments.trust, stranger.cert.pem()).unwrap();
    let emulator = Emulator::start(&arguments).await.unwrap();
    let admin = AdminClient::new(&emulator.admin_url()).unwrap();
    let error = admin.put_container("c").await.unwrap_err().to_string();
    assert!(error.contains("502") && error.contains("failed to reach Azurite for PUT"), "{error}");
    assert!(error.contains("invalid peer certificate"), "{error}");
}

#[tokio::test]
async fn an_admin_interface_that_others_could_reach_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let mut arguments = arguments(azurite(), folder.path().join("state.json"));
    arguments.admin = "0.0.0.0:0".parse().unwrap();
    assert!(matches!(Emulator::start(&arguments).await, Err(EmulatorError::AdminNotLoopback(_))));
}
