//! Faults on demand, as a client sees them.

use std::time::{Duration, Instant};

use reqwest::Method;
use shoot_backup_azure_emulator::{Fault, FaultKind, Operation, Role};

use crate::landscape::{CLIENT, Landscape, TENANT, refusal};

async fn landscape() -> (Landscape, String) {
    let landscape = Landscape::with_role(Some(Role::Contributor)).await;
    let token = landscape.access_token().await;
    (landscape, token)
}

async fn try_put(landscape: &Landscape, blob: &str, token: &str) -> reqwest::Result<reqwest::Response> {
    let request = landscape.storage(Method::PUT, &format!("/{blob}"), token);
    request.header("x-ms-blob-type", "BlockBlob").body("content").send().await
}

#[tokio::test]
async fn busy_internal_error_and_throttling_answer_before_anything_is_done() {
    let (landscape, token) = landscape().await;
    let cases = [
        (FaultKind::ServerBusy { retry_after_seconds: 3 }, 503, "ServerBusy", Some("3")),
        (FaultKind::InternalError, 500, "InternalError", None),
        (FaultKind::TooManyRequests { retry_after_seconds: 2 }, 429, "TooManyRequests", Some("2")),
    ];
    for (kind, status, code, retry_after) in cases {
        landscape.admin.add_fault(&Fault::new(kind).on(Operation::PutBlob)).await.unwrap();
        let response = landscape.put("b", "x", &token).await;
        let header = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(header.as_deref(), retry_after);
        let refused = refusal(response).await;
        assert_eq!((refused.0, refused.1.as_str()), (status, code));
        assert!(landscape.admin.blobs(&landscape.container, "").await.unwrap().is_empty());
    }
    assert_eq!(landscape.put("b", "x", &token).await.status(), 201);
}

#[tokio::test]
async fn a_reset_cuts_the_connection_with_nothing_done() {
    let (landscape, token) = landscape().await;
    landscape.admin.add_fault(&Fault::new(FaultKind::Reset).verb("PUT").path_contains("/b")).await.unwrap();
    assert!(try_put(&landscape, "b", &token).await.is_err());
    assert!(landscape.admin.blobs(&landscape.container, "").await.unwrap().is_empty());
    assert_eq!(try_put(&landscape, "b", &token).await.unwrap().status(), 201);
}

#[tokio::test]
async fn a_reset_afterwards_leaves_the_work_done_and_the_client_in_doubt() {
    let (landscape, token) = landscape().await;
    landscape.admin.add_fault(&Fault::new(FaultKind::ResetAfter).on(Operation::PutBlob)).await.unwrap();
    assert!(try_put(&landscape, "b", &token).await.is_err());
    let blobs = landscape.admin.blobs(&landscape.container, "").await.unwrap();
    assert_eq!((blobs[0].name.as_str(), blobs[0].size), ("b", 7));
    let requests = landscape.admin.requests().await.unwrap();
    assert_eq!(requests.count(|key| key.operation == Operation::PutBlob && key.status == 0), 1);
}

#[tokio::test]
async fn a_truncated_body_ends_in_the_middle_under_its_full_length() {
    let (landscape, token) = landscape().await;
    landscape.put("b", "0123456789", &token).await;
    landscape.admin.add_fault(&Fault::new(FaultKind::Truncate).on(Operation::GetBlob)).await.unwrap();
    let mut response = landscape.get("b", &token).await;
    assert_eq!(response.headers()["content-length"], "10");
    let mut arrived = Vec::new();
    let broken = loop {
        match response.chunk().await {
            Ok(Some(chunk)) => arrived.extend_from_slice(&chunk),
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(broken, "the end of the body was not noticed: {arrived:?}");
    assert_eq!(arrived, b"01234");
    assert_eq!(landscape.get("b", &token).await.text().await.unwrap(), "0123456789");
}

#[tokio::test]
async fn a_truncated_listing_is_noticed_too() {
    let (landscape, token) = landscape().await;
    landscape.put("b", "x", &token).await;
    landscape.admin.add_fault(&Fault::new(FaultKind::Truncate).on(Operation::ListBlobs)).await.unwrap();
    let list = landscape.storage(Method::GET, "?restype=container&comp=list", &token).send().await.unwrap();
    assert_eq!(list.status(), 200);
    assert!(list.text().await.is_err());
}

#[tokio::test]
async fn a_delay_holds_the_request_and_then_does_it() {
    let (landscape, token) = landscape().await;
    landscape.admin.add_fault(&Fault::new(FaultKind::Delay { milliseconds: 300 })).await.unwrap();
    let begun = Instant::now();
    assert_eq!(landscape.put("b", "x", &token).await.status(), 201);
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn rules_skip_count_and_tell_how_often_they_hit() {
    let (landscape, token) = landscape().await;
    let rule = Fault::new(FaultKind::InternalError).on(Operation::GetBlobProperties).path_regex("/x[0-9]$");
    let id = landscape.admin.add_fault(&rule.after(1).times(2)).await.unwrap();
    let mut statuses = Vec::new();
    for blob in ["x1", "y", "x2", "x3", "x4"] {
        let head = landscape.storage(Method::HEAD, &format!("/{blob}"), &token).send().await.unwrap();
        statuses.push(head.status().as_u16());
    }
    assert_eq!(statuses, [404, 404, 500, 500, 404]);
    let faults = landscape.admin.faults().await.unwrap();
    assert_eq!((faults[0].id, faults[0].matched, faults[0].hit), (id, 4, 2));
    landscape.admin.clear_faults().await.unwrap();
    assert!(landscape.admin.faults().await.unwrap().is_empty());
}

#[tokio::test]
async fn the_token_endpoint_fails_on_demand_in_its_own_words() {
    let (landscape, _) = landscape().await;
    let busy = Fault::new(FaultKind::ServerBusy { retry_after_seconds: 1 }).on(Operation::Token);
    landscape.admin.add_fault(&busy).await.unwrap();
    let (status, answer) = landscape.exchange(TENANT, CLIENT, &landscape.issuer.token()).await;
    assert_eq!((status.as_u16(), &answer["error"]), (503, &"temporarily_unavailable".into()));
    landscape.access_token().await;
}
