//! A token endpoint like Entra ID and a blob gateway before Azurite.
//!
//! Azurite keeps the blobs; what Azure adds around them is done here: tokens for federated assertions with Entra
//! ID's own refusals, role assignments per container, container-level immutability, and faults on demand. Tests
//! start an [`Emulator`] or the binary, and set it up by an [`AdminClient`].

mod admin;
mod arguments;
mod azurite;
mod causes;
mod client;
mod emulator;
mod entra_error;
mod faults;
mod gateway;
mod immutability;
mod injection;
mod issuers;
mod model;
mod operation;
mod requests;
mod run;
mod server;
mod signing;
mod storage_error;
mod store;
mod token;

pub use admin::{BlobEntry, BlobPage};
pub use arguments::Arguments;
pub use client::{AdminClient, ClientError};
pub use emulator::{Emulator, EmulatorError};
pub use faults::{Fault, FaultKind, FaultStatus};
pub use model::{
    FederatedCredential, Identity, IdentitySpec, ImmutabilityPolicy, MAX_FEDERATED_CREDENTIALS, Role, RoleAssignment,
    Settings, WHOLE_ACCOUNT,
};
pub use operation::Operation;
pub use requests::{RequestCount, RequestKey, RequestSummary};
pub use run::run;
