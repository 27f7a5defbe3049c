//! Microsoft's own Rust libraries, from the token file to the blob.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::http::{ClientOptions, ExponentialRetryOptions, RequestContent, RetryOptions, StatusCode, Transport};
use azure_identity::{ClientAssertionCredentialOptions, WorkloadIdentityCredential, WorkloadIdentityCredentialOptions};
use azure_storage_blob::models::BlobClientUploadOptions;
use azure_storage_blob::{BlobContainerClient, BlobContainerClientOptions};
use futures::TryStreamExt as _;
use shoot_backup_azure_emulator::{Fault, FaultKind, Operation, Role};

use crate::azurite_process::ACCOUNT;
use crate::landscape::{CLIENT, Landscape, TENANT};

fn options(landscape: &Landscape) -> ClientOptions {
    let mut cloud = CustomConfiguration::default();
    cloud.authority_host = landscape.origin();
    let retry = ExponentialRetryOptions {
        initial_delay: azure_core::time::Duration::milliseconds(10),
        max_retries: 3,
        ..ExponentialRetryOptions::default()
    };
    ClientOptions {
        transport: Some(Transport::new(Arc::new(landscape.http.clone()))),
        cloud: Some(Arc::new(CloudConfiguration::Custom(cloud))),
        retry: RetryOptions::exponential(retry),
        ..ClientOptions::default()
    }
}

fn container(landscape: &Landscape, token_file: &Path) -> BlobContainerClient {
    let credential = WorkloadIdentityCredential::new(Some(WorkloadIdentityCredentialOptions {
        client_id: Some(CLIENT.to_owned()),
        tenant_id: Some(TENANT.to_owned()),
        token_file_path: Some(token_file.to_owned()),
        credential_options: ClientAssertionCredentialOptions { client_options: options(landscape) },
    }))
    .unwrap();
    let url = format!("{}/{ACCOUNT}/{}", landscape.origin(), landscape.container).parse().unwrap();
    let options = BlobContainerClientOptions { client_options: options(landscape), ..Default::default() };
    BlobContainerClient::new(url, Some(credential), Some(options)).unwrap()
}

fn token_file(landscape: &Landscape) -> std::path::PathBuf {
    let path = landscape.folder.path().join("token");
    std::fs::write(&path, landscape.issuer.token()).unwrap();
    path
}

#[tokio::test]
async fn workload_identity_writes_reads_lists_and_deletes_blobs_of_many_blocks() {
    let landscape = Landscape::with_role(Some(Role::Contributor)).await;
    let container = container(&landscape, &token_file(&landscape));
    let blob = container.blob_client("data/aa/pack");
    let content: Vec<u8> = (0..9_000_000_u32).map(|byte| byte.to_le_bytes()[1]).collect();
    let once = || Some(BlobClientUploadOptions::default().if_not_exists());
    blob.upload(RequestContent::from(content.clone()), once()).await.unwrap();
    let again = blob.upload(RequestContent::from(content.clone()), once()).await.unwrap_err();
    assert_eq!(again.http_status(), Some(StatusCode::Conflict), "{again}");
    let read = blob.download(None).await.unwrap().body.collect().await.unwrap();
    assert!(read == content, "{} bytes came back, not the {} written", read.len(), content.len());
    let listed: Vec<_> = container.list_blobs(None).unwrap().try_collect().await.unwrap();
    assert_eq!(listed.len(), 1);
    blob.delete(None).await.unwrap();
    assert!(!blob.exists().await.unwrap());

    let requests = landscape.admin.requests().await.unwrap();
    assert_eq!(requests.of(Operation::Token), 1, "one token for all requests");
    assert!(requests.of(Operation::PutBlock) >= 2 && requests.of(Operation::PutBlockList) >= 1);
}

#[tokio::test]
async fn the_library_rides_out_faults_and_shows_the_service_code_of_refusals() {
    let landscape = Landscape::with_role(Some(Role::Contributor)).await;
    let container = container(&landscape, &token_file(&landscape));
    let busy = Fault::new(FaultKind::ServerBusy { retry_after_seconds: 0 }).on(Operation::PutBlob);
    landscape.admin.add_fault(&busy.times(2)).await.unwrap();
    landscape.admin.add_fault(&Fault::new(FaultKind::Reset).on(Operation::GetBlob)).await.unwrap();
    let blob = container.blob_client("b");
    blob.upload(RequestContent::from(b"content".to_vec()), None).await.unwrap();
    let read = blob.download(None).await.unwrap().body.collect().await.unwrap();
    assert_eq!(&read[..], b"content");
    assert!(landscape.admin.faults().await.unwrap().iter().all(|fault| fault.hit >= 1));

    landscape.admin.delete_role_assignment(CLIENT, &landscape.container).await.unwrap();
    let denied = blob.delete(None).await.unwrap_err();
    assert_eq!(denied.http_status(), Some(StatusCode::Forbidden));
    assert!(format!("{denied:?}").contains("AuthorizationPermissionMismatch"), "{denied:?}");
}

#[tokio::test]
async fn the_library_shows_entras_reason_when_no_credential_matches() {
    let landscape = Landscape::with_role(Some(Role::Contributor)).await;
    let container = container(&landscape, &token_file(&landscape));
    landscape.admin.delete_federated_credential(CLIENT, "alpha").await.unwrap();
    let refused = tokio::time::timeout(Duration::from_secs(30), container.exists()).await.unwrap().unwrap_err();
    assert!(format!("{refused:?}").contains("AADSTS700211"), "{refused:?}");
}
