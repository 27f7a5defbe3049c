//! The local landscape: real Kubernetes and Gardener components as processes of one machine.
//!
//! `garden` (kube-apiserver and gardener-apiserver), `seed`, the Shoots `alpha`, `beta` and `gamma` (hibernated), and the
//! standalone cluster `delta`: each with an own control plane and, but for the garden, one real node in namespaces of its
//! own. A [stand-in](stand_in) does what gardenlet and the discovery server would. Azure is Azurite behind the project's
//! emulator. Everything is ended by recorded identity, so that `down` works in any state, also after a crash.
//!
//! Tests use [`Landscape`]; people use the program `landscape`.

mod azure;
mod cgroup;
pub mod cli;
mod cluster;
mod command;
mod containerd;
mod context;
mod control;
mod control_plane;
mod down;
mod error;
mod foreign;
mod garden;
mod garden_content;
mod http;
mod identity;
mod image;
mod kubeconfig;
mod landscape;
mod machine;
mod network;
mod node;
mod node_config;
mod objects;
mod oci;
mod pki;
mod place;
mod process;
mod programs;
mod progress;
mod provisioner;
mod settings;
mod shoot_content;
mod slot;
pub mod stand_in;
mod up;
mod wait;

pub use azure::Azure;
pub use cluster::Cluster;
pub use error::{Error, Result};
pub use foreign::FOREIGN_SHOOT;
pub use garden_content::{OTHER_PROJECT, PROJECT, PROJECT_NAMESPACE, SEED};
pub use image::Image;
pub use landscape::Landscape;
pub use progress::{Console, Progress, Silent};
