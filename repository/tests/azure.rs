//! The Azure store: what it sends, what it makes of answers, what it repeats.

#![allow(clippy::unwrap_used, reason = "outside of test functions the lint does not see that this is a test")]

#[path = "support/azure.rs"]
mod service;
mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::TryStreamExt;
use service::{Fault, Service};
use shoot_backup_repository::{AzureStore, BlobStore, Metadata, Repository, Scoped, StoreErrorKind, Verb, VerbOutcome};
use support::{PASSWORD, info, noise};

#[tokio::test]
async fn blobs_are_created_once_read_listed_page_by_page_and_deleted() {
    let service = Service::start().await;
    let store = service.store();
    for name in ["x/a b", "x/c", "x/d", "x/e", "y"] {
        store.create(name, Bytes::from(format!("content of {name}"))).await.unwrap();
    }
    assert!(service.state.blobs.lock().unwrap().contains_key("team/a/x/a b"), "below the prefix");
    let again = store.create("y", "other".into()).await.unwrap_err();
    assert_eq!((again.kind(), again.code()), (StoreErrorKind::AlreadyExists, Some("BlobAlreadyExists")));
    assert_eq!(store.read("x/a b").await.unwrap(), "content of x/a b");
    assert_eq!(store.read_range("y", 8, 4).await.unwrap(), "of y");
    assert_eq!(store.read_range("y", 8, 40).await.unwrap_err().kind(), StoreErrorKind::Corrupt);
    assert_eq!(store.read_range("y", 800, 4).await.unwrap_err().kind(), StoreErrorKind::Corrupt);
    let listed: Vec<_> = store.list("x/").try_collect().await.unwrap();
    let names: Vec<_> = listed.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(names, ["x/a b", "x/c", "x/d", "x/e"]);
    assert_eq!(listed[0].size, 16);
    assert_eq!(listed[0].modified, Some("2025-01-01T00:00:00Z".parse().unwrap()));
    store.delete("y").await.unwrap();
    assert_eq!(store.read("y").await.unwrap_err().kind(), StoreErrorKind::NotFound);
    assert_eq!(store.delete("y").await.unwrap_err().kind(), StoreErrorKind::NotFound);
    assert_eq!(service.count("token"), 1, "one token serves all calls");
}

#[tokio::test]
async fn a_pack_goes_up_and_comes_down_in_one_request_and_an_empty_blob_is_one_too() {
    let service = Service::start().await;
    let store = service.store();
    let data = Bytes::from(noise(1, 20 << 20));
    store.create("pack", data.clone()).await.unwrap();
    assert_eq!(store.read("pack").await.unwrap(), data);
    assert_eq!((service.count("put"), service.count("get")), (1, 1));
    store.create("empty", Bytes::new()).await.unwrap();
    assert_eq!(store.read("empty").await.unwrap(), Bytes::new());
}

#[tokio::test]
async fn passing_failures_are_tried_again() {
    let service = Service::start().await;
    let store = service.store();
    service.fail("put", [Fault::Status(503, "ServerBusy"), Fault::Status(500, "InternalError")]);
    store.create("x", "content".into()).await.unwrap();
    service.fail("get", [Fault::Truncate, Fault::LoseAnswer, Fault::Status(429, "TooManyRequests")]);
    assert_eq!(store.read("x").await.unwrap(), "content");
    service.fail("list", [Fault::Truncate]);
    assert_eq!(store.list("").try_collect::<Vec<_>>().await.unwrap().len(), 1);
    service.fail("delete", [Fault::LoseAnswer]);
    store.delete("x").await.unwrap();
    service.fail("token", [Fault::Status(503, "")]);
    assert_eq!(service.store().read("x").await.unwrap_err().kind(), StoreErrorKind::NotFound);
}

#[tokio::test]
async fn a_create_whose_answer_was_lost_has_worked() {
    let service = Service::start().await;
    let store = service.store();
    service.fail("put", [Fault::LoseAnswer]);
    store.create("x", "content".into()).await.unwrap();
    assert_eq!(service.count("put"), 2);
}

#[tokio::test]
async fn a_create_whose_answer_was_lost_but_that_another_overtook_has_not_worked() {
    let service = Service::start().await;
    let store = service.store();
    service.state.blobs.lock().unwrap().insert("team/a/x".to_owned(), "another's".into());
    service.fail("put", [Fault::Status(500, "InternalError")]);
    let error = store.create("x", "content".into()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::AlreadyExists);
}

#[tokio::test]
async fn a_create_that_a_write_once_policy_refuses_has_met_what_is_there() {
    const REFUSED: Fault = Fault::Status(409, "BlobImmutableDueToPolicy");
    let service = Service::start().await;
    let store = service.store();
    service.fail("put", [Fault::LoseAnswer, REFUSED]);
    store.create("x", "content".into()).await.unwrap();
    service.fail("put", [REFUSED]);
    let error = store.create("x", "content".into()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::AlreadyExists);
    service.fail("put", [Fault::LoseAnswer, REFUSED]);
    service.state.blobs.lock().unwrap().insert("team/a/y".to_owned(), "another's".into());
    let error = store.create("y", "content".into()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::AlreadyExists);
    // Where nothing is, the policy refuses the creation itself.
    service.fail("put", [REFUSED]);
    let error = store.create("z", "content".into()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Immutable);
}

#[tokio::test]
async fn what_will_not_change_is_not_tried_again() {
    let service = Service::start().await;
    service.fail("put", [Fault::Status(403, "AuthorizationPermissionMismatch")]);
    let error = service.store().create("x", Bytes::new()).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (StoreErrorKind::Forbidden, Some("AuthorizationPermissionMismatch")));
    assert_eq!(error.to_string(), "failed to create x: It is AuthorizationPermissionMismatch.");
    assert_eq!(service.count("put"), 1);
}

#[tokio::test]
async fn a_refused_token_is_replaced_by_a_fresh_one_once() {
    let service = Service::start().await;
    let store = service.store();
    store.create("x", "content".into()).await.unwrap();
    service.revoke_tokens();
    assert_eq!(store.read("x").await.unwrap(), "content");
    assert_eq!(service.count("token"), 2);

    service.fail("get", [Fault::Status(401, "InvalidAuthenticationInfo"); 9]);
    let error = store.read("x").await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unauthenticated);
    assert_eq!(service.count("token"), 3, "one more, not nine");
}

#[tokio::test]
async fn entras_own_words_reach_the_caller() {
    let service = Service::start().await;
    let body = r#"{"error":"invalid_client","error_description":"AADSTS70021: No matching federated identity record found for presented assertion.\r\nTrace ID: 0","error_codes":[70021]}"#;
    *service.state.entra_error.lock().unwrap() = Some((401, body.to_owned()));
    let error = service.store().read("x").await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (StoreErrorKind::Unauthenticated, Some("AADSTS70021")));
    assert!(error.to_string().contains("No matching federated identity record"), "{error}");
    assert_eq!(service.count("token"), 1);
    assert_eq!(service.count("get"), 0);
}

#[tokio::test]
async fn an_outdated_token_of_the_pod_is_read_again_once() {
    let service = Service::start().await;
    let body = r#"{"error":"invalid_client","error_description":"AADSTS700024: Client assertion is not within its valid time range."}"#;
    *service.state.entra_error.lock().unwrap() = Some((401, body.to_owned()));
    let store = service.store();
    assert_eq!(store.read("x").await.unwrap_err().code(), Some("AADSTS700024"));
    assert_eq!(service.count("token"), 2);
    // Once the file is good the same store works: no refusal is remembered.
    *service.state.entra_error.lock().unwrap() = None;
    store.create("x", "content".into()).await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_said_at_once_with_what_to_do() {
    let service = Service::start().await;
    let options = shoot_backup_repository::AzureOptions { extra_ca_pem: None, ..service.options() };
    let error = AzureStore::new(options).unwrap().read("x").await.unwrap_err();
    assert!(!error.is_retryable());
    assert!(error.to_string().contains("add the certificate authority"), "{error}");
}

#[tokio::test]
async fn a_missing_token_file_is_named() {
    let service = Service::start().await;
    std::fs::remove_file(service.token_file()).unwrap();
    let error = service.store().read("x").await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unauthenticated);
    assert!(error.to_string().contains(service.token_file().to_str().unwrap()), "{error}");
}

fn verbs(outcomes: &[VerbOutcome], keep: impl Fn(&VerbOutcome) -> bool) -> Vec<Verb> {
    outcomes.iter().filter(|outcome| keep(outcome)).map(|outcome| outcome.verb).collect()
}

#[tokio::test]
async fn a_probe_tries_every_verb_and_leaves_nothing() {
    let service = Service::start().await;
    let outcomes = service.store().probe("canary").await;
    assert_eq!(verbs(&outcomes, VerbOutcome::worked), Verb::ALL, "{outcomes:?}");
    assert!(service.state.blobs.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_probe_works_in_a_write_once_container_again_and_again() {
    let service = Service::start().await;
    service.state.immutable.store(true, Ordering::SeqCst);
    for canaries in [1, 2] {
        let outcomes = service.store().probe("canary").await;
        assert_eq!(verbs(&outcomes, VerbOutcome::worked), Verb::ALL, "{outcomes:?}");
        assert!(outcomes[6].note.as_deref().unwrap().contains("write-once"));
        assert_eq!(service.state.blobs.lock().unwrap().len(), canaries);
    }
}

#[tokio::test]
async fn a_probe_says_which_verb_is_refused_and_skips_what_depends_on_it() {
    let service = Service::start().await;
    service.fail("put", [Fault::Status(403, "AuthorizationPermissionMismatch")]);
    service.fail("list", [Fault::Status(403, "AuthorizationFailure")]);
    let outcomes = service.store().probe("canary").await;
    assert_eq!(verbs(&outcomes, |outcome| outcome.error.is_some()), [Verb::List, Verb::Put]);
    assert_eq!(
        verbs(&outcomes, |outcome| outcome.skipped),
        [Verb::ConditionalPut, Verb::Get, Verb::Lease, Verb::Delete]
    );

    *service.state.entra_error.lock().unwrap() =
        Some((400, r#"{"error_description":"AADSTS90002: no tenant"}"#.to_owned()));
    let outcomes = service.store().probe("canary").await;
    assert_eq!(outcomes[0].error.as_ref().unwrap().code(), Some("AADSTS90002"));
    assert_eq!(verbs(&outcomes, |outcome| outcome.skipped), Verb::ALL[1..]);
}

#[tokio::test]
async fn a_repository_lives_on_a_service_that_fails_now_and_then() {
    let service = Service::start().await;
    let store: Arc<dyn BlobStore> = Arc::new(service.store());
    let place = Arc::new(Scoped::new(store, "clusters/1/repository"));
    service.fail("put", [Fault::LoseAnswer, Fault::Status(503, "ServerBusy")]);
    let repository = Repository::open_or_init(place, PASSWORD).await.unwrap();
    service.fail("put", [Fault::Status(500, "OperationTimedOut"), Fault::LoseAnswer, Fault::LoseAnswer]);
    let data = noise(2, 40 << 20);
    let mut writer = repository.writer().await.unwrap();
    writer.add_file("large", Metadata::synthetic(0o600), data.as_slice()).await.unwrap();
    let snapshot = writer.finish(info("/x")).await.unwrap().snapshot;
    service.fail("get", [Fault::LoseAnswer, Fault::Truncate, Fault::Status(503, "ServerBusy")]);
    service.revoke_tokens();
    let reader = repository.reader().await.unwrap();
    let node = reader.find(&snapshot, "large").await.unwrap();
    assert_eq!(reader.read_file(&node, 64 << 20).await.unwrap(), data);
}
