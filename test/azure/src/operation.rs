//! Which operation of the Blob service a request is, by verb, `restype` and `comp`.

use http::{HeaderMap, Method};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::model::Role;

/// Operations that the emulator tells apart: by rights, by retention, in faults and in the summary of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Operation {
    /// Token endpoint.
    Token,
    /// Containers of the account.
    ListContainers,
    /// Create a container.
    CreateContainer,
    /// Delete a container.
    DeleteContainer,
    /// Properties, metadata, policy of a container, read.
    GetContainerProperties,
    /// Metadata or policy of a container, set.
    SetContainerProperties,
    /// Lease on a container.
    LeaseContainer,
    /// Blobs of a container.
    ListBlobs,
    /// A whole blob in one request.
    PutBlob,
    /// One block.
    PutBlock,
    /// Commits blocks.
    PutBlockList,
    /// Uncommitted and committed blocks.
    GetBlockList,
    /// Content.
    GetBlob,
    /// Properties or metadata of a blob.
    GetBlobProperties,
    /// Properties or metadata of a blob, set.
    SetBlobProperties,
    /// Access tier.
    SetBlobTier,
    /// Lease on a blob.
    LeaseBlob,
    /// Delete, of a blob or a snapshot of it.
    DeleteBlob,
    /// Undelete.
    UndeleteBlob,
    /// Snapshot.
    SnapshotBlob,
    /// Append or page write.
    AppendOrPage,
    /// What the emulator does not let through: copies from a URL, batches, queries, tags, account-level requests.
    Unsupported,
}

/// A request, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What it does.
    pub operation: Operation,
    /// The container, empty for the account's own operations.
    pub container: String,
    /// True where the path goes on after the container.
    pub names_blob: bool,
}

impl Target {
    /// Reads the request whose normalised URL at the emulator's path style is given: `/{account}/{container}/{blob}`.
    /// Normalised, since Azurite will see it so: `a/../b` must be judged as `b`.
    #[must_use]
    pub fn of(method: &Method, url: &Url, headers: &HeaderMap) -> Self {
        let mut segments = url.path_segments().into_iter().flatten().skip(1);
        let container = percent_decoded(segments.next().unwrap_or_default());
        let names_blob = segments.next().is_some_and(|first| !first.is_empty());
        let parameter =
            |name| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.to_ascii_lowercase());
        let (restype, comp) = (parameter("restype"), parameter("comp"));
        let copies = headers.contains_key("x-ms-copy-source");
        let operation = if copies {
            Operation::Unsupported
        } else if container.is_empty() {
            of_account(method, comp.as_deref())
        } else if !names_blob {
            of_container(method, restype.as_deref(), comp.as_deref())
        } else {
            of_blob(method, comp.as_deref())
        };
        Self { operation, container, names_blob }
    }
}

fn of_account(method: &Method, comp: Option<&str>) -> Operation {
    match (method, comp) {
        (&Method::GET, Some("list")) => Operation::ListContainers,
        _ => Operation::Unsupported,
    }
}

fn of_container(method: &Method, restype: Option<&str>, comp: Option<&str>) -> Operation {
    if restype != Some("container") {
        return Operation::Unsupported;
    }
    match (method, comp) {
        (&Method::GET, Some("list")) => Operation::ListBlobs,
        (&Method::GET | &Method::HEAD, None | Some("metadata" | "acl")) => Operation::GetContainerProperties,
        (&Method::PUT, None) => Operation::CreateContainer,
        (&Method::PUT, Some("metadata" | "acl")) => Operation::SetContainerProperties,
        (&Method::PUT, Some("lease")) => Operation::LeaseContainer,
        (&Method::DELETE, None) => Operation::DeleteContainer,
        _ => Operation::Unsupported,
    }
}

fn of_blob(method: &Method, comp: Option<&str>) -> Operation {
    match (method, comp) {
        (&Method::GET, None) => Operation::GetBlob,
        (&Method::HEAD, None) | (&Method::GET | &Method::HEAD, Some("metadata")) => Operation::GetBlobProperties,
        (&Method::GET, Some("blocklist")) => Operation::GetBlockList,
        (&Method::PUT, None) => Operation::PutBlob,
        (&Method::PUT, Some("block")) => Operation::PutBlock,
        (&Method::PUT, Some("blocklist")) => Operation::PutBlockList,
        (&Method::PUT, Some("lease")) => Operation::LeaseBlob,
        (&Method::PUT, Some("metadata" | "properties")) => Operation::SetBlobProperties,
        (&Method::PUT, Some("tier")) => Operation::SetBlobTier,
        (&Method::PUT, Some("snapshot")) => Operation::SnapshotBlob,
        (&Method::PUT, Some("undelete")) => Operation::UndeleteBlob,
        (&Method::PUT, Some("appendblock" | "page" | "seal")) => Operation::AppendOrPage,
        (&Method::DELETE, None) => Operation::DeleteBlob,
        _ => Operation::Unsupported,
    }
}

fn percent_decoded(segment: &str) -> String {
    // A container's name has no character that needs an escape: whatever decodes differently is no container.
    url::form_urlencoded::parse(segment.replace('+', "%2B").as_bytes())
        .next()
        .map_or_else(String::new, |(name, _)| name.into_owned())
}

impl Operation {
    /// The weakest role that may do it, `None` for nobody. By the data actions of Azure's built-in roles.
    #[must_use]
    pub fn needs(self) -> Option<Role> {
        match self {
            Self::ListContainers
            | Self::GetContainerProperties
            | Self::ListBlobs
            | Self::GetBlockList
            | Self::GetBlob
            | Self::GetBlobProperties => Some(Role::Reader),
            Self::Token | Self::Unsupported => None,
            _ => Some(Role::Contributor),
        }
    }
}

impl Role {
    /// Whether the role permits the operation.
    #[must_use]
    pub fn permits(self, operation: Operation) -> bool {
        match operation.needs() {
            Some(Role::Reader) => true,
            Some(Role::Contributor) => self == Role::Contributor,
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(method: &Method, path: &str) -> Target {
        Target::of(method, &Url::parse(&format!("https://x{path}")).unwrap(), &HeaderMap::new())
    }

    #[test]
    fn each_request_is_taken_for_the_operation_that_azure_defines() {
        let cases = [
            (Method::GET, "/a?comp=list", Operation::ListContainers),
            (Method::GET, "/a/c?restype=container&comp=list&prefix=x", Operation::ListBlobs),
            (Method::PUT, "/a/c?restype=container", Operation::CreateContainer),
            (Method::DELETE, "/a/c?restype=container", Operation::DeleteContainer),
            (Method::PUT, "/a/c/d/e", Operation::PutBlob),
            (Method::PUT, "/a/c/d?comp=block&blockid=MQ%3D%3D", Operation::PutBlock),
            (Method::PUT, "/a/c/d?comp=blocklist", Operation::PutBlockList),
            (Method::GET, "/a/c/d", Operation::GetBlob),
            (Method::HEAD, "/a/c/d", Operation::GetBlobProperties),
            (Method::PUT, "/a/c/d?comp=lease", Operation::LeaseBlob),
            (Method::DELETE, "/a/c/d", Operation::DeleteBlob),
            (Method::POST, "/a/c?restype=container&comp=batch", Operation::Unsupported),
            (Method::PUT, "/a/c/d?comp=tags", Operation::Unsupported),
        ];
        for (method, path, operation) in cases {
            assert_eq!(target(&method, path).operation, operation, "{method} {path}");
        }
    }

    #[test]
    fn a_copy_from_a_url_is_not_let_through_since_its_source_is_not_judged() {
        let mut headers = HeaderMap::new();
        headers.insert("x-ms-copy-source", "https://x/a/secret/blob".parse().unwrap());
        let url = Url::parse("https://x/a/c/d").unwrap();
        assert_eq!(Target::of(&Method::PUT, &url, &headers).operation, Operation::Unsupported);
    }

    #[test]
    fn dots_in_a_path_are_judged_as_the_container_that_they_lead_to() {
        assert_eq!(target(&Method::GET, "/a/mine/../other/blob").container, "other");
        assert_eq!(target(&Method::GET, "/a/mine/%2e%2e/other/blob").container, "other");
    }

    #[test]
    fn a_reader_reads_and_a_contributor_does_everything_that_is_let_through() {
        for operation in [Operation::GetBlob, Operation::ListBlobs, Operation::GetBlobProperties] {
            assert!(Role::Reader.permits(operation) && Role::Contributor.permits(operation));
        }
        for operation in [Operation::PutBlob, Operation::PutBlockList, Operation::DeleteBlob, Operation::LeaseBlob] {
            assert!(!Role::Reader.permits(operation) && Role::Contributor.permits(operation));
        }
        assert!(!Role::Contributor.permits(Operation::Unsupported));
    }
}
