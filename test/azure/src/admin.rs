//! The admin interface: JSON over plain HTTP on loopback, for tests and for the landscape.

use std::fmt::Display;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::azurite::AzuriteError;
use crate::causes::with_causes;
use crate::emulator::Shared;
use crate::faults::{Fault, FaultError, FaultStatus};
use crate::model::{
    Configuration, FederatedCredential, Identity, IdentitySpec, ImmutabilityPolicy, MAX_FEDERATED_CREDENTIALS,
    RoleAssignment, Settings,
};
use crate::requests::RequestSummary;
use crate::store::StoreError;

/// Blobs on a page of a listing.
const PAGE: usize = 1000;
/// Azure's own bound for a retention.
const MAX_DAYS: u32 = 146_000;

/// A blob in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobEntry {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
}

/// A page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlobPage {
    /// Blobs in the order of their names.
    pub blobs: Vec<BlobEntry>,
    /// Where the next page begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_marker: Option<String>,
}

/// The answer to a new fault rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultAdded {
    /// Its id in the list of rules.
    pub id: u64,
}

/// A refusal, as Azure Resource Manager words it: `{"error":{"code":…,"message":…}}`.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Refusal {
    fn bad_request(message: impl Display) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: "BadRequest", message: message.to_string() }
    }

    fn not_found(message: impl Display) -> Self {
        Self { status: StatusCode::NOT_FOUND, code: "NotFound", message: message.to_string() }
    }

    fn no_identity(client_id: &str) -> Self {
        Self::not_found(format!("identity '{client_id}' is not there: put /identities/{client_id} first"))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(json!({"error": {"code": self.code, "message": self.message}}))).into_response()
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, code: "InternalError", message: error.to_string() }
    }
}

impl From<AzuriteError> for Refusal {
    fn from(error: AzuriteError) -> Self {
        let status = match &error {
            AzuriteError::Refused { status, .. } => *status,
            AzuriteError::Unreachable { .. } | AzuriteError::Answer { .. } => StatusCode::BAD_GATEWAY,
        };
        Self { status, code: "Azurite", message: with_causes(&error) }
    }
}

impl From<FaultError> for Refusal {
    fn from(error: FaultError) -> Self {
        Self::bad_request(error)
    }
}

type Emulated = State<Arc<Shared>>;
type Answer<T> = Result<T, Refusal>;

/// All routes.
pub fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/identities/{client_id}", get(get_identity).put(put_identity))
        .route("/identities/{client_id}/federatedCredentials/{name}", put(put_credential).delete(delete_credential))
        .route("/roleAssignments/{client_id}/{container}", put(put_role).delete(delete_role))
        .route("/containers/{container}", put(put_container))
        .route("/containers/{container}/immutability", put(put_immutability).delete(delete_immutability))
        .route("/settings", get(get_settings).put(put_settings))
        .route("/tokens/revoke", post(revoke_tokens))
        .route("/faults", get(list_faults).post(add_fault).delete(clear_faults))
        .route("/requests", get(requests))
        .route("/blobs/{container}", get(list_blobs))
        .route("/blobs/{container}/{*blob}", get(get_blob).put(put_blob).delete(delete_blob))
        // Blobs stream through; everything else is read as JSON, which tests keep small.
        .layer(DefaultBodyLimit::disable())
        .with_state(shared)
}

/// Changes the configuration and puts a refusal of the change before one of the disk.
async fn change<T>(shared: &Shared, change: impl FnOnce(&mut Configuration) -> Answer<T>) -> Answer<T> {
    shared.store.change(change).await?
}

async fn get_identity(State(shared): Emulated, Path(client_id): Path<String>) -> Answer<Json<Identity>> {
    let configuration = shared.store.snapshot();
    let identity = configuration.identities.get(&client_id).cloned();
    identity.map(Json).ok_or_else(|| Refusal::no_identity(&client_id))
}

async fn put_identity(
    State(shared): Emulated,
    Path(client_id): Path<String>,
    Json(spec): Json<IdentitySpec>,
) -> Answer<Json<Identity>> {
    change(&shared, |configuration| {
        let identity = configuration.identities.entry(client_id).or_insert_with(|| Identity {
            tenant_id: String::new(),
            name: String::new(),
            object_id: uuid::Uuid::new_v4().to_string(),
            federated_credentials: std::collections::BTreeMap::new(),
            roles: std::collections::BTreeMap::new(),
        });
        identity.tenant_id = spec.tenant_id;
        identity.name = spec.name;
        Ok(Json(identity.clone()))
    })
    .await
}

fn identity<'a>(configuration: &'a mut Configuration, client_id: &str) -> Answer<&'a mut Identity> {
    configuration.identities.get_mut(client_id).ok_or_else(|| Refusal::no_identity(client_id))
}

async fn put_credential(
    State(shared): Emulated,
    Path((client_id, name)): Path<(String, String)>,
    Json(credential): Json<FederatedCredential>,
) -> Answer<Json<FederatedCredential>> {
    change(&shared, |configuration| {
        let identity = identity(configuration, &client_id)?;
        check_credential(identity, &client_id, &name, &credential)?;
        identity.federated_credentials.insert(name, credential.clone());
        Ok(Json(credential))
    })
    .await
}

/// Entra ID's rules for a new or changed credential.
fn check_credential(identity: &Identity, client_id: &str, name: &str, credential: &FederatedCredential) -> Answer<()> {
    let well_formed = |character: char| character.is_ascii_alphanumeric() || character == '-' || character == '_';
    let starts = name.starts_with(|first: char| first.is_ascii_alphanumeric());
    if !(3..=120).contains(&name.len()) || !starts || !name.chars().all(well_formed) {
        return Err(Refusal::bad_request(format!(
            "The federated identity credential name '{name}' must be 3 to 120 letters, digits, '-' or '_', and begin \
             with a letter or digit."
        )));
    }
    let https = url::Url::parse(&credential.issuer).is_ok_and(|url| url.scheme() == "https");
    if !https || credential.issuer.len() > 600 {
        return Err(Refusal::bad_request(format!("The issuer '{}' must be an https URL.", credential.issuer)));
    }
    if credential.subject.is_empty() || credential.audiences.len() != 1 {
        return Err(Refusal::bad_request("A subject and exactly one audience are required."));
    }
    let others = identity.federated_credentials.iter().filter(|(other, _)| *other != name);
    if others.clone().any(|(_, other)| other.issuer == credential.issuer && other.subject == credential.subject) {
        return Err(Refusal {
            status: StatusCode::CONFLICT,
            code: "Conflict",
            message: "Issuer and subject combination already exists for this Managed Identity.".to_owned(),
        });
    }
    if others.count() >= MAX_FEDERATED_CREDENTIALS {
        return Err(Refusal::bad_request(format!(
            "Too many Federated Identity Credentials are configured on Managed Identity '{client_id}'. No more than \
             {MAX_FEDERATED_CREDENTIALS} federated identity credentials are allowed."
        )));
    }
    Ok(())
}

async fn delete_credential(
    State(shared): Emulated,
    Path((client_id, name)): Path<(String, String)>,
) -> Answer<StatusCode> {
    change(&shared, |configuration| {
        identity(configuration, &client_id)?.federated_credentials.remove(&name);
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

async fn put_role(
    State(shared): Emulated,
    Path((client_id, container)): Path<(String, String)>,
    Json(assignment): Json<RoleAssignment>,
) -> Answer<Json<RoleAssignment>> {
    change(&shared, |configuration| {
        identity(configuration, &client_id)?.roles.insert(container, assignment.role);
        Ok(Json(assignment))
    })
    .await
}

async fn delete_role(
    State(shared): Emulated,
    Path((client_id, container)): Path<(String, String)>,
) -> Answer<StatusCode> {
    change(&shared, |configuration| {
        identity(configuration, &client_id)?.roles.remove(&container);
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

async fn put_container(State(shared): Emulated, Path(container): Path<String>) -> Answer<StatusCode> {
    shared.azurite.create_container(&container).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn put_immutability(
    State(shared): Emulated,
    Path(container): Path<String>,
    Json(policy): Json<ImmutabilityPolicy>,
) -> Answer<Json<ImmutabilityPolicy>> {
    change(&shared, |configuration| {
        if !(1..=MAX_DAYS).contains(&policy.days) {
            return Err(Refusal::bad_request(format!("A retention is 1 to {MAX_DAYS} days, not {}.", policy.days)));
        }
        configuration.immutability.insert(container, policy);
        Ok(Json(policy))
    })
    .await
}

async fn delete_immutability(State(shared): Emulated, Path(container): Path<String>) -> Answer<StatusCode> {
    change(&shared, |configuration| {
        configuration.immutability.remove(&container);
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

async fn get_settings(State(shared): Emulated) -> Json<Settings> {
    Json(shared.store.snapshot().settings)
}

async fn put_settings(State(shared): Emulated, Json(settings): Json<Settings>) -> Answer<Json<Settings>> {
    change(&shared, |configuration| {
        configuration.settings = settings;
        Ok(Json(settings))
    })
    .await
}

async fn revoke_tokens(State(shared): Emulated) -> Answer<StatusCode> {
    change(&shared, |configuration| {
        configuration.token_generation += 1;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

async fn list_faults(State(shared): Emulated) -> Json<Vec<FaultStatus>> {
    Json(shared.faults.list())
}

async fn add_fault(State(shared): Emulated, Json(fault): Json<Fault>) -> Answer<Json<FaultAdded>> {
    Ok(Json(FaultAdded { id: shared.faults.add(fault)? }))
}

async fn clear_faults(State(shared): Emulated) -> StatusCode {
    shared.faults.clear();
    StatusCode::NO_CONTENT
}

async fn requests(State(shared): Emulated) -> Json<RequestSummary> {
    Json(shared.requests.summary())
}

#[derive(Deserialize)]
struct Listing {
    #[serde(default)]
    prefix: String,
    marker: Option<String>,
}

async fn list_blobs(
    State(shared): Emulated,
    Path(container): Path<String>,
    Query(listing): Query<Listing>,
) -> Answer<Json<BlobPage>> {
    let page = shared.azurite.list(&container, &listing.prefix, listing.marker.as_deref(), PAGE).await?;
    let blobs = page.blobs.into_iter().map(|blob| BlobEntry { name: blob.name, size: blob.size }).collect();
    Ok(Json(BlobPage { blobs, next_marker: page.next }))
}

async fn get_blob(State(shared): Emulated, Path((container, blob)): Path<(String, String)>) -> Answer<Response> {
    Ok(shared.azurite.get(&container, &blob).await?)
}

async fn put_blob(
    State(shared): Emulated,
    Path((container, blob)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Answer<StatusCode> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let length = length.ok_or_else(|| Refusal::bad_request("Content-Length is required."))?;
    shared.azurite.put(&container, &blob, length, body).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn delete_blob(State(shared): Emulated, Path((container, blob)): Path<(String, String)>) -> Answer<StatusCode> {
    shared.azurite.delete(&container, &blob).await?;
    Ok(StatusCode::NO_CONTENT)
}
