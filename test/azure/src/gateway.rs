//! The blob gateway: who is it, may it, is it retained, then on to Azurite.

use std::sync::Arc;

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use jiff::Timestamp;
use url::Url;

use crate::azurite::{Azurite, AzuriteError};
use crate::causes::with_causes;
use crate::immutability::{Guard, guard, retained};
use crate::model::{Configuration, ImmutabilityPolicy};
use crate::operation::{Operation, Target};
use crate::signing::{AccessClaims, SigningKey};
use crate::storage_error::StorageError;

/// The tenant named in challenges while no identity is configured.
const NO_TENANT: &str = "common";

/// What the gateway answered, and whom.
pub struct GatewayAnswer {
    /// The answer.
    pub response: Response<Body>,
    /// The client that proved itself.
    pub client_id: Option<String>,
}

/// Checks and forwards.
pub struct Gateway {
    azurite: Arc<Azurite>,
    key: Arc<SigningKey>,
}

impl Gateway {
    /// The key that access tokens are signed with, and the store behind.
    pub fn new(azurite: Arc<Azurite>, key: Arc<SigningKey>) -> Self {
        Self { azurite, key }
    }

    /// Azurite's URL of a request and what the request does, `None` where the path is not below the account.
    #[must_use]
    pub fn target(&self, request: &Request<Body>) -> Option<(Url, Target)> {
        let path_and_query = request.uri().path_and_query()?.as_str();
        let url = self.azurite.url(path_and_query)?;
        let account = url.path_segments()?.next()?;
        (account == self.azurite.account())
            .then(|| Target::of(request.method(), &url, request.headers()))
            .map(|target| (url, target))
    }

    /// Answers a request below the account.
    pub async fn answer(
        &self,
        request: Request<Body>,
        url: Url,
        target: &Target,
        configuration: &Configuration,
    ) -> GatewayAnswer {
        let asked = request.headers().clone();
        let claims = match self.authenticate(request.headers(), &url, configuration) {
            Ok(claims) => claims,
            Err(error) => return GatewayAnswer { response: error.response(&asked), client_id: None },
        };
        let client_id = Some(claims.appid.clone());
        let result = match authorize(&claims, target, configuration) {
            Ok(()) => self.perform(request, url, target, configuration).await,
            Err(error) => Err(error),
        };
        let response = result.unwrap_or_else(|error| error.response(&asked));
        GatewayAnswer { response, client_id }
    }

    fn authenticate(
        &self,
        headers: &HeaderMap,
        url: &Url,
        configuration: &Configuration,
    ) -> Result<AccessClaims, StorageError> {
        let tenant = configuration.identities.values().next().map_or(NO_TENANT, |identity| &identity.tenant_id);
        let Some(authorization) = headers.get(header::AUTHORIZATION) else {
            return Err(if url.query_pairs().any(|(name, _)| name == "sig") {
                StorageError::key_access_not_permitted()
            } else {
                StorageError::no_authentication(tenant)
            });
        };
        let authorization = authorization.to_str().unwrap_or_default();
        let Some((scheme, token)) = authorization.split_once(' ') else {
            return Err(StorageError::invalid_authentication(tenant, "Authorization header is malformed."));
        };
        if scheme.starts_with("SharedKey") {
            return Err(StorageError::key_access_not_permitted());
        }
        if !scheme.eq_ignore_ascii_case("Bearer") {
            return Err(StorageError::invalid_authentication(tenant, "Authentication scheme is not supported."));
        }
        self.key
            .verify(token.trim(), configuration.token_generation, Timestamp::now().as_second())
            .map_err(|error| StorageError::invalid_authentication(tenant, &error.to_string()))
    }

    async fn perform(
        &self,
        request: Request<Body>,
        url: Url,
        target: &Target,
        configuration: &Configuration,
    ) -> Result<Response<Body>, StorageError> {
        let (mut parts, body) = request.into_parts();
        if parts.method == Method::PUT && !parts.headers.contains_key(header::CONTENT_LENGTH) {
            return Err(StorageError::missing_length());
        }
        let mut raced = false;
        if let Some(policy) = configuration.immutability.get(&target.container) {
            self.check_retention(*policy, target, &url, &parts.headers).await?;
            // The blob was not there when we looked. Let the store refuse if it came in between.
            let overwrites = matches!(target.operation, Operation::PutBlob | Operation::PutBlockList);
            let conditional =
                [header::IF_NONE_MATCH, header::IF_MATCH].iter().any(|name| parts.headers.contains_key(name));
            if overwrites && !conditional {
                parts.headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static("*"));
                raced = true;
            }
        }
        let response =
            self.azurite.forward(parts.method, url, &parts.headers, body).await.map_err(|error| failed(&error))?;
        let exists = response.headers().get("x-ms-error-code").is_some_and(|code| code == "BlobAlreadyExists");
        if raced && exists { Err(StorageError::immutable()) } else { Ok(response) }
    }

    async fn check_retention(
        &self,
        policy: ImmutabilityPolicy,
        target: &Target,
        url: &Url,
        headers: &HeaderMap,
    ) -> Result<(), StorageError> {
        let creates_only = headers.get(header::IF_NONE_MATCH).is_some_and(|value| value == "*");
        let forbidden = match guard(target.operation, creates_only) {
            Guard::Free => false,
            Guard::Exists => self.azurite.blob_facts(url).await.map_err(|error| failed(&error))?.is_some(),
            Guard::Age => {
                let facts = self.azurite.blob_facts(url).await.map_err(|error| failed(&error))?;
                facts.is_some_and(|facts| retained(policy, facts.created, Timestamp::now()))
            }
            Guard::EmptyContainer => {
                let page = self.azurite.list(&target.container, "", None, 1).await;
                !page.map_err(|error| failed(&error))?.blobs.is_empty()
            }
        };
        if forbidden { Err(StorageError::immutable()) } else { Ok(()) }
    }
}

fn authorize(claims: &AccessClaims, target: &Target, configuration: &Configuration) -> Result<(), StorageError> {
    if target.operation == Operation::Unsupported {
        return Err(StorageError::not_offered());
    }
    // Without a role nobody learns whether the container exists.
    match configuration.role(&claims.appid, &target.container) {
        Some(role) if role.permits(target.operation) => Ok(()),
        _ => Err(StorageError::permission_mismatch()),
    }
}

fn failed(error: &AzuriteError) -> StorageError {
    tracing::error!(error = with_causes(error), "no answer from Azurite");
    StorageError::internal("Server encountered an internal error. Please try again after some time.")
}
