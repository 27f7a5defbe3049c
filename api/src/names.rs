//! Names and constants that more than one part has to agree on.

/// API group of every kind.
pub const GROUP: &str = "shootbackup.extensions.gardener.cloud";
/// API version of every kind.
pub const VERSION: &str = "v1alpha1";

/// Type in `Shoot.spec.extensions[].type`.
pub const EXTENSION_TYPE: &str = "shoot-backup";
/// Annotation of a Shoot that opts in (`"true"`) or out (`"false"`, wins over everything else).
pub const ANNOTATION_ENABLED: &str = "shootbackup.extensions.gardener.cloud/enabled";
/// Annotation that asks for an operation; removed when it is taken up. See [`crate::operation::Requested`].
pub const ANNOTATION_OPERATION: &str = "shootbackup.extensions.gardener.cloud/operation";
/// Annotation of a mirrored object: UID of the object in the garden that it mirrors.
pub const ANNOTATION_ORIGIN_UID: &str = "shootbackup.extensions.gardener.cloud/origin-uid";
/// Annotation of a mirrored object: generation of the object in the garden that it mirrors.
pub const ANNOTATION_ORIGIN_GENERATION: &str = "shootbackup.extensions.gardener.cloud/origin-generation";
/// Annotation of the agent's lease: version of the agent that holds it.
pub const ANNOTATION_AGENT_VERSION: &str = "shootbackup.extensions.gardener.cloud/agent-version";
/// Annotation of the agent's namespace: digest of the manifests that were delivered last.
pub const ANNOTATION_DELIVERED: &str = "shootbackup.extensions.gardener.cloud/delivered-digest";
/// Annotation of a mirrored object: UID of the `ApplicationCluster` in the garden through which it came. A cluster may be
/// known to several projects or gardens: each looks after its own mirrors only.
pub const ANNOTATION_ORIGIN_CLUSTER: &str = "shootbackup.extensions.gardener.cloud/origin-cluster";
/// Annotation of an `ApplicationCluster`: the `BackupLocation` that the discovery that found it associates it with, on
/// top of the locations that select it.
pub const ANNOTATION_LOCATION: &str = "shootbackup.extensions.gardener.cloud/location";
/// Label of everything that the mover Jobs of one operation own: UID of the `Backup` or `Restore`.
pub const LABEL_OPERATION_UID: &str = "shootbackup.extensions.gardener.cloud/operation-uid";
/// Label and annotation value `managed-by` of everything that we create.
pub const MANAGED_BY: &str = "shoot-backup";
/// Field manager of every server-side apply.
pub const FIELD_MANAGER: &str = "shoot-backup";
/// Finalizer on objects in the garden that have a mirror in an application cluster.
pub const FINALIZER: &str = "shootbackup.extensions.gardener.cloud/mirror";

/// Namespace of the agent in an application cluster.
pub const AGENT_NAMESPACE: &str = "shoot-backup";
/// The agent's Deployment, ServiceAccount and Lease.
pub const AGENT_NAME: &str = "shoot-backup-agent";
/// ServiceAccount in the application cluster with which the garden side works once the agent is delivered.
pub const GARDEN_ACCOUNT: &str = "shoot-backup-garden";
/// ConfigMap with the agent's configuration (`config.yaml`) and additional CA certificates (`ca.crt`).
pub const AGENT_CONFIG_MAP: &str = "shoot-backup-agent";
/// Audience of the projected token that is exchanged at Entra ID.
/// Source: Entra ID, workload identity federation; the recommended value of a federated credential's `audiences`.
pub const TOKEN_AUDIENCE: &str = "api://AzureADTokenExchange";
/// Subject of that token, the same in every cluster.
pub const TOKEN_SUBJECT: &str = "system:serviceaccount:shoot-backup:shoot-backup-agent";
/// Where the projected token is mounted in the agent and in mover pods.
pub const TOKEN_FILE: &str = "/var/run/secrets/azure/tokens/azure-identity-token";

/// Annotation of a Shoot that asks Gardener for a public service account issuer; it cannot be undone.
/// Source: Gardener, `docs/usage/security/shoot_serviceaccounts.md`.
pub const ANNOTATION_SHOOT_ISSUER: &str = "authentication.gardener.cloud/issuer";
/// Its value.
pub const SHOOT_ISSUER_MANAGED: &str = "managed";
/// Name of the issuer's entry in `Shoot.status.advertisedAddresses`.
pub const SHOOT_ISSUER_ADDRESS: &str = "service-account-issuer";

/// Federated credentials that Entra ID accepts on one identity.
/// Source: Entra ID, considerations for federated identity credentials.
pub const MAX_FEDERATED_CREDENTIALS: usize = 20;
