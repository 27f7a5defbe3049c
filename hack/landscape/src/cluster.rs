//! The clusters of a landscape and what each of them consists of.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A cluster of the landscape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cluster {
    /// The garden: kube-apiserver with gardener-apiserver behind it, no node.
    Garden,
    /// The cluster with one node where the garden side of the product runs.
    Seed,
    /// Shoot `garden-demo/alpha`.
    Alpha,
    /// Shoot `garden-demo/beta`.
    Beta,
    /// Shoot `garden-demo/gamma`: hibernated until woken.
    Gamma,
    /// A cluster of its own that no Shoot describes.
    Delta,
    /// A second garden, of another landscape operator; started on demand, no node.
    ForeignGarden,
}

impl Cluster {
    /// All clusters, in the order of their numbers.
    pub const ALL: [Self; 7] =
        [Self::Garden, Self::Seed, Self::Alpha, Self::Beta, Self::Gamma, Self::Delta, Self::ForeignGarden];

    /// Name in commands, files and certificates.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Garden => "garden",
            Self::Seed => "seed",
            Self::Alpha => "alpha",
            Self::Beta => "beta",
            Self::Gamma => "gamma",
            Self::Delta => "delta",
            Self::ForeignGarden => "garden2",
        }
    }

    /// Small number that ports and addresses are derived from.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Garden => 0,
            Self::Seed => 1,
            Self::Alpha => 2,
            Self::Beta => 3,
            Self::Gamma => 4,
            Self::Delta => 5,
            Self::ForeignGarden => 6,
        }
    }

    /// Whether workloads can run in it.
    #[must_use]
    pub const fn has_node(self) -> bool {
        !matches!(self, Self::Garden | Self::ForeignGarden)
    }

    /// Whether a Shoot of project `demo` stands for it in the garden.
    #[must_use]
    pub const fn is_shoot(self) -> bool {
        matches!(self, Self::Alpha | Self::Beta | Self::Gamma)
    }

    /// Name of its one node.
    #[must_use]
    pub fn node(self) -> String {
        format!("{}-node", self.name())
    }
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Cluster {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|cluster| cluster.name() == text).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|cluster| cluster.name()).collect();
            Error::Precondition(format!("there is no cluster '{text}': choose one of {}", names.join(", ")))
        })
    }
}
