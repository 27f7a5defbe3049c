//! The gateway: who may do what, and the words of refusals.

use reqwest::Method;
use shoot_backup_azure_emulator::{RequestKey, Role, Settings, WHOLE_ACCOUNT};

use crate::azurite_process::ACCOUNT;
use crate::landscape::{CLIENT, Landscape, refusal};

fn denied(status: u16, code: &str) -> (u16, &str) {
    (status, code)
}

macro_rules! assert_refused {
    ($response:expr, $status:expr, $code:expr) => {{
        let (status, code, body) = refusal($response).await;
        assert_eq!((status, code.as_str()), denied($status, $code), "{body}");
        body
    }};
}

#[tokio::test]
async fn a_contributor_writes_reads_lists_leases_and_deletes() {
    let landscape = Landscape::with_role(Some(Role::Contributor)).await;
    let token = landscape.access_token().await;
    assert_eq!(landscape.put("a/b c.txt", "hello", &token).await.status(), 201);
    let read = landscape.get("a/b c.txt", &token).await;
    assert_eq!(read.headers()["content-length"], "5");
    assert!(read.headers().contains_key("x-ms-request-id"));
    assert_eq!(read.text().await.unwrap(), "hello");
    let part = landscape.storage(Method::GET, "/a/b c.txt", &token).header("range", "bytes=1-2").send().await.unwrap();
    assert_eq!((part.status().as_u16(), part.text().await.unwrap().as_str()), (206, "el"));
    let head = landscape.storage(Method::HEAD, "/a/b c.txt", &token).send().await.unwrap();
    assert_eq!((head.status().as_u16(), head.headers()["content-length"].to_str().unwrap()), (200, "5"));
    let list = landscape.storage(Method::GET, "?restype=container&comp=list&prefix=a/", &token).send().await.unwrap();
    assert!(list.text().await.unwrap().contains("<Name>a/b c.txt</Name>"));
    let lease = landscape.storage(Method::PUT, "/a/b c.txt?comp=lease", &token);
    let lease = lease.header("x-ms-lease-action", "acquire").header("x-ms-lease-duration", "15");
    assert_eq!(lease.header("content-length", "0").send().await.unwrap().status(), 201);
    assert_refused!(landscape.delete("a/b c.txt", &token).await, 412, "LeaseIdMissing");
    let release = landscape.storage(Method::PUT, "/a/b c.txt?comp=lease", &token);
    let release = release.header("x-ms-lease-action", "break").header("x-ms-lease-break-period", "0");
    assert_eq!(release.header("content-length", "0").send().await.unwrap().status(), 202);
    assert_eq!(landscape.delete("a/b c.txt", &token).await.status(), 202);
    assert_refused!(landscape.get("a/b c.txt", &token).await, 404, "BlobNotFound");
}

#[tokio::test]
async fn create_only_writes_and_empty_blobs_pass_through_with_azures_own_answers() {
    let landscape = Landscape::with_role(Some(Role::Contributor)).await;
    let token = landscape.access_token().await;
    assert_eq!(landscape.create("once", "", &token).await.status(), 201);
    assert_refused!(landscape.create("once", "again", &token).await, 409, "BlobAlreadyExists");
    assert_eq!(landscape.get("once", &token).await.text().await.unwrap(), "");
    let endless = reqwest::Body::wrap_stream(futures::stream::iter([Ok::<_, std::io::Error>("no length")]));
    let endless = landscape.storage(Method::PUT, "/b", &token).header("x-ms-blob-type", "BlockBlob").body(endless);
    assert_refused!(endless.send().await.unwrap(), 411, "MissingContentLengthHeader");
}

#[tokio::test]
async fn a_large_blob_passes_whole_both_ways_in_one_request() {
    const MIB: usize = 1024 * 1024;
    let landscape = Landscape::with_role(Some(Role::Contributor)).await;
    let token = landscape.access_token().await;
    let chunk = |number: u8| bytes::Bytes::from(vec![number; MIB]);
    let sent = futures::stream::iter((0..64).map(move |number| Ok::<_, std::io::Error>(chunk(number))));
    let put = landscape.storage(Method::PUT, "/large", &token).header("x-ms-blob-type", "BlockBlob");
    let put = put.header("content-length", 64 * MIB).body(reqwest::Body::wrap_stream(sent)).send().await.unwrap();
    assert_eq!(put.status(), 201);
    let mut response = landscape.get("large", &token).await;
    let mut offset = 0;
    while let Some(bytes) = response.chunk().await.unwrap() {
        let expected = (offset..offset + bytes.len()).map(|at| (at / MIB) as u8);
        assert!(bytes.iter().copied().eq(expected), "bytes changed behind offset {offset}");
        offset += bytes.len();
    }
    assert_eq!(offset, 64 * MIB);
    landscape.admin.delete_blob(&landscape.container, "large").await.unwrap();
}

#[tokio::test]
async fn a_reader_reads_and_lists_and_is_refused_every_change() {
    let landscape = Landscape::with_role(Some(Role::Reader)).await;
    let token = landscape.access_token().await;
    landscape.admin.put_blob(&landscape.container, "b", "content").await.unwrap();
    assert_eq!(landscape.get("b", &token).await.text().await.unwrap(), "content");
    let list = landscape.storage(Method::GET, "?restype=container&comp=list", &token).send().await.unwrap();
    assert_eq!(list.status(), 200);
    assert_refused!(landscape.put("b", "x", &token).await, 403, "AuthorizationPermissionMismatch");
    assert_refused!(landscape.delete("b", &token).await, 403, "AuthorizationPermissionMismatch");
    assert_eq!(landscape.get("b", &token).await.text().await.unwrap(), "content");
}

#[tokio::test]
async fn without_a_role_nothing_is_told_about_a_container_not_even_whether_it_exists() {
    let mut landscape = Landscape::with_role(None).await;
    let token = landscape.access_token().await;
    let body = assert_refused!(landscape.get("b", &token).await, 403, "AuthorizationPermissionMismatch");
    assert!(body.contains("This request is not authorized to perform this operation using this permission."));
    let existing = std::mem::replace(&mut landscape.container, "no-such-container".to_owned());
    assert_refused!(landscape.get("b", &token).await, 403, "AuthorizationPermissionMismatch");
    landscape.admin.put_role_assignment(CLIENT, "no-such-container", Role::Contributor).await.unwrap();
    assert_refused!(landscape.put("b", "x", &token).await, 404, "ContainerNotFound");
    // Dots do not lead from a container with a role into one without.
    let around = format!("/../{existing}/b");
    let around = landscape.storage(Method::GET, &around, &token).send().await.unwrap();
    assert_refused!(around, 403, "AuthorizationPermissionMismatch");
}

#[tokio::test]
async fn a_role_on_the_account_counts_everywhere_and_ends_when_it_is_taken_away() {
    let landscape = Landscape::with_role(None).await;
    let token = landscape.access_token().await;
    landscape.admin.put_role_assignment(CLIENT, WHOLE_ACCOUNT, Role::Contributor).await.unwrap();
    assert_eq!(landscape.put("b", "x", &token).await.status(), 201);
    let made =
        landscape.http.put(format!("{}/{ACCOUNT}/{}x?restype=container", landscape.origin(), landscape.container));
    let made = made.bearer_auth(&token).header("x-ms-version", "2026-04-06").header("content-length", "0");
    assert_eq!(made.send().await.unwrap().status(), 201);
    landscape.admin.delete_role_assignment(CLIENT, WHOLE_ACCOUNT).await.unwrap();
    assert_refused!(landscape.get("b", &token).await, 403, "AuthorizationPermissionMismatch");
}

#[tokio::test]
async fn a_request_without_a_good_token_is_challenged_in_azures_words() {
    let landscape = Landscape::with_role(Some(Role::Contributor)).await;
    let url = format!("{}/{ACCOUNT}/{}/b", landscape.origin(), landscape.container);
    let bare = landscape.http.get(&url).send().await.unwrap();
    let challenge = bare.headers()["www-authenticate"].to_str().unwrap().to_owned();
    assert!(challenge.starts_with("Bearer authorization_uri=") && challenge.contains("resource_id="), "{challenge}");
    assert_refused!(bare, 401, "NoAuthenticationInformation");
    let forged = landscape.get("b", "e30.e30.e30").await;
    assert!(forged.headers().contains_key("www-authenticate"));
    assert_refused!(forged, 401, "InvalidAuthenticationInfo");
    let signed = landscape.issuer.token();
    let foreign = assert_refused!(landscape.get("b", &signed).await, 401, "InvalidAuthenticationInfo");
    assert!(foreign.contains("<AuthenticationErrorDetail>Signature validation failed."), "{foreign}");
    let shared_key = landscape.http.get(&url).header("authorization", "SharedKey emulated:AAAA").send().await.unwrap();
    assert_refused!(shared_key, 403, "KeyBasedAuthenticationNotPermitted");
    let signature = landscape.http.get(format!("{url}?sv=2022-11-02&sig=AAAA")).send().await.unwrap();
    assert_refused!(signature, 403, "KeyBasedAuthenticationNotPermitted");
}

#[tokio::test]
async fn an_expired_token_and_a_revoked_one_no_longer_count() {
    let landscape = Landscape::with_role(Some(Role::Contributor)).await;
    landscape.admin.put_settings(Settings { access_token_seconds: 0 }).await.unwrap();
    let expired = landscape.access_token().await;
    let body = assert_refused!(landscape.get("b", &expired).await, 401, "InvalidAuthenticationInfo");
    assert!(body.contains("The token is expired"), "{body}");

    landscape.admin.put_settings(Settings { access_token_seconds: 3600 }).await.unwrap();
    let token = landscape.access_token().await;
    assert_eq!(landscape.put("b", "x", &token).await.status(), 201);
    landscape.admin.revoke_tokens().await.unwrap();
    assert_refused!(landscape.get("b", &token).await, 401, "InvalidAuthenticationInfo");
    let fresh = landscape.access_token().await;
    assert_eq!(landscape.get("b", &fresh).await.status(), 200);
}

#[tokio::test]
async fn copies_batches_and_tags_are_not_let_through_even_for_a_contributor() {
    let landscape = Landscape::with_role(Some(Role::Contributor)).await;
    let token = landscape.access_token().await;
    let source = format!("{}/{ACCOUNT}/other/secret", landscape.origin());
    let copy = landscape.storage(Method::PUT, "/b", &token).header("x-ms-copy-source", source);
    assert_refused!(copy.header("content-length", "0").send().await.unwrap(), 501, "NotImplemented");
    let batch =
        landscape.storage(Method::POST, "?restype=container&comp=batch", &token).body("x").send().await.unwrap();
    assert_refused!(batch, 501, "NotImplemented");
}

#[tokio::test]
async fn requests_are_counted_by_operation_client_container_and_status() {
    let landscape = Landscape::with_role(Some(Role::Reader)).await;
    let token = landscape.access_token().await;
    landscape.get("missing", &token).await;
    landscape.get("missing", &token).await;
    landscape.put("b", "x", &token).await;
    let summary = landscape.admin.requests().await.unwrap();
    let key = |status| {
        let (container, client) = (landscape.container.clone(), CLIENT.to_owned());
        move |key: &RequestKey| key.status == status && key.container == container && key.client_id == client
    };
    assert_eq!((summary.count(key(404)), summary.count(key(403)), summary.others), (2, 1, 0));
}
