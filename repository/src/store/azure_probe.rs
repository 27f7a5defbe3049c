//! Proves what an identity may do in a container, verb by verb.

use azure_core::credentials::TokenCredential;
use azure_storage_blob::models::BlobClientAcquireLeaseResultHeaders;
use bytes::Bytes;

use super::azure::{AzureStore, SCOPE};
use super::retry::Patience;
use super::{StoreError, StoreErrorKind};

/// Something a location must allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Entra ID gives a token for the pod's own.
    TokenExchange,
    /// List the blobs of the container.
    List,
    /// Create a blob.
    Put,
    /// Refuse to create it again.
    ConditionalPut,
    /// Read it back.
    Get,
    /// Take and give back a lease.
    Lease,
    /// Delete it.
    Delete,
}

impl Verb {
    /// All, in the order in which they are tried.
    pub const ALL: [Self; 7] =
        [Self::TokenExchange, Self::List, Self::Put, Self::ConditionalPut, Self::Get, Self::Lease, Self::Delete];

    /// Its name in a status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TokenExchange => "TokenExchange",
            Self::List => "List",
            Self::Put => "Put",
            Self::ConditionalPut => "ConditionalPut",
            Self::Get => "Get",
            Self::Lease => "Lease",
            Self::Delete => "Delete",
        }
    }
}

/// What became of one verb.
#[derive(Debug)]
pub struct VerbOutcome {
    /// Which.
    pub verb: Verb,
    /// Why it did not work; `None` when it did, or was skipped.
    pub error: Option<StoreError>,
    /// Not tried, because what it needs did not work.
    pub skipped: bool,
    /// What to know about it although it worked.
    pub note: Option<String>,
}

impl VerbOutcome {
    /// Whether it was tried and worked.
    #[must_use]
    pub const fn worked(&self) -> bool {
        self.error.is_none() && !self.skipped
    }

    fn of(verb: Verb, result: Result<Option<String>, StoreError>) -> Self {
        match result {
            Ok(note) => Self { verb, error: None, skipped: false, note },
            Err(error) => Self { verb, error: Some(error), skipped: false, note: None },
        }
    }

    const fn skipped(verb: Verb) -> Self {
        Self { verb, error: None, skipped: true, note: None }
    }
}

impl AzureStore {
    /// Tries every verb on a canary blob of this path and reports each. Takes a few seconds at most when the service
    /// answers; it is not as patient as the store's other calls.
    ///
    /// A write-once container refuses deletion ([`StoreErrorKind::Immutable`]): that counts as worked, with a note, and
    /// the canary stays.
    pub async fn probe(&self, canary: &str) -> Vec<VerbOutcome> {
        let mut outcomes = Vec::with_capacity(Verb::ALL.len());
        outcomes.push(VerbOutcome::of(Verb::TokenExchange, self.exchange().await.map(|()| None)));
        if outcomes.iter().any(|outcome| outcome.error.is_some()) {
            outcomes.extend(Verb::ALL.into_iter().skip(1).map(VerbOutcome::skipped));
            return outcomes;
        }
        let listed = self.page(Patience::SHORT, canary, None).await;
        outcomes.push(VerbOutcome::of(Verb::List, listed.map(|_| None)));

        let (path, content, put) = self.put_canary(canary).await;
        let there = put.is_ok();
        outcomes.push(VerbOutcome::of(Verb::Put, put.map(|()| None)));
        if !there {
            let rest = [Verb::ConditionalPut, Verb::Get, Verb::Lease, Verb::Delete];
            outcomes.extend(rest.into_iter().map(VerbOutcome::skipped));
            return outcomes;
        }
        outcomes.push(VerbOutcome::of(Verb::ConditionalPut, self.put_again(&path).await));
        outcomes.push(VerbOutcome::of(Verb::Get, self.get_canary(&path, &content).await));
        outcomes.push(VerbOutcome::of(Verb::Lease, self.lease(&path).await));
        outcomes.push(VerbOutcome::of(Verb::Delete, self.delete_canary(&path).await));
        outcomes
    }

    async fn exchange(&self) -> Result<(), StoreError> {
        self.attempt(Patience::SHORT, "get a token for", SCOPE, |session| async move {
            session.credential.get_token(&[SCOPE], None).await.map(drop)
        })
        .await
    }

    /// Writes a canary; under another name when an earlier one could not be deleted.
    async fn put_canary(&self, canary: &str) -> (String, Bytes, Result<(), StoreError>) {
        let mut random = [0; 16];
        if let Err(error) = crate::crypto::fill_random(&mut random) {
            let error = StoreError::new(StoreErrorKind::Other, format!("failed to create {canary}: {error}"));
            return (canary.to_owned(), Bytes::new(), Err(error));
        }
        let token = hex::encode(random);
        let content = Bytes::from(format!("canary {token}\n"));
        match self.put(Patience::SHORT, canary, content.clone()).await {
            Err(error) if error.kind() == StoreErrorKind::AlreadyExists => {
                let path = format!("{canary}-{token}");
                let put = self.put(Patience::SHORT, &path, content.clone()).await;
                (path, content, put)
            }
            put => (canary.to_owned(), content, put),
        }
    }

    async fn put_again(&self, path: &str) -> Result<Option<String>, StoreError> {
        match self.put(Patience::SHORT, path, Bytes::from_static(b"must be refused\n")).await {
            Err(error) if matches!(error.kind(), StoreErrorKind::AlreadyExists | StoreErrorKind::Immutable) => Ok(None),
            Err(error) => Err(error),
            Ok(()) => Err(StoreError::new(
                StoreErrorKind::Other,
                format!(
                    "failed to protect {path}: a second conditional write was not refused, so backups could be overwritten"
                ),
            )),
        }
    }

    async fn get_canary(&self, path: &str, content: &Bytes) -> Result<Option<String>, StoreError> {
        if self.get(Patience::SHORT, path, None).await? == content {
            Ok(None)
        } else {
            Err(StoreError::new(StoreErrorKind::Corrupt, format!("failed to read {path}: it is not what was written")))
        }
    }

    async fn lease(&self, path: &str) -> Result<Option<String>, StoreError> {
        self.attempt(Patience::SHORT, "lease", path, |session| {
            let blob = self.blob(&session, path);
            async move {
                // The shortest that the service gives, should the release be lost.
                let lease = blob.acquire_lease(15, None).await?;
                match lease.lease_id()? {
                    Some(id) => blob.release_lease(id, None).await.map(drop),
                    None => Ok(()),
                }
            }
        })
        .await
        .map(|()| None)
    }

    async fn delete_canary(&self, path: &str) -> Result<Option<String>, StoreError> {
        match self.remove(Patience::SHORT, path).await {
            Err(error) if error.kind() == StoreErrorKind::Immutable => {
                Ok(Some(format!("the container is write-once; {path} stays until its policy ends")))
            }
            result => result.map(|()| None),
        }
    }
}
