//! Container-level immutability, as time-based retention in Azure.

use reqwest::Method;
use shoot_backup_azure_emulator::Role;

use crate::landscape::{Landscape, refusal};

async fn immutable(response: reqwest::Response) -> bool {
    let (status, code, body) = refusal(response).await;
    assert!(!code.is_empty(), "{body}");
    (status, code.as_str()) == (409, "BlobImmutableDueToPolicy")
}

#[tokio::test]
async fn within_retention_a_blob_is_neither_overwritten_nor_deleted_nor_changed() {
    let landscape = Landscape::with_role(Some(Role::Contributor)).await;
    let token = landscape.access_token().await;
    landscape.put("old", "before", &token).await;
    landscape.admin.put_immutability(&landscape.container, 1).await.unwrap();

    assert!(immutable(landscape.put("old", "after", &token).await).await);
    assert!(immutable(landscape.delete("old", &token).await).await);
    let metadata = landscape.storage(Method::PUT, "/old?comp=metadata", &token).header("x-ms-meta-a", "b");
    assert!(immutable(metadata.header("content-length", "0").send().await.unwrap()).await);
    let list = "<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList></BlockList>";
    let commit = landscape.storage(Method::PUT, "/old?comp=blocklist", &token).body(list).send().await.unwrap();
    assert!(immutable(commit).await);
    let container = landscape.storage(Method::DELETE, "?restype=container", &token).send().await.unwrap();
    assert!(immutable(container).await);
    assert_eq!(landscape.get("old", &token).await.text().await.unwrap(), "before");
}

#[tokio::test]
async fn new_blobs_are_created_once_by_plain_and_by_create_only_writes() {
    let landscape = Landscape::with_role(Some(Role::Contributor)).await;
    let token = landscape.access_token().await;
    landscape.admin.put_immutability(&landscape.container, 30).await.unwrap();
    assert_eq!(landscape.put("plain", "1", &token).await.status(), 201);
    assert_eq!(landscape.create("careful", "1", &token).await.status(), 201);
    assert!(immutable(landscape.put("plain", "2", &token).await).await);
    let (status, code, _) = refusal(landscape.create("careful", "2", &token).await).await;
    assert_eq!((status, code.as_str()), (409, "BlobAlreadyExists"));
    let (status, code, _) = refusal(landscape.delete("never-there", &token).await).await;
    assert_eq!((status, code.as_str()), (404, "BlobNotFound"));
}

#[tokio::test]
async fn blobs_made_of_blocks_are_committed_once_and_leases_stay_possible() {
    let landscape = Landscape::with_role(Some(Role::Contributor)).await;
    let token = landscape.access_token().await;
    landscape.admin.put_immutability(&landscape.container, 30).await.unwrap();
    let block = landscape.storage(Method::PUT, "/big?comp=block&blockid=MDE%3D", &token).body("part").send().await;
    assert_eq!(block.unwrap().status(), 201);
    let list = "<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList><Latest>MDE=</Latest></BlockList>";
    let commit = || landscape.storage(Method::PUT, "/big?comp=blocklist", &token).body(list).send();
    assert_eq!(commit().await.unwrap().status(), 201);
    assert!(immutable(commit().await.unwrap()).await);
    let lease = landscape.storage(Method::PUT, "/big?comp=lease", &token).header("x-ms-lease-action", "acquire");
    let lease = lease.header("x-ms-lease-duration", "15").header("content-length", "0");
    assert_eq!(lease.send().await.unwrap().status(), 201);
    assert_eq!(landscape.get("big", &token).await.text().await.unwrap(), "part");
}

#[tokio::test]
async fn of_two_writers_of_one_new_name_exactly_one_wins() {
    let landscape = Landscape::with_role(Some(Role::Contributor)).await;
    let token = landscape.access_token().await;
    landscape.admin.put_immutability(&landscape.container, 30).await.unwrap();
    for name in ["r1", "r2", "r3", "r4"] {
        let (first, second) = tokio::join!(landscape.put(name, "one", &token), landscape.put(name, "two", &token));
        let mut statuses = [first.status().as_u16(), second.status().as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 409], "{name}");
    }
}

#[tokio::test]
async fn without_the_policy_everything_is_as_before_and_the_admin_goes_past_it() {
    let landscape = Landscape::with_role(Some(Role::Contributor)).await;
    let token = landscape.access_token().await;
    landscape.admin.put_immutability(&landscape.container, 1).await.unwrap();
    landscape.put("b", "good", &token).await;
    landscape.admin.put_blob(&landscape.container, "b", "broken").await.unwrap();
    assert_eq!(landscape.get("b", &token).await.text().await.unwrap(), "broken");
    landscape.admin.delete_immutability(&landscape.container).await.unwrap();
    assert_eq!(landscape.delete("b", &token).await.status(), 202);
    let days = landscape.admin.put_immutability(&landscape.container, 0).await.unwrap_err();
    assert!(days.to_string().contains("1 to 146000 days"), "{days}");
}
