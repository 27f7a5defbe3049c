//! What is configured: identities, their federated credentials, role assignments, container policies, settings.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Entra ID's limit of federated credentials per application or managed identity.
pub const MAX_FEDERATED_CREDENTIALS: usize = 20;

/// A role assignment on this name counts for every container, as an assignment at the account's scope does.
pub const WHOLE_ACCOUNT: &str = "*";

/// An application or user-assigned managed identity, as it is put.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IdentitySpec {
    /// The tenant that the identity lives in.
    #[serde(rename = "tenantID")]
    pub tenant_id: String,
    /// A name for people.
    pub name: String,
}

/// An identity with everything that hangs on it, as it is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// The tenant that the identity lives in.
    #[serde(rename = "tenantID")]
    pub tenant_id: String,
    /// A name for people.
    pub name: String,
    /// The object id of the service principal: claim `oid` of its tokens.
    #[serde(rename = "objectID")]
    pub object_id: String,
    /// Federated credentials by name.
    #[serde(default)]
    pub federated_credentials: BTreeMap<String, FederatedCredential>,
    /// Roles by container, or by [`WHOLE_ACCOUNT`].
    #[serde(default)]
    pub roles: BTreeMap<String, Role>,
}

/// The trust in one subject of one issuer. All three fields are compared byte by byte, as Entra ID does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FederatedCredential {
    /// The issuer's URL, with or without a trailing slash exactly as in the token.
    pub issuer: String,
    /// The token's subject.
    pub subject: String,
    /// The token's audience. Entra ID wants a list and allows exactly one entry in it.
    pub audiences: Vec<String>,
}

/// Azure's built-in roles that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Reads and lists blobs.
    #[serde(rename = "Storage Blob Data Reader")]
    Reader,
    /// Reads, lists, writes and deletes blobs and containers.
    #[serde(rename = "Storage Blob Data Contributor")]
    Contributor,
}

/// What is put to assign a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleAssignment {
    /// The role.
    pub role: Role,
}

/// A container's time-based retention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImmutabilityPolicy {
    /// Days from a blob's creation, 1 to 146000 as in Azure.
    pub days: u32,
}

/// Settings of the token endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    /// How long an access token lives, in seconds.
    pub access_token_seconds: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { access_token_seconds: 3600 }
    }
}

/// Everything that the state file holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Configuration {
    /// PKCS #8 of the key that signs access tokens, base64.
    pub signing_key: String,
    /// Rises with each revocation: a token of an earlier generation is refused.
    #[serde(default)]
    pub token_generation: u64,
    /// Settings of the token endpoint.
    #[serde(default)]
    pub settings: Settings,
    /// Identities by client id.
    #[serde(default)]
    pub identities: BTreeMap<String, Identity>,
    /// Immutability policies by container.
    #[serde(default)]
    pub immutability: BTreeMap<String, ImmutabilityPolicy>,
}

impl Configuration {
    /// A tenant exists when an identity lives in it. Ids are compared as Entra ID does: without regard to case.
    #[must_use]
    pub fn knows_tenant(&self, tenant_id: &str) -> bool {
        self.identities.values().any(|identity| identity.tenant_id.eq_ignore_ascii_case(tenant_id))
    }

    /// The identity with this client id in this tenant, with its id as configured.
    #[must_use]
    pub fn identity(&self, tenant_id: &str, client_id: &str) -> Option<(&str, &Identity)> {
        self.identities
            .iter()
            .find(|(id, identity)| {
                id.eq_ignore_ascii_case(client_id) && identity.tenant_id.eq_ignore_ascii_case(tenant_id)
            })
            .map(|(id, identity)| (id.as_str(), identity))
    }

    /// The role that counts for this client on this container: the stronger of the container's and the account's.
    #[must_use]
    pub fn role(&self, client_id: &str, container: &str) -> Option<Role> {
        let roles = &self.identities.get(client_id)?.roles;
        match (roles.get(container), roles.get(WHOLE_ACCOUNT)) {
            (Some(Role::Contributor), _) | (_, Some(Role::Contributor)) => Some(Role::Contributor),
            (on_container, on_account) => on_container.or(on_account).copied(),
        }
    }
}
